"""Paths under /internal/catalog/, which nginx never routes."""

from django.urls import path

import common.converters  # noqa: F401  registers the converters
from services.catalog.api import internal_views

urlpatterns = [
    path("tickets/<row_id:ticket_id>/offer", internal_views.OfferView.as_view()),
]
