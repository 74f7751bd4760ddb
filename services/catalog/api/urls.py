"""Public paths under /api/catalog/."""

from django.urls import path

import common.converters  # noqa: F401  registers the converters
from services.catalog import publishing, tickets
from services.catalog.api import views

urlpatterns = [
    path("events", views.EventsView.as_view()),
    path("events/<row_id:event_id>", views.EventView.as_view()),
    path("events/<row_id:event_id>/tickets", views.EventTicketsView.as_view()),
    path("tickets/<row_id:ticket_id>", views.TicketView.as_view()),
    path("tickets/<row_id:ticket_id>/availability", views.AvailabilityView.as_view()),
    *(
        path(f"events/<row_id:event_id>/{call}", views.event_move(call))
        for call in publishing.TRANSITIONS
    ),
    *(
        path(f"tickets/<row_id:ticket_id>/{call}", views.ticket_move(call))
        for call in tickets.TRANSITIONS
    ),
]
