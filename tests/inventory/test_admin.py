"""Inventory in the Django admin: a person picks a ticket and types a number; nothing else bends."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth import get_user_model
from django.contrib.messages import get_messages
from django.test import Client

from common.events.models import OutboxEvent
from services.inventory import stock
from services.inventory.models import Reservation, Stock, StockMovement, TicketLabel
from tests.inventory.books import counters, violations

pytestmark = pytest.mark.django_db(transaction=True)

HOME = "/admin/inventory/"
STOCK = f"{HOME}inventory/stock/"
LISTS = ("stock", "reservation", "stockmovement")
READ_ONLY = LISTS[1:]


@pytest.fixture
def browser(access_token):
    """Return a maker of browsers that carry the cookie of somebody signed in (or of nobody)."""

    def make(role=None, **client):
        browser = Client(**client)
        if role:
            token = access_token(role=role, user_id=7, username="root")
            browser.cookies["flashsale_access"] = token
        return browser

    return make


@pytest.fixture
def admin_browser(browser):
    return browser("admin")


@pytest.fixture
def named_tickets():
    """Let the catalog have named tickets 1 and 2."""
    for ticket_id, name in ((1, "Concert · Balcony"), (2, "Concert · Floor")):
        TicketLabel.objects.create(ticket_id=ticket_id, label=name, version=1)


def told(response):
    """Return the messages that the page shows."""
    return [str(message) for message in get_messages(response.wsgi_request)]


def test_an_admin_sets_stock_by_picking_a_ticket_and_typing_a_number(admin_browser, named_tickets):
    form = admin_browser.get(f"{STOCK}add/").content.decode()
    assert "Concert · Balcony (#1)" in form
    assert "Concert · Floor (#2)" in form

    response = admin_browser.post(f"{STOCK}add/", {"ticket": 1, "total": 50}, follow=True)

    assert response.status_code == 200
    assert counters() == (50, 0, 0)
    page = response.content.decode()
    assert "Concert · Balcony (#1)" in page, "the list calls the ticket by its name"
    movement = StockMovement.objects.get()
    assert (movement.kind, movement.quantity, movement.actor) == ("initialise", 50, "admin:root")
    assert OutboxEvent.objects.filter(type="stock.changed").count() == 1
    assert violations() == []


def test_a_ticket_that_has_stock_is_not_offered_again(admin_browser, named_tickets, tickets):
    tickets(10)
    form = admin_browser.get(f"{STOCK}add/").content.decode()
    assert "Concert · Balcony" not in form
    assert "Concert · Floor" in form

    response = admin_browser.post(f"{STOCK}add/", {"ticket": 1, "total": 99})

    assert response.status_code == 200, "the form comes back with the error"
    assert counters() == (10, 0, 0)


@pytest.mark.parametrize("total", ["", "-1", "many", "1.5", str(10**9 + 1), "9" * 500])
def test_a_total_that_makes_no_sense_comes_back_as_a_form(admin_browser, named_tickets, total):
    response = admin_browser.post(f"{STOCK}add/", {"ticket": 1, "total": total})
    assert response.status_code == 200
    assert "total" in response.context["adminform"].form.errors
    assert not Stock.objects.exists()


def test_the_page_of_a_ticket_shows_its_counters(admin_browser, tickets, order):
    tickets(1234)
    order.reserve("a", quantity=200)
    order.reserve("b", quantity=33)
    order.commit("b")

    page = admin_browser.get(f"{STOCK}1/change/").content.decode()

    for number in (1234, 1001, 200, 33):
        assert re.search(rf">\s*{number}\s*<", page.replace(",", "")), number


def test_an_admin_adds_units_and_takes_free_ones_back(admin_browser, tickets):
    tickets(10)
    admin_browser.post(f"{STOCK}1/change/", {"delta": 5})
    assert counters() == (15, 0, 0)
    admin_browser.post(f"{STOCK}1/change/", {"delta": -7})
    assert counters() == (8, 0, 0)
    lines = StockMovement.objects.filter(kind="adjust").values_list("quantity", "actor")
    assert list(lines) == [(5, "admin:root"), (-7, "admin:root")]
    assert violations() == []


def test_a_refused_adjustment_leaves_nothing_behind_and_says_why(admin_browser, tickets, order):
    tickets(10)
    order.reserve("a", quantity=8)
    before = (counters(), StockMovement.objects.count(), OutboxEvent.objects.count())

    response = admin_browser.post(f"{STOCK}1/change/", {"delta": -5})

    assert response.status_code == 302
    assert response["Location"] == f"{STOCK}1/change/"
    assert told(response) == ["5 of ticket 1 wanted, 2 available."]
    after = (counters(), StockMovement.objects.count(), OutboxEvent.objects.count())
    assert after == before
    history = admin_browser.get(f"{STOCK}1/history/").content.decode()
    assert "Changed" not in history


def test_an_empty_form_changes_nothing(admin_browser, tickets):
    tickets(10)
    admin_browser.post(f"{STOCK}1/change/", {"delta": ""})
    assert counters() == (10, 0, 0)
    assert StockMovement.objects.filter(kind="adjust").count() == 0


def test_counters_sent_with_the_form_are_ignored(admin_browser, tickets):
    tickets(10)
    sent = {"delta": 1, "available": 999, "total": 999, "sold": 5, "reserved": 5, "version": 1}
    admin_browser.post(f"{STOCK}1/change/", sent)
    assert counters() == (11, 0, 0)
    assert violations() == []


def test_two_admins_setting_one_ticket_do_not_hide_each_other(
    admin_browser, named_tickets, order, monkeypatch
):
    """Both forms passed their check; the other one was faster, and a buyer too."""
    initialise = stock.initialise

    def slower(**fields):
        initialise(**{**fields, "total": 3, "actor": "admin:other"})
        order.reserve("a")
        return initialise(**fields)

    monkeypatch.setattr(stock, "initialise", slower)
    response = admin_browser.post(f"{STOCK}add/", {"ticket": 1, "total": 50})

    assert response.status_code == 302
    assert "adjust the stock" in told(response)[0]


@pytest.mark.parametrize("model", READ_ONLY)
def test_what_only_the_service_writes_can_be_read_and_nothing_else(
    admin_browser, order, tickets, model
):
    tickets(10)
    order.reserve("a", quantity=2, buyer_id="ann")
    row = {
        "reservation": Reservation.objects.get,
        "stockmovement": StockMovement.objects.first,
    }[model]()
    pk = row.pk
    url = f"{HOME}inventory/{model}/"

    assert admin_browser.get(url).status_code == 200
    assert admin_browser.get(f"{url}{pk}/change/").status_code == 200, "it can be looked at"
    assert admin_browser.get(f"{url}add/").status_code == 403
    assert admin_browser.post(f"{url}add/", {}).status_code == 403
    assert admin_browser.post(f"{url}{pk}/change/", {"quantity": 9}).status_code == 403
    assert admin_browser.get(f"{url}{pk}/delete/").status_code == 403
    assert admin_browser.post(f"{url}{pk}/delete/", {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [pk], "post": "yes"}
    admin_browser.post(url, chosen)
    assert (Reservation.objects.count(), StockMovement.objects.count()) == (1, 2)
    assert violations() == []


def test_stock_cannot_be_deleted(admin_browser, tickets):
    tickets(10)
    assert admin_browser.post(f"{STOCK}1/delete/", {"post": "yes"}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [1], "post": "yes"}
    admin_browser.post(STOCK, chosen)
    assert counters() == (10, 0, 0)


@pytest.mark.parametrize("query", ["?q=ann", "?q=1", "?q=%00", "?q=" + "9" * 30, "?o=1", "?p=99"])
@pytest.mark.parametrize("model", LISTS)
def test_lists_can_be_searched(admin_browser, order, tickets, model, query):
    tickets(10)
    order.reserve("a", quantity=2, buyer_id="ann")
    assert admin_browser.get(f"{HOME}inventory/{model}/{query}").status_code in (200, 302)


@pytest.mark.parametrize("role", [None, "user"])
@pytest.mark.parametrize("path", [HOME, STOCK, f"{STOCK}add/", f"{STOCK}1/change/"])
def test_who_is_not_an_admin_is_sent_to_the_login_page(browser, tickets, role, path):
    tickets(10)
    visitor = browser(role)

    for response in (visitor.get(path), visitor.post(path, {"delta": 5})):
        assert response.status_code == 302
        final = response
        if response["Location"].startswith(f"{HOME}login/"):
            final = visitor.get(response["Location"])
        assert final.status_code == 302
        assert final["Location"] == f"/login?next={path}"
    assert counters() == (10, 0, 0)


@pytest.mark.parametrize("cookie", ["", "rubbish", "a.b.c", "é", "x" * 10_000])
def test_a_cookie_that_is_no_token_is_nobody(browser, cookie):
    visitor = browser()
    visitor.cookies["flashsale_access"] = cookie
    assert visitor.get(HOME).status_code == 302


def test_a_services_token_in_the_cookie_is_not_an_admin(browser, service_token_for):
    visitor = browser()
    visitor.cookies["flashsale_access"] = service_token_for("order")
    assert visitor.get(HOME).status_code == 302


def test_a_form_without_csrf_token_is_refused(browser, tickets):
    tickets(10)
    admin = browser("admin", enforce_csrf_checks=True)
    assert admin.post(f"{STOCK}1/change/", {"delta": 5}).status_code == 403
    assert counters() == (10, 0, 0)

    page = admin.get(f"{STOCK}1/change/").content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[1]
    sent = {"delta": 5, "csrfmiddlewaretoken": token}
    assert admin.post(f"{STOCK}1/change/", sent).status_code == 302
    assert counters() == (15, 0, 0)


def test_logging_out_is_auths_business(admin_browser):
    response = admin_browser.post(f"{HOME}logout/")
    assert (response.status_code, response["Location"]) == (307, "/logout")


def test_the_admins_local_shadow_has_no_password_of_its_own(admin_browser):
    admin_browser.get(HOME)
    admin_browser.get(HOME)
    shadow = get_user_model().objects.get()
    assert (shadow.username, shadow.has_usable_password()) == ("root", False)
    # Nothing to edit here: auth owns who may do what.
    assert admin_browser.get(f"{HOME}auth/user/").status_code == 404


def test_ledger_and_reservations_of_a_ticket_are_a_click_away(admin_browser, order, tickets):
    tickets(10, 5)
    order.reserve("r", quantity=3)
    order.reserve("other", ticket_id=2)

    page = admin_browser.get(f"{STOCK}1/change/").content.decode()

    assert re.search(r'href="[^"]*/reservation/\?ticket_id=1"', page)
    [link] = set(re.findall(r'href="([^"]*stockmovement/\?ticket_id=1)"', page))
    lines = admin_browser.get(link).content.decode()
    assert re.search(r"2\s+results", lines)
    assert "initialise" in lines.lower()


def test_the_steps_of_a_reservation_are_a_click_away(admin_browser, order, tickets):
    tickets(10)
    order.reserve("r", quantity=3)
    order.commit("r")
    page = admin_browser.get(f"{HOME}inventory/reservation/").content.decode()
    [link] = set(re.findall(r'href="([^"]*stockmovement/\?reservation_id=r)"', page))
    lines = admin_browser.get(link).content.decode()
    assert re.search(r"2\s+results|2\s+stock movements", lines)


@pytest.mark.parametrize(("choice", "found"), [("sold_out", 1), ("left", 2)])
def test_stock_can_be_filtered_by_what_is_left(admin_browser, tickets, choice, found):
    tickets(10, 0, 5)
    page = admin_browser.get(f"{STOCK}?availability={choice}").content.decode()
    assert f"{found} result" in page
