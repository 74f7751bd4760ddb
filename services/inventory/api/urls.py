"""Public paths under /api/inventory/."""

from django.urls import path

import common.converters  # noqa: F401  registers the converters
from services.inventory.api import views

urlpatterns = [
    path("stocks/<row_id:ticket_id>", views.StockView.as_view()),
    path("stocks/<row_id:ticket_id>/adjust", views.AdjustStockView.as_view()),
    path("reservations", views.ReservationsView.as_view()),
    path("reservations/<token:reservation_id>", views.ReservationView.as_view()),
    path("reservations/<token:reservation_id>/commit", views.CommitView.as_view()),
    path("reservations/<token:reservation_id>/release", views.ReleaseView.as_view()),
]
