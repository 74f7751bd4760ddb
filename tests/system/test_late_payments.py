"""Late money in the real system: a hold of two seconds, a buyer who is slower, and a shop that
gives the units again while there are any."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.system.browser import Window
from tests.system.client import within
from tests.system.conftest import private_system, shop_of
from tests.system.shop import Shop

EXPIRES_WITHIN_SECONDS = 15


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """A shop of its own, in which time to pay is short and late money welcome."""
    with private_system(
        LATE_PAYMENT="rereserve", HOLD_TTL_SECONDS="2", HOLD_EXTENSION_SECONDS="0"
    ) as stack:
        yield shop_of(stack)


@pytest.mark.parametrize("sold_out", [False, True], ids=["units left", "sold out"])
def test_who_pays_late_gets_the_tickets_while_there_are_any(
    window: Window, shop: Shop, sold_out: bool
) -> None:
    event = shop.event(title="A night for the slow")
    ticket = shop.ticket(1, event=event, name="Standing", price=4250)
    within(2, lambda: shop.shown(ticket), 1)
    page = window.goto(f"/register?next=/events/{event}")
    window.register()
    page.get_by_role("button", name="Buy").click()
    page.wait_for_url("**/orders/*")
    order = page.url
    page.get_by_role("button", name="Pay later at the provider").click()
    page.wait_for_url("**/pay/*")
    within(EXPIRES_WITHIN_SECONDS, lambda: shop.stock(ticket), (1, 0, 0))
    page.goto(order)
    expect(page.locator("[data-status=EXPIRED]")).to_be_visible(
        timeout=EXPIRES_WITHIN_SECONDS * 1000
    )
    if sold_out:
        other = shop.buyer()
        taken = other.order(ticket).require(201)
        other.pay(taken["id"]).require(200)
    page.go_back()
    page.get_by_role("button", name="Complete payment").click()

    if sold_out:
        expect(page.locator("[data-message]")).to_contain_text("gave the money back")
        page.goto(order)
        expect(page.locator("[data-late=refunded]")).to_contain_text("came too late")
        window.look("order-too-late")
    else:
        page.wait_for_url("**/orders/*")
        expect(page.locator("[data-late=rereserved]")).to_contain_text("reserved for you again")
        expect(page.locator("[data-status=CONFIRMED]")).to_be_visible()
        window.look("order-late-rereserved")
        assert shop.stock(ticket) == (0, 0, 1)


def test_the_books_are_in_order_afterwards(shop: Shop) -> None:
    assert shop.audit()["ok"]
