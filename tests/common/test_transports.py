"""The contract that every transport keeps, each on its real server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from math import inf
from pathlib import Path
from uuid import uuid4

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from common.events import transport as transport_module
from common.events.jetstream import JetStream
from common.events.redis_streams import RedisStreams
from common.events.transport import StreamLost, connect
from tests.common.nats_cluster import running_cluster
from tests.common.patience import GROUP, insist, received, received_at_once, sent

pytestmark = pytest.mark.skipif(connection.vendor == "mysql", reason="the database plays no part")
ROOT = Path(__file__).resolve().parents[2]
ABANDONED_AFTER_MS = 300
# Well-formed positions of entries that never were, of Redis's kind and of NATS's.
NOWHERE = {
    "redis": "00000000000000000001-00000000000000000001",
    "nats": "00000000000000000001-0190b7a0-0000-7000-8000-000000000000",
}
DEAD = {"redis": "redis://127.0.0.1:1/0", "nats": "nats://127.0.0.1:1"}


@pytest.fixture(scope="module")
def nats(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("nats")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(transport_module, "BLOCK_MS", 300)
    monkeypatch.setattr(transport_module, "ABANDONED_AFTER_MS", ABANDONED_AFTER_MS)


@pytest.fixture(params=["redis", "nats"])
def kind(request):
    return request.param


@pytest.fixture
def make(kind, request, settings):
    """Return what makes another transport to the same server, as another process would have."""
    if kind == "nats":
        settings.EVENT_TRANSPORT = request.getfixturevalue("nats").url
    made = []

    def one():
        made.append(connect(5.0))
        return made[-1]

    yield one
    for each in made:
        each.close()


@pytest.fixture
def pipe(make):
    return make()


@pytest.fixture
def stream():
    """Return the name of a stream that nobody has written to."""
    return f"flashsale:test{uuid4().hex[:8]}"


def event(number, subject="a"):
    return {"id": str(uuid4()), "subject": subject, "data": number}


def numbers(messages):
    return [message.event["data"] for message in messages]


def holds(pipe, stream, positions):
    return insist(pipe, lambda: pipe.holds(stream, positions))


def state_of(pipe, stream):
    return insist(pipe, lambda: pipe.state(stream))


def test_the_setting_decides_what_carries_events(pipe, kind):
    assert isinstance(pipe, {"redis": RedisStreams, "nats": JetStream}[kind])


def test_what_is_sent_is_received_in_its_order_as_it_was_sent(pipe, stream):
    events = [event(number) for number in range(10)]
    events[3]["text"] = "é\N{SNOWMAN}😀\x00\n"
    sent(pipe, stream, events[:4])
    sent(pipe, stream, events[4:])
    assert [message.event for message in received(pipe, stream)] == events


def test_events_of_many_subjects_each_keep_their_order(pipe, stream):
    sent(pipe, stream, [event((n % 7, n), subject=str(n % 7)) for n in range(100)])
    found = numbers(received(pipe, stream))
    assert len(found) == 100
    for subject in range(7):
        own = [number for of, number in found if of == subject]
        assert own == sorted(own)


def test_a_group_gets_each_event_once_whoever_asks(make, stream):
    first, second = make(), make()
    sent(first, stream, [event(number) for number in range(20)])
    some = received(first, stream, count=7, name="first")
    rest = received(second, stream, name="second")
    assert len(some) == 7
    assert sorted(numbers(some) + numbers(rest)) == list(range(20))
    for message in some + rest:
        first.acknowledge(message, GROUP) if message in some else second.acknowledge(message, GROUP)
    time.sleep(1.5 * ABANDONED_AFTER_MS / 1000)
    assert not received(first, stream, seconds=0.5), "what is acknowledged is done"


def test_every_group_gets_everything(pipe, stream):
    sent(pipe, stream, [event(1), event(2)])
    assert numbers(received(pipe, stream, group="one")) == [1, 2]
    assert numbers(received(pipe, stream, group="two")) == [1, 2]


def test_a_message_that_is_not_acknowledged_is_delivered_again_and_counted(make, stream):
    dead, heir = make(), make()
    sent(dead, stream, [event(1), event(2)])
    one, two = received(dead, stream, name="dead")
    assert dead.deliveries(one, GROUP) == 1
    dead.acknowledge(two, GROUP)
    for deliveries in (2, 3):
        time.sleep(1.2 * ABANDONED_AFTER_MS / 1000)
        (again,) = received(heir, stream, name="heir")
        assert again.event == one.event
        assert heir.deliveries(again, GROUP) == deliveries
    heir.acknowledge(again, GROUP)
    time.sleep(1.2 * ABANDONED_AFTER_MS / 1000)
    assert not received(heir, stream, seconds=0.5)


def test_news_of_any_stream_end_the_wait(pipe, stream, monkeypatch):
    monkeypatch.setattr(transport_module, "BLOCK_MS", 2_000)
    streams = [stream, f"{stream}x"]
    for name in streams:
        sent(pipe, name, [event(0)])
    left = 2
    while left:
        for message in received_at_once(pipe, streams):
            pipe.acknowledge(message, GROUP)
            left -= 1
    for name in streams:
        sender = threading.Timer(0.2, lambda name=name: sent(pipe, name, [event(1)]))
        sender.start()
        started = time.monotonic()
        found = []
        while not found and time.monotonic() - started < 10:
            found = received_at_once(pipe, streams)
        sender.join()
        assert (numbers(found), found[0].stream) == ([1], name)
        pipe.acknowledge(found[0], GROUP)
        assert time.monotonic() - started < 1.5


def test_a_stream_that_nobody_has_written_to_keeps_nobody_waiting_for_the_others(pipe, stream):
    sent(pipe, stream, [event(1)])
    found = []
    for _ in range(5):
        found += received_at_once(pipe, [f"{stream}x", stream])
    assert 1 in numbers(found)


def test_positions_name_entries_and_sort_in_their_order(pipe, stream):
    positions = [sent(pipe, stream, [event(n), event(n)]) for n in range(12)]
    assert positions == sorted(positions)
    assert max(map(len, positions)) <= 64
    assert holds(pipe, stream, positions)
    assert holds(pipe, stream, ["", positions[-1]])
    assert holds(pipe, f"{stream}x", [""])


def test_what_a_stream_never_held_it_does_not_hold(pipe, stream):
    position = sent(pipe, stream, [event(1)])
    elsewhere = sent(pipe, f"{stream}x", [event(n) for n in range(3)])
    assert not holds(pipe, stream, [elsewhere])
    assert not holds(pipe, stream, [position, elsewhere])
    for lost in (*NOWHERE.values(), "?"):
        assert not holds(pipe, stream, [lost])
    assert not holds(pipe, f"{stream}y", [position]), "of a stream that is not there"


def test_nothing_counts_as_sent_after_what_is_lost(pipe, stream):
    position = sent(pipe, stream, [event(1)])
    assert sent(pipe, stream, [event(2)], after=position) > position
    for lost in (
        f"00000000000000000001-{uuid4()}",
        "00000000000000000001-00000000000000000001",
        "?",
    ):
        with pytest.raises(StreamLost):
            sent(pipe, stream, [event(3)], after=lost)


def test_a_stream_tells_how_long_it_is_and_what_its_groups_have_left(pipe, stream):
    assert state_of(pipe, stream).length == 0
    sent(pipe, stream, [event(n) for n in range(5)])
    first, *_ = received(pipe, stream, count=2)
    pipe.acknowledge(first, GROUP)
    deadline = time.monotonic() + 5
    while (state := state_of(pipe, stream)).groups[GROUP].pending != 1:
        assert time.monotonic() < deadline
    assert (state.length, state.groups[GROUP].lag) == (5, 3)


def test_a_group_has_its_place_before_anybody_reads(pipe, stream):
    """Also in a stream that nothing was sent to yet; a second time changes nothing."""
    insist(pipe, lambda: pipe.subscribe(stream, GROUP))
    assert state_of(pipe, stream).groups[GROUP].lag == 0
    sent(pipe, stream, [event(n) for n in range(3)])
    insist(pipe, lambda: pipe.subscribe(stream, GROUP))
    assert state_of(pipe, stream).groups[GROUP].lag == 3
    first, *_ = received(pipe, stream, count=1)
    pipe.acknowledge(first, GROUP)
    insist(pipe, lambda: pipe.subscribe(stream, GROUP))
    assert numbers(received(pipe, stream)) == [1, 2]


def test_a_stream_tells_which_groups_are_alive(pipe, stream):
    sent(pipe, stream, [event(1)])
    insist(pipe, lambda: pipe.subscribe(stream, "nobody"))
    assert received(pipe, stream)
    groups = state_of(pipe, stream).groups
    assert groups["nobody"].idle_seconds == inf
    assert 0 <= groups[GROUP].idle_seconds < 5
    received_at_once(pipe, [stream])
    time.sleep(1)
    assert 1 <= state_of(pipe, stream).groups[GROUP].idle_seconds < 6


@pytest.mark.parametrize("kind", ["nats"], indirect=True)
def test_one_connection_serves_all_streams(make, stream, nats):
    before = nats.connections_made()
    pipe = make()
    for _ in range(3):
        received_at_once(pipe, [f"{stream}{number}" for number in range(3)])
    assert nats.connections_made() == before + 1


def test_tidying_loses_nothing(pipe, stream):
    sent(pipe, stream, [event(1)])
    received(pipe, stream)
    pipe.tidy([stream], GROUP)
    time.sleep(1.2 * ABANDONED_AFTER_MS / 1000)
    assert numbers(received(pipe, stream)) == [1]


def test_a_server_that_is_away_is_an_outage(kind, settings, stream):
    settings.EVENT_TRANSPORT = DEAD[kind]
    pipe = connect(0.3)
    started = time.monotonic()
    for call in (
        lambda: pipe.send(stream, [event(1)]),
        lambda: pipe.holds(
            stream,
            [f"00000000000000000001-{uuid4()}" if kind == "nats" else "0" * 20 + "-" + "0" * 20],
        ),
        lambda: pipe.receive([stream], GROUP, "c", 1),
        lambda: pipe.state(stream),
    ):
        with pytest.raises(pipe.outages):
            call()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("url", ["kafka://127.0.0.1", "127.0.0.1:4222", "http://secret@x"])
def test_an_address_that_nothing_speaks_is_refused_without_being_told(url, settings):
    settings.EVENT_TRANSPORT = url
    with pytest.raises(ImproperlyConfigured, match="EVENT_TRANSPORT") as refusal:
        connect()
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "servers", "replicas"),
    [
        ("nats://a:1", ["nats://a:1"], 1),
        ("nats://a:1,nats://b:2", ["nats://a:1", "nats://b:2"], 2),
        ("nats://a:1,b:2,c:3,d:4", ["nats://a:1", "nats://b:2", "nats://c:3", "nats://d:4"], 3),
        ("nats://a:1?replicas=3", ["nats://a:1"], 3),
    ],
)
def test_a_stream_has_a_copy_on_each_server_that_is_named(url, servers, replicas):
    pipe = JetStream(url)
    assert (pipe._servers, pipe._replicas) == (servers, replicas)


@pytest.mark.parametrize("replicas", ["0", "6", "many", "-1"])
def test_a_number_of_copies_that_cannot_be_is_refused(replicas):
    with pytest.raises(ImproperlyConfigured, match="replicas is 1 to 5"):
        JetStream(f"nats://a:1?replicas={replicas}")


def test_without_its_package_the_setting_says_what_to_install():
    script = (
        "import sys; sys.modules['nats'] = None\n"
        "from django.conf import settings\n"
        "settings.configure(EVENT_TRANSPORT='nats://x', STREAM_URL='')\n"
        "from common.events.transport import connect\nconnect()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "ImproperlyConfigured: EVENT_TRANSPORT is nats://" in result.stderr
    assert "deploy/requirements/nats.txt" in result.stderr
