"""What must be there before anything runs: the schema, the pool, the topics; each is waited for with patience."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import asyncpg

from infra.kafka.topics import ensure_topics
from infra.patience import Patience
from infra.postgres.engine import check_database, open_pool
from infra.postgres.errors import TransientError, ours
from infra.postgres.migrate import migrate
from infra.settings import Settings, SettingsError

Result = TypeVar("Result")


async def prepare_database(settings: Settings, stop: asyncio.Event, *, make: bool) -> bool:
    """Bring the schema up to date, or find it so; False if `stop` came first. Raises: SettingsError."""

    async def prepare() -> bool:
        if make:
            await migrate(settings)
        async with _connected(settings) as connection:
            await check_database(connection, settings)
        return True

    return await _patiently(prepare, settings, stop) or False


@contextlib.asynccontextmanager
async def patient_pool(settings: Settings, stop: asyncio.Event) -> AsyncIterator[asyncpg.Pool | None]:
    """The pool, when Postgres can be reached; None if `stop` came first. Raises: SettingsError."""
    pool = await _patiently(lambda: open_pool(settings), settings, stop)
    try:
        yield pool
    finally:
        if pool is not None:
            pool.terminate()


async def topics_as_made(settings: Settings, stop: asyncio.Event) -> dict[str, int]:
    """How many partitions each topic has, after those that were missing are made. Raises: SettingsError."""

    async def make() -> dict[str, int]:
        async with _connected(settings) as connection:
            return await ensure_topics(settings, connection, stop)

    return await _patiently(make, settings, stop) or {}


async def _patiently(
    attempt: Callable[[], Awaitable[Result]], settings: Settings, stop: asyncio.Event
) -> Result | None:
    """What `attempt` gives when Postgres lets it; None if `stop` came first. Raises: SettingsError."""
    patience = Patience("Postgres")
    while not stop.is_set():
        try:
            result = await attempt()
        except SettingsError:
            raise
        except Exception as fault:
            await patience.wait(_explained(fault, settings), stop)
        else:
            patience.over()
            return result
    return None


@contextlib.asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(settings.asyncpg_dsn, timeout=10)
    try:
        yield connection
    finally:
        await connection.close()


def _explained(fault: Exception, settings: Settings) -> str:
    """Why Postgres can't be used. Raises: SettingsError where waiting can't help."""
    cause: BaseException = getattr(getattr(fault, "orig", None), "__cause__", None) or fault
    if isinstance(cause, asyncpg.exceptions.ClientConfigurationError | ValueError):
        raise SettingsError(
            f"LEDGER_DATABASE_URL can't be understood: {cause}; see docs/operating.md, Settings"
        ) from fault
    wrong = (
        asyncpg.InvalidPasswordError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InsufficientPrivilegeError,
    )
    if isinstance(cause, wrong):
        raise SettingsError(f"Postgres refuses what LEDGER_DATABASE_URL says: {cause}") from fault
    known = ours(cause) if isinstance(cause, Exception) else cause
    if not isinstance(known, TransientError):
        raise fault
    return f"can't be reached ({cause})"
