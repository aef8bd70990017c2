"""Connections for workers, and what is checked before the first batch."""

from __future__ import annotations

import logging
from typing import Any

import asyncpg
from asyncpg.protocol import protocol

from infra.postgres.load import Connection
from infra.settings import Settings, SettingsError

log = logging.getLogger(__name__)

WORKER_ROLE = "ledgerstream_worker"

SERVER_SETTINGS = {
    "timezone": "UTC",
    # A worker that was paused or cut off must not hold a shard for hours.
    "idle_in_transaction_session_timeout": "10s",
    "transaction_timeout": "30s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    # Plans that can't turn: on tables never analyzed the planner would scan a whole shard under its lock.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}


# asyncpg asks two abstract classes about each element of each array whether it is one, too, and that takes longer than
# to encode it: a tenth of what our side of a batch costs. Arrays are lists or tuples here.
protocol.IterableABC = protocol.SizedABC = (list, tuple)  # type: ignore[attr-defined]


async def open_pool(settings: Settings, *, role: str | None = WORKER_ROLE, name: str = "worker") -> asyncpg.Pool:
    """A pool of connections that may only do what a worker may. Raises: what asyncpg raises where it can't connect."""
    server_settings = SERVER_SETTINGS | {"application_name": f"ledgerstream-{name}"}
    if role is not None and await _role_exists(settings, role):
        server_settings["role"] = role
    return await asyncpg.create_pool(
        settings.asyncpg_dsn,
        min_size=1,
        max_size=max(settings.database_pool_max, settings.shards + 2),
        server_settings=server_settings,
        command_timeout=60,
        timeout=10,
        # Nothing here changes a session's settings, so giving a connection back needs no round trip.
        reset=_leave_as_is,
    )


async def _leave_as_is(connection: Any) -> None:
    return None


async def _role_exists(settings: Settings, role: str) -> bool:
    connection = await asyncpg.connect(settings.asyncpg_dsn, timeout=10)
    try:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_roles WHERE rolname = $1 AND pg_has_role(current_user, oid, 'SET')", role
            )
        )
    finally:
        await connection.close()


async def check_database(connection: Connection, settings: Settings) -> None:
    """Refuse to start on a database that could lose a commit, or that isn't the one this program knows.

    Raises: SettingsError.
    """
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        value = await connection.fetchval("SELECT current_setting($1)", setting)
        if value == "off":
            raise SettingsError(
                f"the database runs with {setting} = off and could lose what it has confirmed; set {setting} = on"
            )
    await check_schema(connection)
    shards = await connection.fetchval("SELECT shards FROM ledger")
    if shards != settings.shards:
        raise SettingsError(
            f"LEDGER_SHARDS is {settings.shards}, but this database was made with {shards} shards, which never changes;"
            f" set LEDGER_SHARDS={shards}"
        )


async def check_schema(connection: Connection) -> None:
    """Refuse an old or newer schema. Raises: SettingsError."""
    # Here, because what it brings along takes longer to load than all else of a process that never asks.
    from infra.postgres.migrate import newest_revision

    if await connection.fetchval("SELECT to_regclass('alembic_version') IS NULL"):
        raise SettingsError('the database has no ledger in it yet; run "ledgerstream migrate"')
    found = await connection.fetchval("SELECT version_num FROM alembic_version")
    newest = newest_revision()
    if found != newest:
        way_out = 'run "ledgerstream migrate"' if str(found) < newest else "run the newer ledgerstream"
        raise SettingsError(f"the database's schema is {found}, this program needs {newest}; {way_out}")
