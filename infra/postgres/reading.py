"""A connection to read the ledger by: one snapshot, nothing written, times in UTC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from infra.settings import Settings, SettingsError

CONNECT_SECONDS_MAX = 10.0

_SESSION = {
    "application_name": "ledgerstream read",
    "default_transaction_read_only": "on",
    "timezone": "UTC",
    # A reader that was cut off must not hold back vacuum for hours.
    "idle_in_transaction_session_timeout": "600000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "10",
    # Compiling takes longer than any of these reads.
    "jit": "off",
    # Plans that can't turn: on tables never analyzed the planner would rather scan all of a growing table.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
_SCHEMA_MISSING = frozenset({"42P01", "42703", "3F000"})  # undefined table, column, schema
_REFUSED = frozenset({"28000", "28P01", "3D000", "42501"})  # no such role, wrong password, no such database, no right


class UnreachableError(SettingsError):
    """The database can't be read; the message says which, why, and the way out."""


@asynccontextmanager
async def reading(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """One connection in a REPEATABLE READ, READ ONLY database transaction: all reads on it see one state.

    Raises: UnreachableError when there is no connection to be had, or no ledger behind it; SettingsError.
    """
    engine = create_async_engine(
        sqlalchemy_url(settings),
        poolclass=NullPool,
        isolation_level="REPEATABLE READ",
        connect_args={"server_settings": _SESSION, "timeout": CONNECT_SECONDS_MAX},
    )
    try:
        with database_faults(settings):
            connection = await engine.connect()
        try:
            with database_faults(settings, outside=False):
                yield connection
        finally:
            await connection.close()
    finally:
        await engine.dispose()


def sqlalchemy_url(settings: Settings) -> str:
    """`LEDGER_DATABASE_URL` for SQLAlchemy over asyncpg. Raises: SettingsError.

    It is handed to asyncpg whole, which knows `sslmode` and all else that may stand there; SQLAlchemy doesn't.
    """
    dsn = settings.asyncpg_dsn
    scheme = dsn.partition("://")[0]
    if scheme not in ("postgresql", "postgres"):
        raise SettingsError(f"LEDGER_DATABASE_URL begins with {scheme}://; it must begin with postgresql://")
    return f"postgresql+asyncpg://?dsn={quote(dsn, safe='')}"


@contextmanager
def database_faults(settings: Settings, *, outside: bool = True) -> Iterator[None]:
    """Say what the operator has to mend where Postgres can't be reached, refuses us, or has no ledger.

    `outside`: an error of the operating system is one of the database's, because nothing else is done here.
    """
    try:
        yield
    except (DBAPIError, asyncpg.PostgresError, OSError) as error:
        fault = _ours(error, settings) if outside or not isinstance(error, OSError) else None
        if fault is None:
            raise
        raise fault from error


def _ours(error: Exception, settings: Settings) -> UnreachableError | None:
    place = _place(settings)
    state = sqlstate_of(error)
    if state in _SCHEMA_MISSING:
        return UnreachableError(
            f"the database {place} has no ledger of this version; run `ledgerstream migrate`, "
            "or point LEDGER_DATABASE_URL at the right one"
        )
    if state in _REFUSED:
        return UnreachableError(f"the database {place} refuses us: {_reason(error)}; check LEDGER_DATABASE_URL")
    lost = isinstance(error, OSError) or getattr(error, "connection_invalidated", False)
    if lost or (state is not None and (state.startswith(("08", "57P")) or state == "53300")):
        return UnreachableError(
            f"the database {place} can't be reached: {_reason(error)}; check LEDGER_DATABASE_URL and that it is up"
        )
    return None


def sqlstate_of(error: Exception) -> str | None:
    """The SQLSTATE of a driver's error, wrapped by SQLAlchemy or not; None if Postgres never answered."""
    original: Any = getattr(error, "orig", error)
    return getattr(original, "sqlstate", None)


def _reason(error: Exception) -> str:
    original: Any = getattr(error, "orig", error)
    cause: Any = getattr(original, "__cause__", None) or original
    if isinstance(cause, TimeoutError):
        return f"no answer within {CONNECT_SECONDS_MAX:g} s"
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__


def _place(settings: Settings) -> str:
    """The address, without user and password."""
    parts = urlsplit(settings.need_database_url())
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
