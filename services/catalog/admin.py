"""Catalog in the Django admin: events with their tickets, published and put on sale by a person.

Every form and button goes through publishing.py and tickets.py, so that versions, events and the
cache follow as they do for the API.
"""

# unfold has no types, nor have its decorators.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import Group, User
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display

from common.errors import Problem
from services.catalog import publishing, tickets
from services.catalog.availability import available_of
from services.catalog.models import Availability, Event, Ticket
from services.catalog.searching import containing

# The shadow users of common.admin_login are not for people to edit: auth owns who may do what.
admin.site.unregister(User)
admin.site.unregister(Group)

STATUS_COLOURS = {"DRAFT": "info", "PUBLISHED": "success", "ON_SALE": "success", "ENDED": "danger"}
TICKET_FIELDS = (
    "name",
    "price",
    "currency",
    "per_order_limit",
    "per_user_limit",
    "sale_starts_at",
    "sale_ends_at",
)


class CatalogAdmin(ModelAdmin):
    """What both admins share: a refusal is a message, and nothing is ever deleted."""

    # What a button beside "Save" (by its url_path) does: from which status to which.
    steps: Mapping[str, tuple[str, str]] = {}

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # Django has rolled the form's transaction back by the time the refusal arrives here.
        try:
            response: HttpResponse = super().changeform_view(request, *args, **kwargs)
            return response
        except Problem as refusal:
            self.message_user(request, refusal.text, messages.ERROR)
            return HttpResponseRedirect(request.path)

    def attempt(
        self, request: HttpRequest, rows: Iterable[Model], move: Callable[[Any], None]
    ) -> None:
        """Carry out ``move`` for each row and say what was done and what was refused."""
        done = 0
        for row in rows:
            try:
                move(row.pk)
                done += 1
            except Problem as refusal:
                self.message_user(request, f"{row}: {refusal.text}", messages.ERROR)
        if done:
            self.message_user(request, f"Done: {done}.", messages.SUCCESS)

    def get_actions_submit_line(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Offer the buttons of the steps that the thing can take from where it is."""
        buttons: list[Any] = super().get_actions_submit_line(request, object_id)
        row = self.model.objects.filter(pk=object_id).first()
        if row is None or request.method == "POST":
            # Who presses a button on a page that is out of date is told so.
            return buttons
        return [one for one in buttons if self.steps[one.path][0] == row.status]

    def run_pressed_buttons(self, request: HttpRequest, obj: Model) -> None:
        """Run the buttons beside "Save", as unfold's own save_model() would."""
        for button in self.get_actions_submit_line(request, obj.pk):
            if button.action_name in request.POST:
                button.method(request, obj)


class TicketInline(TabularInline):
    model = Ticket
    fields = ("name", "state", "available", *TICKET_FIELDS[1:])
    readonly_fields = ("state", "available")
    extra = 0
    max_num = tickets.TICKETS_PER_EVENT_MAX
    can_delete = False
    show_change_link = True

    @display(description="status", label=STATUS_COLOURS)
    def state(self, obj: Ticket) -> str:
        return obj.status

    def available(self, obj: Ticket) -> int | None:
        return available_now(obj)


@admin.register(Event)
class EventAdmin(CatalogAdmin):
    list_display = ("title", "starts_at", "ends_at", "state")
    list_filter = ("status", "starts_at")
    # The text of the search box; get_search_results() decides what it means.
    search_fields = ("title",)
    fields = ("title", "description", "starts_at", "ends_at", "state")
    readonly_fields = ("state",)
    inlines = (TicketInline,)
    actions = ("publish", "unpublish", "end")
    actions_submit_line = ("publish_this", "unpublish_this", "end_this")
    steps = publishing.TRANSITIONS

    @display(description="status", ordering="status", label=STATUS_COLOURS)
    def state(self, obj: Event) -> str:
        return obj.status

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        return containing(queryset, search_term), False

    @action(description="Publish")
    def publish(self, request: HttpRequest, queryset: QuerySet[Event]) -> None:
        self.attempt(request, queryset, lambda pk: publishing.move_event(pk, "publish"))

    @action(description="Unpublish")
    def unpublish(self, request: HttpRequest, queryset: QuerySet[Event]) -> None:
        self.attempt(request, queryset, lambda pk: publishing.move_event(pk, "unpublish"))

    @action(description="End")
    def end(self, request: HttpRequest, queryset: QuerySet[Event]) -> None:
        self.attempt(request, queryset, lambda pk: publishing.move_event(pk, "end"))

    @action(description="Save and publish", url_path="publish")
    def publish_this(self, request: HttpRequest, obj: Event) -> None:
        self.attempt(request, [obj], lambda pk: publishing.move_event(pk, "publish"))

    @action(description="Save and unpublish", url_path="unpublish")
    def unpublish_this(self, request: HttpRequest, obj: Event) -> None:
        self.attempt(request, [obj], lambda pk: publishing.move_event(pk, "unpublish"))

    @action(description="Save and end", url_path="end")
    def end_this(self, request: HttpRequest, obj: Event) -> None:
        self.attempt(request, [obj], lambda pk: publishing.move_event(pk, "end"))

    def save_model(self, request: HttpRequest, obj: Event, form: Any, change: bool) -> None:
        if change:
            publishing.revise_event(obj.pk, _changes(form))
        else:
            obj.pk = publishing.create_event(form.cleaned_data)
        self.run_pressed_buttons(request, obj)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        formset.save(commit=False)
        by_row = {id(ticket_form.instance): ticket_form for ticket_form in formset.forms}
        for ticket, _ in formset.changed_objects:
            tickets.revise_ticket(ticket.pk, _changes(by_row[id(ticket)]))
        for ticket in formset.new_objects:
            details = {name: getattr(ticket, name) for name in TICKET_FIELDS}
            ticket.pk = tickets.create_ticket(form.instance.pk, details)


@admin.register(Ticket)
class TicketAdmin(CatalogAdmin):
    list_display = ("name", "event", "price", "currency", "state", "available")
    list_filter = ("status", "event")
    list_select_related = ("event",)
    search_fields = ("name", "event__title")
    fields = ("event", *TICKET_FIELDS, "state", "available", "version")
    readonly_fields = ("event", "state", "available", "version")
    actions = ("put_on_sale", "take_off_shelf")
    actions_submit_line = ("put_this_on_sale", "take_this_off_shelf")
    steps = tickets.TRANSITIONS

    @display(description="status", ordering="status", label=STATUS_COLOURS)
    def state(self, obj: Ticket) -> str:
        return obj.status

    def available(self, obj: Ticket) -> int | None:
        return available_now(obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        # A ticket is made on the page of its event.
        return False

    @action(description="Put on sale")
    def put_on_sale(self, request: HttpRequest, queryset: QuerySet[Ticket]) -> None:
        self.attempt(request, queryset, lambda pk: tickets.move_ticket(pk, "on-sale"))

    @action(description="Take off the shelf")
    def take_off_shelf(self, request: HttpRequest, queryset: QuerySet[Ticket]) -> None:
        self.attempt(request, queryset, lambda pk: tickets.move_ticket(pk, "off-shelf"))

    @action(description="Save and put on sale", url_path="on-sale")
    def put_this_on_sale(self, request: HttpRequest, obj: Ticket) -> None:
        self.attempt(request, [obj], lambda pk: tickets.move_ticket(pk, "on-sale"))

    @action(description="Save and take off the shelf", url_path="off-shelf")
    def take_this_off_shelf(self, request: HttpRequest, obj: Ticket) -> None:
        self.attempt(request, [obj], lambda pk: tickets.move_ticket(pk, "off-shelf"))

    def save_model(self, request: HttpRequest, obj: Ticket, form: Any, change: bool) -> None:
        tickets.revise_ticket(obj.pk, _changes(form))
        self.run_pressed_buttons(request, obj)


@admin.register(Availability)
class AvailabilityAdmin(CatalogAdmin):
    """What inventory's events said last; inventory's own admin is where stock is set."""

    list_display = ("ticket_name", "available", "version", "updated_at")
    search_fields = ("ticket_id",)

    @display(description="ticket")
    def ticket_name(self, obj: Availability) -> str:
        ticket = Ticket.objects.select_related("event").filter(pk=obj.ticket_id).first()
        return f"{ticket.event} · {ticket}" if ticket else f"Ticket #{obj.ticket_id}"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def available_now(ticket: Ticket) -> int | None:
    """Return what is left of a ticket; None for one that is only being typed in."""
    return available_of([ticket.pk], hot=False)[ticket.pk]["available"] if ticket.pk else None


def _changes(form: ModelForm[Any]) -> Mapping[str, Any]:
    """Return only what was changed in the form: what somebody else changed meanwhile stays."""
    return {name: form.cleaned_data[name] for name in form.changed_data}
