"""Public paths of orders and payments, under /api/."""

from django.urls import path

import common.converters  # noqa: F401  registers the converters
from services.order.api import payment_views, views

urlpatterns = [
    path("orders", views.OrdersView.as_view()),
    path("orders/<uuid:order_id>", views.OrderView.as_view()),
    path("orders/<uuid:order_id>/pay", views.PayView.as_view()),
    path("orders/<uuid:order_id>/cancel", views.CancelView.as_view()),
    path("payments/<uuid:payment_id>", payment_views.PaymentView.as_view()),
    path("payments/sandbox/<uuid:payment_id>/settle", payment_views.SandboxSettleView.as_view()),
    path("payments/webhooks/<token:provider>", payment_views.WebhookView.as_view()),
]
