"""Many buyers, few units, all at once and through nginx: exactly what there is gets sold."""

from __future__ import annotations

from collections import Counter

from tests.system.client import Client, insist, new_key, within
from tests.system.shop import Shop, at_once, outcome

BUYERS, UNITS = 200, 20


def buy(buyer: Client, ticket: int) -> str:
    """Order and pay as a patient person does: while the answer is unclear, the same key again."""
    order_key, pay_key = new_key(), new_key()
    ordered = insist(lambda: buyer.order(ticket, key=order_key))
    if ordered.status != 201:
        return outcome(ordered)
    return outcome(insist(lambda: buyer.pay(ordered.json["id"], key=pay_key)))


def test_200_buyers_of_20_units_buy_exactly_20(shop: Shop) -> None:
    ticket = shop.ticket(UNITS, per_user_limit=1)
    crowd = shop.crowd(BUYERS)
    tally = Counter(at_once([lambda buyer=buyer: buy(buyer, ticket) for buyer in crowd]))
    assert tally == {"200": UNITS, "409 sold_out": BUYERS - UNITS}
    within(10, lambda: shop.stock(ticket), (0, 0, UNITS))
    within(2, lambda: shop.shown(ticket), 0)
    shop.audit()


def test_the_last_unit_goes_to_one_of_fifty(shop: Shop) -> None:
    ticket = shop.ticket(1)
    crowd = [shop.buyer() for _ in range(50)]
    tally = Counter(at_once([lambda buyer=buyer: outcome(buyer.order(ticket)) for buyer in crowd]))
    assert tally == {"201": 1, "409 sold_out": 49}
    assert shop.stock(ticket) == (0, 1, 0)


def test_units_given_back_in_the_rush_are_sold_again_and_none_twice(shop: Shop) -> None:
    ticket = shop.ticket(10)
    crowd = [shop.buyer() for _ in range(10)]

    def change_ones_mind(buyer: Client) -> None:
        order = buyer.order(ticket).require(201)
        buyer.cancel(order["id"]).require(200)
        assert buy(buyer, ticket) == "200"

    at_once([lambda buyer=buyer: change_ones_mind(buyer) for buyer in crowd])
    within(10, lambda: shop.stock(ticket), (0, 0, 10))
