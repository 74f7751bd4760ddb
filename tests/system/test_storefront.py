"""A person in a real browser: registers, buys, pays, cancels, and sees what is left."""

from __future__ import annotations

import re
import secrets

from playwright.sync_api import Page, expect

from tests.system.browser import Window, buy_all
from tests.system.client import within
from tests.system.shop import PASSWORD, Shop, manage_all


def on_sale(shop: Shop, stock: int, **details: object) -> tuple[int, int, str]:
    """Return event, ticket and title of a new sale."""
    title = f"Night {secrets.token_hex(4)}"
    event = shop.event(title=title, description="One night, one stage, and far too few seats.")
    ticket = shop.ticket(stock, event=event, name="Standing", price=4250, **details)
    within(2, lambda: shop.shown(ticket), stock)
    return event, ticket, title


def order_page(window: Window, event: int) -> Page:
    """Buy one as somebody new; returns the page of the order."""
    window.register(f"/register?next=/events/{event}")
    window.page.get_by_role("button", name="Buy").click()
    window.page.wait_for_url("**/orders/*")
    return window.page


def test_a_person_registers_buys_and_pays(window: Window, shop: Shop) -> None:
    event, ticket, title = on_sale(shop, 40)
    page = window.goto("/")
    expect(page.locator(".event-card").first).to_be_visible()
    window.look("events")
    page.get_by_label("Search events").fill(title)
    expect(page.locator(".event-card")).to_have_count(1)
    page.locator(".event-card").click()
    page.wait_for_url(f"**/events/{event}")
    expect(page.locator(".live")).to_have_text("40 left")
    window.look("event")

    # Whoever is nobody is asked to log in, and comes back to where they were.
    page.get_by_role("button", name="Buy").click()
    page.wait_for_url("**/login?next=**")
    window.look("login")
    page.get_by_role("link", name="Create an account").click()
    page.wait_for_url("**/register?**")
    window.look("register")
    name = window.register()
    page.wait_for_url(f"**/events/{event}")
    expect(page.locator(".menu-name")).to_have_text(name)

    page.get_by_label(re.compile("How many")).fill("2")
    page.get_by_role("button", name="Buy").click()
    page.wait_for_url("**/orders/*")
    expect(page.locator("[data-status]")).to_have_text("Waiting for payment")
    expect(page.locator(".clock")).to_have_text(re.compile(r"9:\d\d|10:00"))
    window.look("order-to-pay")
    page.get_by_role("button", name="Pay €85.00").click()
    expect(page.locator("[data-status=CONFIRMED]")).to_be_visible()
    expect(page.locator(".admission")).to_contain_text("2 ×")
    window.look("order-confirmed")
    assert shop.stock(ticket) == (38, 0, 2)

    page.get_by_role("link", name="My orders", exact=True).click()
    expect(page.locator(".order-row")).to_contain_text("Confirmed")
    window.look("my-orders")

    page.locator(".menu summary").click()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("link", name="Log in")).to_be_visible()
    assert window.is_nobody()
    page.goto("/orders")
    window.log_in(name, PASSWORD)
    expect(page.locator(".order-row")).to_contain_text("Confirmed")


def test_a_person_pays_later_at_the_provider(window: Window, shop: Shop) -> None:
    event, ticket, _ = on_sale(shop, 5)
    page = order_page(window, event)
    page.get_by_role("button", name="Try a declined card").click()
    expect(page.locator("[data-message]")).to_contain_text("declined")
    page.get_by_role("button", name="Pay later at the provider").click()
    page.wait_for_url("**/pay/*")
    expect(page.locator("[data-summary]")).to_contain_text("€42.50")
    window.look("pay")
    page.get_by_role("button", name="Complete payment").click()
    page.wait_for_url("**/orders/*")
    expect(page.locator("[data-status=CONFIRMED]")).to_be_visible()
    assert shop.stock(ticket) == (4, 0, 1)


def at_the_provider(window: Window, event: int) -> Page:
    """Buy one as somebody new and go to the provider's page to pay it; returns that page."""
    page = order_page(window, event)
    page.get_by_role("button", name="Pay later at the provider").click()
    page.wait_for_url("**/pay/*")
    expect(page.get_by_role("button", name="Complete payment")).to_be_visible()
    return page


def test_a_person_plays_every_case_at_the_provider(window: Window, shop: Shop) -> None:
    event, ticket, _ = on_sale(shop, 5)
    page = at_the_provider(window, event)
    told = page.locator("[data-message]")

    page.get_by_role("button", name="Wrong amount").click()
    expect(told).to_contain_text("another amount. Nothing was booked. The payment is still open.")
    window.look("pay-wrong-amount")
    page.get_by_role("button", name="Forged signature").click()
    expect(told).to_contain_text("signature is not the provider's. Nothing was booked.")
    window.look("pay-forged")
    page.get_by_role("link", name="Leave it open").click()
    page.wait_for_url("**/orders/*")
    expect(page.locator("[data-status=AWAITING_PAYMENT]")).to_be_visible()
    assert shop.stock(ticket) == (4, 1, 0)
    page.get_by_role("link", name="Go on there").click()
    page.wait_for_url("**/pay/*")
    page.get_by_role("button", name="Pay twice").click()
    expect(told).to_contain_text("The shop was told twice and took the money once: €42.50.")
    window.look("pay-twice")
    page.get_by_role("link", name="Back to the order").click()
    expect(page.locator("[data-status=CONFIRMED]")).to_be_visible()
    assert shop.stock(ticket) == (4, 0, 1)
    # The shop's people deal with the money that nobody had asked for.
    waiting = manage_all(shop.layout, "manage", "order", "notices", "list").stdout
    [line] = [one for one in waiting.splitlines() if "amount_mismatch" in one]
    closing = ("notices", "close", line.split()[0], "--reason", "refunded there")
    assert "closed" in manage_all(shop.layout, "manage", "order", *closing).stdout
    shop.audit()


def test_a_person_pays_in_a_few_seconds_and_the_order_waits_for_it(
    window: Window, shop: Shop
) -> None:
    event, ticket, _ = on_sale(shop, 5)
    page = at_the_provider(window, event)
    page.get_by_role("button", name="Pay in a few seconds").click()
    expect(page.locator("[data-message]")).to_contain_text("on its way")
    assert shop.stock(ticket) == (4, 1, 0)
    expect(page.locator("[data-message]")).to_have_text("Paid.", timeout=15_000)
    assert shop.stock(ticket) == (4, 0, 1)


def test_a_person_who_pays_after_cancelling_is_told_where_the_money_went(
    window: Window, shop: Shop
) -> None:
    event, ticket, _ = on_sale(shop, 5)
    page = at_the_provider(window, event)
    provider = page.url
    page.get_by_role("link", name="Back to the order").click()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel the order").click()
    expect(page.locator("[data-status=CANCELLED]")).to_be_visible()
    page.goto(provider)
    page.get_by_role("button", name="Complete payment").click()
    expect(page.locator("[data-message]")).to_contain_text("gave the money back")
    window.look("pay-refunded")
    page.get_by_role("link", name="Back to the order").click()
    expect(page.locator("[data-late=refunded]")).to_contain_text(
        "Your payment came after the order was cancelled. Your payment was returned."
    )
    window.look("order-late-refunded")
    assert shop.stock(ticket) == (5, 0, 0)


def test_a_person_cancels_and_the_ticket_is_back_on_sale(window: Window, shop: Shop) -> None:
    event, ticket, _ = on_sale(shop, 5)
    page = order_page(window, event)
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Cancel the order").click()
    assert shop.stock(ticket) == (4, 1, 0)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel the order").click()
    expect(page.locator("[data-status=CANCELLED]")).to_be_visible()
    window.look("order-cancelled")
    assert shop.stock(ticket) == (5, 0, 0)


def test_availability_changes_on_the_page_without_a_reload(window: Window, shop: Shop) -> None:
    event, ticket, _ = on_sale(shop, 30)
    page = window.goto(f"/events/{event}")
    expect(page.locator(".live")).to_have_text("30 left")
    page.evaluate("window.sameDocument = true")
    buy_all(shop, ticket, 10)
    expect(page.locator(".live")).to_have_text("20 left", timeout=6000)
    buy_all(shop, ticket, 10)
    buy_all(shop, ticket, 7)
    expect(page.locator(".live")).to_have_text("Only 3 left", timeout=6000)
    buy_all(shop, ticket, 3)
    expect(page.locator(".live")).to_have_text("Sold out", timeout=6000)
    expect(page.get_by_role("button", name="Sold out")).to_be_disabled()
    window.look("event-sold-out")
    assert page.evaluate("window.sameDocument")


def test_who_comes_too_late_is_told_so(window: Window, shop: Shop) -> None:
    event, ticket, _ = on_sale(shop, 1)
    window.register(f"/register?next=/events/{event}")
    page = window.page
    expect(page.locator(".live")).to_have_text("Only 1 left")
    # From here on the page hears of nothing new, as in the second before the next poll.
    page.route("**/availability", lambda route: route.abort())
    buy_all(shop, ticket, 1)
    page.get_by_role("button", name="Buy").click()
    expect(page.locator(".ticket-message")).to_contain_text("Sold out")
    window.look("too-late")
    window.complaints = [c for c in window.complaints if "net::ERR_FAILED" not in c]


def test_the_shop_fits_a_phone(phone: Window, shop: Shop) -> None:
    event, _, _ = on_sale(shop, 12)
    page = phone.goto("/")
    expect(page.locator(".event-card").first).to_be_visible()
    phone.look("events")
    phone.goto("/login")
    phone.look("login")
    phone.goto(f"/register?next=/events/{event}")
    phone.look("register")
    phone.register()
    expect(page.locator(".live")).to_have_text("12 left")
    phone.look("event")
    page.get_by_role("button", name="Buy").click()
    page.wait_for_url("**/orders/*")
    expect(page.locator(".clock")).to_be_visible()
    phone.look("order")
    page.get_by_role("button", name="Pay later at the provider").click()
    page.wait_for_url("**/pay/*")
    page.get_by_role("button", name="Wrong amount").click()
    expect(page.locator("[data-message]")).to_contain_text("Nothing was booked")
    phone.look("pay")
    page.goto("/orders")
    expect(page.locator(".order-row")).to_be_visible()
    phone.look("my-orders")
    page.goto("/no/such/page")
    phone.look("not-found")
    phone.complaints = [c for c in phone.complaints if "404" not in c]
