"""Driver errors become ours in this one place, by SQLSTATE and type, never by text."""

from __future__ import annotations

import asyncpg


class TransientError(Exception):
    """The database could not be reached or could not do it now: try the whole batch again."""


class UnstorableError(Exception):
    """Something in the batch can't be stored, and never will be."""


class UndecidableError(UnstorableError):
    """The program itself met a defect over something in the batch, before anything was stored."""


_TRANSIENT_CLASSES = ("08", "25", "40", "53", "55", "57", "58")
"""Connection; idle or transaction time-outs; rollback; resources, a full disk among them; locks; shutdown; system."""
_UNSTORABLE_CLASSES = ("22", "23", "54")
"""Data; integrity constraints; program limits."""


def ours(error: Exception) -> Exception:
    """What an error means for its batch: TransientError, UnstorableError, or, a defect of ours, the error itself."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, asyncpg.PostgresError):
        sqlstate = error.sqlstate or ""
        if sqlstate.startswith(_UNSTORABLE_CLASSES):
            return UnstorableError(f"{text} ({sqlstate})")
        if sqlstate.startswith(_TRANSIENT_CLASSES):
            return TransientError(f"{text} ({sqlstate})")
        return error
    # What asyncpg itself can't encode is an InterfaceError, too: its DataError isn't the exported one of Postgres.
    if isinstance(error, UnicodeError | OverflowError) or (
        isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)
    ):
        return UnstorableError(text)
    # InternalClientError: a connection that was cut off in the middle of something; the next one is another.
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | TimeoutError):
        return TransientError(text)
    return error
