"""A stream that lost events is noticed and made whole, whenever it happened and whoever died."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from common.events import bookmark
from common.events import relay as relay_module
from common.events.inbox import Consumer
from common.events.models import PARTITIONS, Bookmark, OutboxEvent
from common.events.outbox import RETENTION, partition_of, pending_count, purge
from common.events.redis_streams import RedisStreams
from common.events.relay import Relay
from tests.common.handlers import tallies

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("stream", "subscribed", "watchful"),
]
STREAM = "flashsale:inventory"


class Killed(BaseException):
    """What ends a process at a chosen point; no ``except Exception`` may outlive it."""


class Pipe(RedisStreams):
    """Does something before, or after, the next sending."""

    before = after_it = staticmethod(lambda: None)

    def send(self, stream, events, after=""):
        before, self.before = self.before, lambda: None
        before()
        position = super().send(stream, events, after)
        after_it, self.after_it = self.after_it, lambda: None
        after_it()
        return position


@pytest.fixture
def watchful(monkeypatch):
    """Let relays look after the stream in every step."""
    monkeypatch.setattr(relay_module, "CHECK_INTERVAL_SECONDS", -1)


def relay(pipe=None, holder="relay"):
    return Relay(pipe, holder)


def settle(*relays):
    """Let the relays work until there is nothing left to do, then apply everything once."""
    for _ in range(200):
        if not sum(one.step() for one in relays) and not pending_count():
            break
    consumer = Consumer()
    while consumer.step():
        pass


def sent(stream):
    """Return the numbers in the stream, in its order."""
    return [json.loads(fields["event"])["data"]["number"] for _, fields in stream.xrange(STREAM)]


def lose_tail(stream, count):
    """Leave the stream as an older file would restore it: without its newest entries, and without
    a memory of them."""
    entries = stream.xrange(STREAM)
    stream.delete(STREAM)
    for entry_id, fields in entries[: len(entries) - count]:
        stream.xadd(STREAM, fields, id=entry_id)


def all_applied(count):
    return tallies() == dict.fromkeys(range(1, count + 1), 1)


def test_a_stream_flushed_while_idle_is_filled_again(stream, happen):
    one = relay()
    happen(1, 2)
    settle(one)
    happen(3)
    one.step()
    stream.flushdb()  # 3 was sent and never received

    settle(one)

    assert sent(stream) == [1, 2, 3]
    assert all_applied(3)


def test_a_stream_flushed_between_two_batches_is_filled_again_from_the_oldest_on(stream, happen):
    """The next events are there before anybody looks."""
    one = relay()
    happen(1, 2)
    one.step()
    stream.flushdb()
    happen(3)

    settle(one)

    assert sent(stream) == [1, 2, 3]
    assert all_applied(3)


def test_a_stream_flushed_between_pick_and_send_is_filled_again(stream, happen):
    pipe = Pipe()
    one = relay(pipe)
    happen(1, 2)
    one.step()
    happen(3)
    pipe.before = stream.flushdb

    assert one.step() == 0, "nothing is marked as published"
    assert sent(stream) == [], "and nothing is sent that would overtake what is lost"
    settle(one)

    assert sent(stream) == [1, 2, 3]
    assert all_applied(3)


def test_a_stream_flushed_between_send_and_mark_is_filled_again(stream, happen):
    pipe = Pipe()
    one = relay(pipe)
    happen(1, 2)
    one.step()
    happen(3)
    pipe.after_it = stream.flushdb

    one.step()
    settle(one)

    assert all_applied(3)


@pytest.mark.parametrize("lost", [1, 3, 5])
def test_a_lost_tail_is_noticed(stream, happen, lost):
    one = relay()
    happen(1, 2, 3, 4, 5)
    one.step()
    lose_tail(stream, lost)

    settle(one)

    assert all_applied(5)


def test_a_lost_tail_is_noticed_though_more_was_sent_since_than_was_lost(stream, happen):
    """The numbers add up again; the entries do not."""
    first, second = relay(Pipe(), "first"), relay(Pipe(), "second")
    happen(*range(1, 5))
    settle(first, second)
    happen(*range(5, 8))
    while first.step() + second.step():
        pass
    # Another relay, which knew of none of these three, has sent seven since.
    lose_tail(stream, 3)
    RedisStreams().send(STREAM, [{"id": str(n), "source": "x", "type": "x"} for n in range(7)])

    settle(first, second)

    assert all_applied(7)


def test_a_relay_that_dies_between_send_and_mark_hides_no_loss(stream, happen):
    """It leaves entries that nobody counted: as many as are lost later."""
    pipe = Pipe()
    happen(1, 2, 3)

    def die():
        raise Killed

    pipe.after_it = die
    with pytest.raises(Killed):
        relay(pipe).step()
    assert len(sent(stream)) == 3

    heir = relay()
    settle(heir)
    happen(4, 5, 6)
    heir.step()
    assert len(sent(stream)) == 9
    lose_tail(stream, 3)

    settle(heir)

    assert all_applied(6)


def test_a_relay_that_was_between_send_and_mark_while_others_made_the_loss_good(stream, happen):
    """Its events were lost as well, so they must not pass for published."""
    pipe = Pipe()
    late, other = relay(pipe, "late"), relay(None, "other")
    happen(1, 2)
    late.step()
    happen(3, 4)

    def the_world_goes_on():
        stream.flushdb()
        late._shares.leave()
        for _ in range(20):
            other.step()
        stream.flushdb()

    pipe.after_it = the_world_goes_on
    late.step()
    settle(late, other)

    assert all_applied(4)


def test_a_mark_that_overtakes_another_ones_notices_what_that_one_lost(stream, happen, monkeypatch):
    """The other relay's batch is sent and marked, and lost, before this one's is sent; this one
    knew the bookmark from before."""
    pipe = Pipe()
    late, other = relay(pipe, "late"), relay(None, "other")
    happen(1)
    while not late.step():
        pass
    happen(2)
    read = bookmark.bookmark_of

    def the_other_one_sends_and_it_is_lost(name):
        known = read(name)
        monkeypatch.setattr(relay_module, "bookmark_of", read)
        late._shares.leave()
        happen(3, 4, 5)
        assert other.step()
        lose_tail(stream, 4)
        return known

    monkeypatch.setattr(relay_module, "CHECK_INTERVAL_SECONDS", 1e9)
    late._checked_at = other._checked_at = 1e18
    monkeypatch.setattr(relay_module, "bookmark_of", the_other_one_sends_and_it_is_lost)
    assert late.step() == 0, "its own event is in the stream, but the bookmark's is not"

    monkeypatch.setattr(relay_module, "CHECK_INTERVAL_SECONDS", -1)
    late._checked_at = other._checked_at = float("-inf")
    settle(late, other)

    assert all_applied(5)


def test_a_refill_that_is_cut_short_is_taken_up_by_the_next_one(stream, happen, monkeypatch):
    monkeypatch.setattr(relay_module, "REFILL_SIZE", 2)
    happen(*range(1, 8))
    first = relay(holder="first")
    first.step()
    stream.flushdb()
    assert first.step() == 2
    first._shares.leave()  # and it is never heard of again

    settle(relay(holder="second"))

    assert all_applied(7)


def test_a_loss_is_not_forgotten_if_events_from_before_it_were_marked_meanwhile(
    stream, happen, monkeypatch
):
    """Sent before the loss, and marked when the refill had passed them by."""
    late, other = relay(holder="late"), relay(holder="other")
    happen(1, 2)
    late.step()
    happen(3)
    events = late._pick(tuple(range(PARTITIONS)))
    known = bookmark.bookmark_of(STREAM)
    position = RedisStreams().send(STREAM, [event.payload for event in events], known)
    stream.flushdb()
    late._shares.leave()
    assert other.step() == 2, "1 and 2 are unmarked"
    forget = bookmark.forget_loss

    def marked_at_the_last_moment(name, lost):
        assert late._mark(events, name, known, position)
        return forget(name, lost)

    monkeypatch.setattr(relay_module, "forget_loss", marked_at_the_last_moment)
    other.step()
    monkeypatch.setattr(relay_module, "forget_loss", forget)
    settle(late, other)

    assert all_applied(3)


def test_what_was_lost_before_it_was_marked_is_not_marked(stream, happen):
    """Though the bookmark is another relay's, of after the loss, and stands in the stream."""
    pipe = Pipe()
    late, other = relay(pipe, "late"), relay(None, "other")
    happen(1)
    late.step()
    happen(2)

    class Fixed:
        def held(self):
            return (partition_of("test", "3"),)

    assert partition_of("test", "3") != partition_of("test", "2")
    other._shares = Fixed()

    def it_is_lost_and_others_go_on():
        lose_tail(stream, 1)
        happen(3)
        assert other.step() == 1

    pipe.after_it = it_is_lost_and_others_go_on
    assert late.step() == 0
    settle(late)

    assert all_applied(3)


def test_an_outbox_from_before_the_bookmark_is_published_again_once(stream, happen):
    """Nobody knows what the stream held then; too much is harmless, too little is not."""
    happen(1, 2)
    OutboxEvent.objects.update(published_at=timezone.now())
    happen(3)

    settle(relay())

    assert all_applied(3)


def test_another_transport_gets_what_is_kept(stream, happen):
    happen(1, 2)
    settle(relay())
    stream.delete(STREAM)
    Bookmark.objects.update(position="00000000000000000002-0190b7a0-0000-7000-8000-000000000000")

    settle(relay())

    assert sent(stream) == [1, 2]


def test_what_is_older_than_the_retention_is_not_sent_again(stream, happen):
    happen(1, 2, 3)
    relay().step()
    long_ago = timezone.now() - RETENTION - timedelta(minutes=1)
    first = OutboxEvent.objects.order_by("seq").first()
    OutboxEvent.objects.filter(pk=first.pk).update(published_at=long_ago)
    purge()
    stream.flushdb()

    settle(relay())

    assert sent(stream) == [2, 3]


def test_a_stream_that_is_trimmed_at_its_old_end_has_lost_nothing(stream, happen):
    one = relay()
    happen(*range(1, 6))
    settle(one)
    stream.xtrim(STREAM, maxlen=2, approximate=False)
    happen(6)

    settle(one)

    assert sent(stream) == [4, 5, 6]


def test_the_bookmark_moves_from_where_it_is_known_to_be_and_never_back():
    assert bookmark.bookmark_of("s") == bookmark.NOTHING
    assert bookmark.move_bookmark("s", bookmark.NOTHING, "5")
    assert not bookmark.move_bookmark("s", bookmark.NOTHING, "4"), "somebody was faster"
    assert bookmark.move_bookmark("s", "5", "4")
    assert bookmark.bookmark_of("s") == "5", "never back"
