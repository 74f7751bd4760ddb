"""The parts for admins and developers in a real browser: Django admin, browsable API, docs."""

from __future__ import annotations

import json
import re
import secrets

import pytest
from playwright.sync_api import expect

from tests.system.browser import Window
from tests.system.client import within
from tests.system.shop import Shop


@pytest.fixture
def admin(window: Window, shop: Shop) -> Window:
    """The admin, who has logged in once, at whichever admin they came to first."""
    window.goto("/admin/catalog/")
    window.log_in("admin", shop.admin_password)
    window.page.wait_for_url("**/admin/catalog/")
    return window


def test_one_login_opens_the_admin_of_every_service(admin: Window, shop: Shop) -> None:
    order = shop.buyer().order(shop.ticket(3)).require(201)["id"]
    lists = {
        "catalog": ("catalog/event", "catalog/ticket", "catalog/availability"),
        "inventory": ("inventory/stock", "inventory/reservation", "inventory/stockmovement"),
        "order": ("order/order", "order/payment", "order/ticketoffer"),
        "auth": ("accounts/user", "accounts/loginsession", "accounts/refreshtoken"),
    }
    for service, models in lists.items():
        page = admin.goto(f"/admin/{service}/")
        expect(page.locator("body")).to_contain_text("admin")
        admin.look(f"admin-{service}")
        for model in models:
            page = admin.goto(f"/admin/{service}/{model}/")
            expect(page.locator("#changelist")).to_be_visible()
            admin.look(f"admin-{service}-{model.partition('/')[2]}")
    page = admin.goto(f"/admin/order/order/order/{order}/change/")
    expect(page.locator("body")).to_contain_text(order, ignore_case=True)
    admin.look("admin-order-one")


def test_a_person_sets_and_changes_stock_in_the_admin(admin: Window, shop: Shop) -> None:
    name = f"Balcony {secrets.token_hex(3)}"
    ticket = shop.ticket(None, name=name)
    # The ticket's name comes to inventory by event.
    add = "/admin/inventory/inventory/stock/add/"

    def offered() -> int:
        return admin.goto(add).locator("select[name=ticket] option", has_text=name).count()

    within(10, offered, 1)
    page = admin.page
    label = page.locator("select[name=ticket] option", has_text=name).inner_text()
    page.select_option("select[name=ticket]", label=label)
    page.fill("[name=total]", "50")
    admin.look("admin-stock-add")
    page.click("[name=_save]")
    page.wait_for_url("**/admin/inventory/inventory/stock/")
    assert shop.stock(ticket) == (50, 0, 0)

    shop.buyer().order(ticket, quantity=3).require(201)
    paid = shop.buyer()
    paid.pay(paid.order(ticket, quantity=2).require(201)["id"]).require(200)
    page.goto(f"/admin/inventory/inventory/stock/{ticket}/change/")
    page.fill("[name=delta]", "-10")
    admin.look("admin-stock-change")
    page.click("[name=_save]")
    page.wait_for_url("**/admin/inventory/inventory/stock/")
    row = page.locator("#result_list tr", has_text=name)
    numbers = [row.locator(f".field-{n}").inner_text() for n in ("available", "reserved", "sold")]
    assert [int(re.sub(r"\D", "", number)) for number in numbers] == [35, 3, 2]
    within(2, lambda: shop.shown(ticket), 35)

    page.goto(f"/admin/inventory/inventory/stock/{ticket}/change/")
    page.fill("[name=delta]", "-36")
    page.click("[name=_save]")
    expect(page.locator("body")).to_contain_text(re.compile("only 35|35 are|available", re.I))
    admin.look("admin-stock-refused")
    assert shop.stock(ticket) == (35, 3, 2)


def test_an_event_is_published_by_an_action(admin: Window, shop: Shop) -> None:
    title = f"Premiere {secrets.token_hex(4)}"
    event = shop.event(title=title)
    assert shop.visitor.get(f"/api/catalog/events/{event}").status == 404
    page = admin.goto(f"/admin/catalog/catalog/event/?q={title.replace(' ', '+')}")
    row = page.locator("#result_list tr", has_text=title)
    row.locator("input[name=_selected_action]").check()
    page.select_option("select[name=action]", label="Publish")
    admin.look("admin-publish")
    page.locator("button[name=index]").first.click()
    expect(page.locator("body")).to_contain_text("Done: 1.")
    admin.look("admin-published")
    assert shop.visitor.get(f"/api/catalog/events/{event}").require(200)["status"] == "PUBLISHED"
    page.goto(f"/admin/catalog/catalog/event/{event}/change/")
    expect(page.locator("[name=title]")).to_have_value(title)
    admin.look("admin-event")


def test_a_normal_user_is_not_let_in(window: Window) -> None:
    window.register()
    for service in ("catalog", "inventory", "order", "auth"):
        response = window.page.goto(f"/admin/{service}/")
        assert response is not None
        assert response.status == 403
    expect(window.page.get_by_role("heading", name="Forbidden")).to_be_visible()
    window.look("not-let-in")


def test_every_service_can_be_clicked_through(admin: Window, shop: Shop) -> None:
    ticket = shop.ticket(5)
    pages = {
        "auth": "/api/auth/me",
        "catalog": "/api/catalog/events",
        "inventory": f"/api/inventory/stocks/{ticket}",
        "order": "/api/orders",
    }
    for service, path in pages.items():
        page = admin.goto(path)
        expect(page.locator(".response-info")).to_contain_text("HTTP 200 OK")
        expect(page.locator(".navbar")).to_contain_text("admin (admin)")
        admin.look(f"api-{service}")
    # Setting stock by hand, with the form of the page.
    page = admin.goto(pages["inventory"])
    page.locator("#id__content").fill(json.dumps({"total": 7}))
    page.get_by_role("button", name="PUT").click()
    expect(page.locator(".response-info")).to_contain_text('"total": 7')
    expect(page.locator(".response-info")).to_contain_text("HTTP 200 OK")
    assert shop.stock(ticket) == (7, 0, 0)


def test_an_order_is_placed_with_the_form_of_the_browsable_api(window: Window, shop: Shop) -> None:
    ticket = shop.ticket(5)
    page = window.goto("/api/catalog/events")
    window.look("api-visitor")
    page.get_by_role("link", name="Log in").click()
    page.get_by_role("link", name="Create an account").click()
    window.register()
    page.goto("/api/orders")
    for quantity, left in ((2, 3), (2, 1)):
        items = {"items": [{"ticket_id": ticket, "quantity": quantity}]}
        page.locator("#id__content").fill(json.dumps(items))
        page.get_by_role("button", name="POST").click()
        # Each click is a new order: the page's script gives it a key of its own.
        expect(page.locator(".response-info")).to_contain_text("HTTP 201 Created")
        assert shop.stock(ticket)[0] == left
        page.goto("/api/orders")
    window.look("api-orders")


def test_one_page_documents_all_four_services(window: Window) -> None:
    page = window.goto("/api/docs")
    for operation in (
        "/api/auth/login",
        "/api/catalog/events",
        "/api/inventory/reservations",
        "/api/orders",
    ):
        expect(
            page.locator(f'.opblock-summary-path[data-path="{operation}"]').first
        ).to_be_visible()
    window.look("docs")
    page.locator('.opblock-get [data-path="/api/catalog/events"]').click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator("tr.response .response-col_status").first).to_contain_text("200")
    window.look("docs-try")
