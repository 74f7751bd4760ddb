"""Finding events by words, the same on every database: upper case and accents do not matter."""

from __future__ import annotations

import unicodedata

from django.db.models import Q, QuerySet

from services.catalog.models import TITLE_LENGTH_MAX, Event

# Each word is a scan of the texts; more words find nothing more.
WORDS_MAX = 8


def folded(text: str) -> str:
    """Return the text as it is compared: without accents, case and compatibility forms."""
    decomposed = unicodedata.normalize("NFKD", text)
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return bare.casefold()


def folded_columns(changes: dict[str, object]) -> dict[str, str]:
    """Return what must be stored beside a changed title or description."""
    columns = {}
    if "title" in changes:
        columns["folded_title"] = folded(str(changes["title"]))[:TITLE_LENGTH_MAX]
    if "description" in changes:
        columns["folded_description"] = folded(str(changes["description"]))
    return columns


def containing(events: QuerySet[Event], text: str) -> QuerySet[Event]:
    """Return the events whose title or description contains each word of ``text``."""
    for word in folded(text).split()[:WORDS_MAX]:
        events = events.filter(
            Q(folded_title__contains=word) | Q(folded_description__contains=word)
        )
    return events
