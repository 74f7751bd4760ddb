"""The bookmark: how a stream that lost events is told from one that did not.

For each stream the database keeps the position of the newest event that was marked as published.
A stream loses its newest events or all of them (flushed, restored from an older file), so it has
lost something that counts exactly when it does not hold the bookmark's entry any more.

The count of entries would not do: of a stream cut short, other relays' next entries soon make up
the number, but they have positions of their own. Three rules keep the bookmark honest:

- it moves in the transaction that marks the events, so that what is marked lies before it;
- it moves only from where the mover knew it to be (compare and set), and the mover has asked the
  stream for that entry after its own were there;
- a loss is forgotten only after all events that are kept were unmarked. Whoever dies before, leaves
  a bookmark that still tells of it.
"""

from __future__ import annotations

from common.events.models import Bookmark, OutboxEvent

# What an outbox says that published events before there was a bookmark: no stream holds this.
UNKNOWN = "?"
NOTHING = ""


def bookmark_of(stream: str) -> str:
    """Return the stream's bookmark; NOTHING where no event is marked as published."""
    for _ in range(2):
        position = Bookmark.objects.filter(stream=stream).values_list("position", flat=True).first()
        if position is not None:
            return position
        published = OutboxEvent.objects.exclude(published_at=None).exists()
        first = Bookmark(stream=stream, position=UNKNOWN if published else NOTHING)
        Bookmark.objects.bulk_create([first], ignore_conflicts=True)
    raise RuntimeError(f"the bookmark of {stream} is deleted as soon as it is made")


def move_bookmark(stream: str, known: str, position: str) -> bool:
    """Move the bookmark, never back; False (and no move) if it is not where it is thought to be."""
    here = Bookmark.objects.filter(stream=stream, position=known)
    return bool(here.update(position=max(known, position)))


def forget_loss(stream: str, lost: str) -> bool:
    """Start anew: no event is marked as published. False if somebody marked one meanwhile."""
    return bool(Bookmark.objects.filter(stream=stream, position=lost).update(position=NOTHING))
