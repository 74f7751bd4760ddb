"""What a person sees: plain lines, and on a terminal one line that changes in place."""

from __future__ import annotations

import sys
from pathlib import Path

TAIL_LINES = 20


def say(text: str = "") -> None:
    """Print a line at once; a reader that went away is no error."""
    _write(sys.stdout, text + "\n")


def complain(text: str) -> None:
    """Print a line to the error stream."""
    _write(sys.stderr, text + "\n")


def show_progress(text: str) -> None:
    """Replace the progress line on a terminal; print nothing elsewhere."""
    if sys.stdout.isatty():
        _write(sys.stdout, f"\r\033[K{text}")


def end_progress() -> None:
    """Remove the progress line."""
    show_progress("")


def tail(log: Path, lines: int = TAIL_LINES) -> list[str]:
    """Return the last lines of a log file, or nothing when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 64 * 1024))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return rows in columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, ["-" * width for width in widths], *rows]
    )


def _write(stream: object, text: str) -> None:
    try:
        stream.write(text)  # type: ignore[attr-defined]
        stream.flush()  # type: ignore[attr-defined]
    except (BrokenPipeError, ValueError):
        pass
