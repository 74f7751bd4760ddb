"""Bad input gets a problem with a code, never a 500, and changes nothing."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from services.inventory.models import Reservation, Stock, StockMovement
from tests.inventory.driver import BATCH, RESERVATIONS, STOCKS, entry, reserve_group

pytestmark = pytest.mark.django_db

HUGE = 10**4000
NOT_NUMBERS = [None, True, False, "", "many", "0x10", "1e3", 1.5, 1e400, [], [1], {}, {"a": 1}]
NOT_QUANTITIES = [*NOT_NUMBERS, 0, -1, 10_001, 2**63, 10**100, HUGE, -HUGE]
NOT_IDS = [
    *[None, True, False, 1.5, [], {}, ["a"], {"a": 1}],
    *["", " ", "a b", "a/b", "a.b", "a\n", "\n", "a" * 65, "a" * 10_000],
    *["\x00", "a\x00", "é", "\N{SNOWMAN}", "😀", "\u200b", "٣", "a\u0301", "\ud800", "’"],
]
FIELDS = {
    "reservation_id": NOT_IDS,
    "ticket_id": [*NOT_NUMBERS, 0, -1, 10**18, 2**63, 2**64, HUGE],
    "quantity": NOT_QUANTITIES,
    "order_id": [True, False, 1, -1, HUGE, 1.5, "", "x", "\x00", "\ud800", [], {}, "0" * 5000],
    "buyer_id": [bad for bad in NOT_IDS if bad is not None],
    "buyer_limit": [bad for bad in NOT_QUANTITIES if bad not in (None, 10_001)] + [10**6 + 1],
    "ttl_seconds": [bad for bad in NOT_QUANTITIES if bad not in (None, 10_001)] + [86_401],
}
CASES = [(field, value) for field, values in FIELDS.items() for value in values]


def named(value):
    """Return a test id for a value, short for huge ones."""
    return ascii(value)[:40] if not isinstance(value, int) or abs(value) < 2**70 else "huge"


def books():
    """Return all that a call could have changed."""
    stock = list(Stock.objects.values_list("ticket_id", "total", "available", "version"))
    return stock, StockMovement.objects.count(), Reservation.objects.count()


@pytest.fixture
def nothing_happens(tickets):
    """Put 10 of ticket 1 on the shelf and check afterwards that nothing has changed."""
    tickets(10)
    before = books()
    yield
    assert books() == before


def assert_problem(response, *expected):
    """Check that the answer is a whole problem document with one of the (status, code) pairs."""
    assert response["Content-Type"] == "application/problem+json", response.content[:300]
    body = response.json()
    assert (response.status_code, body["code"]) in expected, body
    assert body.keys() >= {"type", "title", "status", "detail", "code", "request_id"}
    assert (body["status"], body["request_id"]) == (response.status_code, response["X-Request-ID"])
    if body["code"] == "validation_error":
        assert all(error.keys() == {"field", "code", "detail"} for error in body["errors"])


INVALID = (400, "validation_error")
MALFORMED = (400, "malformed_json")


@pytest.fixture
def send(order, admin):
    """Return what sends raw bytes as the order service (or an admin)."""

    def call(method, path, body=b"", content_type="application/json", as_admin=False, **headers):
        token = (admin if as_admin else order).token
        client = Client(raise_request_exception=False)
        extra = {"HTTP_AUTHORIZATION": f"Bearer {token}", **headers}
        return client.generic(method, path, body, content_type, **extra)

    return call


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize(("field", "value"), CASES, ids=named)
def test_a_field_of_a_reservation_that_makes_no_sense_is_refused(send, field, value):
    body = json.dumps({**entry("r"), field: value}).encode()

    # A number of more than 4300 digits, an infinity or half a character is not even JSON here.
    assert_problem(send("POST", RESERVATIONS, body), INVALID, MALFORMED)

    group = {"call": "reserve", "entries": [entry("fine"), {**entry("r"), field: value}]}
    body = json.dumps({"groups": [group]}).encode()
    assert_problem(send("POST", BATCH, body), INVALID, MALFORMED)


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize("field", ["reservation_id", "ticket_id", "quantity"])
def test_a_missing_field_is_named(send, field):
    body = {name: value for name, value in entry("r").items() if name != field}
    response = send("POST", RESERVATIONS, json.dumps(body))
    assert_problem(response, INVALID)
    assert [(error["field"], error["code"]) for error in response.json()["errors"]] == [
        (field, "required")
    ]


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize("value", [*NOT_NUMBERS, -1, 10**9 + 1, 2**63, HUGE], ids=named)
def test_a_total_that_makes_no_sense_is_refused(send, value):
    body = json.dumps({"total": value})
    assert_problem(send("PUT", f"{STOCKS}/1", body, as_admin=True), INVALID, MALFORMED)


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize("value", [*NOT_NUMBERS, 0, 10**9 + 1, -(10**9) - 1, HUGE], ids=named)
def test_a_delta_that_makes_no_sense_is_refused(send, value):
    body = json.dumps({"delta": value})
    assert_problem(send("POST", f"{STOCKS}/1/adjust", body, as_admin=True), INVALID, MALFORMED)


BODIES = {
    "nothing": (b"", INVALID),
    "white space": (b"  \n", MALFORMED),
    "not JSON": (b"{'total': 1}", MALFORMED),
    "cut off": (b'{"total": 1', MALFORMED),
    "two values": (b"{} {}", MALFORMED),
    "NaN": (b'{"total": NaN}', MALFORMED),
    "Infinity": (b'{"total": -Infinity}', MALFORMED),
    "a key twice": (b'{"total": 1, "total": 2}', MALFORMED),
    "broken UTF-8": (b'{"total": "\xff\xfe"}', MALFORMED),
    "UTF-16": ('{"total": 1}'.encode("utf-16"), MALFORMED),
    "a byte order mark": (b'\xef\xbb\xbf{"total": 1}', MALFORMED),
    "half a character": (b'{"total": "\\ud800"}', MALFORMED),
    "a NUL": (b'{"total": "\\u0000"}', INVALID),
    "a list": (b"[1, 2]", INVALID),
    "a number": (b"1", INVALID),
    "a string": (b'"total"', INVALID),
    "null": (b"null", INVALID),
    "true": (b"true", INVALID),
    "a deep list": (b"[" * 5_000 + b"]" * 5_000, MALFORMED),
    "deep objects": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, MALFORMED),
    "33 levels": (b'{"total":' + b"[" * 32 + b"]" * 32 + b"}", MALFORMED),
    "many keys": (json.dumps({f"k{n}": n for n in range(10_000)}).encode(), INVALID),
    "a megabyte": (b'{"total": "' + b"x" * 2**20 + b'"}', (413, "body_too_large")),
    "a megabyte of spaces": (b" " * 2**20, (413, "body_too_large")),
    "a megabyte of brackets": (b"[" * 2**20, (413, "body_too_large")),
}
WRITES = {
    "set": ("PUT", f"{STOCKS}/1", True),
    "adjust": ("POST", f"{STOCKS}/1/adjust", True),
    "reserve": ("POST", RESERVATIONS, False),
    "batch": ("POST", BATCH, False),
}


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_makes_no_sense_is_refused(send, write, kind):
    method, path, as_admin = WRITES[write]
    body, expected = BODIES[kind]
    assert_problem(send(method, path, body, as_admin=as_admin), expected)


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize(
    "content_type",
    [
        *["text/plain", "application/xml", "multipart/form-data; boundary=x", "x", "/"],
        *["application/x-www-form-urlencoded", "multipart/form-data", "application/json; é"],
        *["application/json-patch+json", "application/*", "*/*", ";", "application/jsonx"],
    ],
)
@pytest.mark.parametrize("write", WRITES)
def test_a_body_of_another_type_is_refused(send, write, content_type):
    method, path, as_admin = WRITES[write]
    response = send(method, path, b'{"x": 1}', content_type, as_admin=as_admin)
    assert_problem(response, (415, "unsupported_media_type"), INVALID, (400, "bad_request"))


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize(
    "groups",
    [
        *[None, 1, "x", {}, [], [1], [None], [[]], [{}]],
        *[[{"call": "reserve"}], [{"entries": [entry("a")]}]],
        [{"call": "reserve", "entries": []}],
        [{"call": "reserve", "entries": {}}],
        [{"call": "reserve", "entries": [None, 1, "x", []]}],
        [{"call": "reserve", "entries": [[entry("a")]]}],
        [{"call": "steal", "entries": [entry("a")]}],
        [{"call": "expire", "entries": [{"reservation_id": "a"}]}],
        [{"call": None, "entries": [entry("a")]}],
        [{"call": ["reserve"], "entries": [entry("a")]}],
        [{"call": {"reserve": 1}, "entries": [entry("a")]}],
        [{"call": "\ud800", "entries": [entry("a")]}],
        [{"call": "\x00", "entries": [entry("a")]}],
        [{"call": "commit", "entries": [{}]}],
        [{"call": "commit", "entries": [{"reservation_id": "a b"}]}],
        [{"call": "reserve", "entries": [{"\ud800": 1, **entry("a b")}]}],
    ],
    ids=named,
)
def test_groups_that_make_no_sense_are_refused(send, groups):
    assert_problem(send("POST", BATCH, json.dumps({"groups": groups})), INVALID, MALFORMED)


@pytest.mark.parametrize(
    "row_id",
    [
        "0",
        "-1",
        "1.5",
        "x",
        "9" * 19,
        "9" * 500,
        "01",
        "1%00",
        "%ff",
        "٣",
        "1/",
        "1%0a",
        " 1",
        "+1",
    ],
)
@pytest.mark.parametrize("ending", ["", "/adjust"])
def test_a_ticket_in_the_url_that_is_none_is_not_found(send, row_id, ending):
    method = "POST" if ending else "PUT"
    body = b'{"total": 1, "delta": 1}'
    response = send(method, f"{STOCKS}/{row_id}{ending}", body, as_admin=True)
    assert_problem(response, (404, "not_found"))


@pytest.mark.parametrize("reservation_id", ["a b", "a.b", "x" * 65, "x" * 5_000, "é", "%00", "%ff"])
@pytest.mark.parametrize("ending", ["", "/commit", "/release"])
def test_a_reservation_in_the_url_that_is_none_is_not_found(send, reservation_id, ending):
    response = send("POST" if ending else "GET", f"{RESERVATIONS}/{reservation_id}{ending}")
    assert_problem(response, (404, "not_found"))


def test_the_largest_ids_that_are_allowed_work(admin, order):
    ticket_id, reservation_id = 10**18 - 1, "x" * 64
    assert admin.set_stock(ticket_id, 10**9).status == 201
    assert order.reserve(reservation_id, ticket_id, 10_000, buyer_id="y" * 64).status == 201
    assert order.commit(reservation_id).status == 200
    assert order.stock(ticket_id).body["sold"] == 10_000


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize("key", ["", " ", "a b", "a" * 65, "é", "a\x00", "a,b", "\u2603", '"k"'])
def test_a_malformed_idempotency_key_is_refused(send, key):
    response = send(
        "POST", f"{STOCKS}/1/adjust", b'{"delta": 1}', as_admin=True, HTTP_IDEMPOTENCY_KEY=key
    )
    assert_problem(response, (400, "idempotency_key_invalid"))


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize(
    "value",
    [
        *["", " ", "Bearer", "Bearer ", "Bearer  ", "Bearer 1", "Bearer a b", "Bearer \x00"],
        *["bearer é", "Basic eDp5", "Token x", "x" * 9_000],
        *["Bearer " + "x" * 9_000, "Bearer " + "." * 3_000],
    ],
    ids=named,
)
def test_a_malformed_authorization_is_a_401(send, value):
    response = send("GET", f"{STOCKS}/1", HTTP_AUTHORIZATION=value)
    assert_problem(response, (401, "invalid_token"), (401, "not_authenticated"))


@pytest.mark.parametrize("accept", ["", ";", "x", "*", "a/b;q=x", "text/html;;", "\xff", "é/é"])
def test_a_strange_accept_header_does_no_harm(send, tickets, accept):
    tickets(1)
    response = send("GET", f"{STOCKS}/1", HTTP_ACCEPT=accept)
    assert response.status_code in (200, 406)


@pytest.mark.parametrize("name", ["HTTP_X_REQUEST_ID", "HTTP_COOKIE", "HTTP_X_REAL_IP"])
@pytest.mark.parametrize(
    "value", ["", "é", "\x00", "a=b; =; ;;", "x" * 20_000, "\r\nSet-Cookie: a=b"]
)
def test_other_malformed_headers_do_no_harm(send, tickets, name, value):
    tickets(1)
    assert send("GET", f"{STOCKS}/1", **{name: value}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", f"{STOCKS}/1"),
        ("PATCH", f"{STOCKS}/1"),
        ("GET", f"{RESERVATIONS}/r/commit"),
        ("PUT", BATCH),
    ],
)
def test_another_method_is_refused(send, method, path):
    response = send(method, path, b"{}", as_admin=method in ("DELETE", "PATCH"))
    assert_problem(response, (405, "method_not_allowed"))


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize("name", ["status", "expires_at", "reason", "sold", "buyer_limt"])
def test_a_field_that_is_not_known_is_refused_by_name(order, name):
    """A limit that was misspelt must not be no limit, and a status is not for the caller to say."""
    answer = order.reserve("r", **{name: 5})
    assert (answer.status, answer.code) == (400, "validation_error")
    assert [(one["field"], one["code"]) for one in answer.body["errors"]] == [
        (name, "unknown_field")
    ]
    batch = order.batch(reserve_group(entry("fine"), entry("r", **{name: 5})))
    assert (batch.status, batch.code) == (400, "validation_error")


@pytest.mark.usefixtures("nothing_happens")
@pytest.mark.parametrize("field", ["ticket_id", "quantity", "buyer_limit", "ttl_seconds"])
@pytest.mark.parametrize("number", ["1", 1.0, True])
def test_a_number_is_a_number_and_not_what_could_be_read_as_one(order, field, number):
    answer = order.reserve(**{"reservation_id": "r", field: number})
    assert (answer.status, answer.code) == (400, "validation_error")
