"""What can go wrong with a stack, in words for the person who started it."""

from __future__ import annotations

from pathlib import Path


class StackError(Exception):
    """The stack can't do what was asked; the message names the thing, the fault and the way out."""


def log_tail(log: Path, *, lines: int = 12) -> str:
    """The last lines of a server's log, indented, for the end of an error message."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    return "".join(f"\n  | {line}" for line in text.splitlines()[-lines:])
