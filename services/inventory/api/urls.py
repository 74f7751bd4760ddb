"""Public paths under /api/inventory/."""

from django.urls import path

import common.converters  # noqa: F401  registers the converters
from services.inventory.api import views

urlpatterns = [
    path("stocks", views.StocksView.as_view()),
    path("stocks/<row_id:ticket_id>", views.StockView.as_view()),
    path("stocks/<row_id:ticket_id>/adjust", views.AdjustStockView.as_view()),
    path("stocks/<row_id:ticket_id>/movements", views.MovementsView.as_view()),
    path("reservations", views.ReservationsView.as_view()),
    path("reservations/<token:reservation_id>", views.ReservationView.as_view()),
    path("reservations/<token:reservation_id>/commit", views.CommitView.as_view()),
    path("reservations/<token:reservation_id>/release", views.ReleaseView.as_view()),
    path("reservations/<token:reservation_id>/extend", views.ExtendView.as_view()),
]
