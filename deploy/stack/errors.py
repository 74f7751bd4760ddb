"""What went wrong, in one line for a person, with the log that tells more."""

from __future__ import annotations

from pathlib import Path


class StackError(Exception):
    """A failure that the command line reports as one line and exit code 1."""

    def __init__(self, message: str, *, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


class Interrupted(BaseException):
    """The person or the system asked us to stop; not an Exception, so that nothing swallows it."""
