"""The Django admin: an admin reads and finds everything, and changes nothing."""

from __future__ import annotations

import pytest
from django.test import Client

from common.ids import uuid7
from services.order.models import Payment
from services.order.providers import sandbox
from services.order.providers.base import Outcome
from tests.order.driver import Buyer, deliver

pytestmark = pytest.mark.django_db

PAGES = ("order", "payment", "ticketoffer", "webhooknotice")


def browser(person: Buyer) -> Client:
    client = Client()
    client.cookies["flashsale_access"] = person.token
    return client


@pytest.fixture
def order_id(ann, on_sale):
    order_id = ann.place({on_sale(5): 2}).body["id"]
    ann.pay(order_id)
    return order_id


def test_an_admin_sees_orders_with_items_and_payments(admin, ann, order_id):
    web = browser(admin)

    listed = web.get("/admin/order/order/order/")
    shown = web.get(f"/admin/order/order/order/{order_id}/change/")

    assert order_id in listed.content.decode()
    page = shown.content.decode()
    assert "CONFIRMED" in page
    assert "Night of Stars" in page
    assert "sandbox_ok" in page


@pytest.mark.parametrize("page", PAGES)
def test_every_list_can_be_searched_and_filtered(admin, order_id, page):
    web = browser(admin)

    state = "outcome=captured" if page == "webhooknotice" else "status=CONFIRMED"
    for query in ("", "?q=a", f"?q={order_id}", f"?q={order_id[:8]}", "?q=17", f"?{state}"):
        answer = web.get(f"/admin/order/order/{page}/{query}")
        assert answer.status_code == 200, query


def test_an_admin_sees_money_that_fits_no_payment(admin):
    payment = Payment(id=uuid7(), amount=4250, currency="EUR")
    deliver(sandbox.notice_body(payment, Outcome.CAPTURED))

    page = browser(admin).get("/admin/order/order/webhooknotice/?booked_at__isempty=1")

    assert str(payment.id) in page.content.decode()
    assert "4,250 EUR" in page.content.decode()


def test_an_order_is_found_by_its_buyer_and_by_the_start_of_its_id(admin, ann, bob, order_id):
    web = browser(admin)

    for words in (order_id, order_id[:8], str(ann.user_id)):
        page = web.get(f"/admin/order/order/order/?q={words}").content.decode()
        assert f"{order_id}/change" in page, words
    nothing = web.get(f"/admin/order/order/order/?q={bob.user_id}").content.decode()
    assert f"{order_id}/change" not in nothing


@pytest.mark.parametrize("page", PAGES)
def test_nothing_can_be_added_changed_or_deleted(admin, order_id, page):
    web = browser(admin)

    assert web.get(f"/admin/order/order/{page}/add/").status_code == 403
    assert web.post(f"/admin/order/order/{page}/add/", {}).status_code == 403
    row = order_id if page == "order" else "1"
    for action in ("delete", "change"):
        answer = web.post(f"/admin/order/order/{page}/{row}/{action}/", {"status": "PAID"})
        assert answer.status_code in (302, 403)


def test_nobody_but_an_admin_comes_in(ann):
    for client in (Client(), browser(ann)):
        answer = client.get("/admin/order/order/order/")
        assert answer.status_code == 302
        assert "login" in answer.headers["Location"]
