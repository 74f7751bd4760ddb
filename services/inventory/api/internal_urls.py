"""Paths under /internal/inventory/, which nginx never routes."""

from django.urls import path

from services.inventory.api import internal_views

urlpatterns = [
    path("reservations:batch", internal_views.BatchView.as_view()),
    path("holds", internal_views.HoldsView.as_view()),
]
