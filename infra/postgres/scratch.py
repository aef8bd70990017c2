"""A scratch database beside the real one: a copy to try things on, gone afterwards."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import asyncpg

from infra.postgres.migrate import migrate
from infra.settings import Settings, SettingsError

# What is published stays out: nothing that is tried there is.
_LEFT_OUT = ("outbox", "alembic_version")
# Filled by the migration, and what others refer to.
_FIRST = ("ledger", "shards", "accounts")
_CHUNKS_AHEAD = 16

_TABLES = """
SELECT relname
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
ORDER BY relname
"""
_COLUMNS = """
SELECT attname
FROM pg_attribute
WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum
"""


@asynccontextmanager
async def scratch_copy(settings: Settings) -> AsyncIterator[Settings]:
    """The settings of a copy of the ledger as it is now, without its outbox; dropped when the block ends.

    The ledger goes on meanwhile: the copy is of one snapshot, read as `pg_dump` would. It takes as much room as the
    ledger. (`CREATE DATABASE … TEMPLATE` would be faster, but only where nobody is connected.)
    Raises: SettingsError when the user of `LEDGER_DATABASE_URL` may not make a database.
    """
    source = await asyncpg.connect(settings.asyncpg_dsn)
    name = f"ledgerstream_scratch_{secrets.token_hex(6)}"
    try:
        await _make(source, name)
        try:
            url = urlsplit(settings.need_database_url())._replace(path=f"/{name}").geturl()
            copy = replace(settings, database_url=url)
            await migrate(copy)
            await _fill(source, copy)
            yield copy
        finally:
            await source.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await source.close()


async def _make(source: asyncpg.Connection, name: str) -> None:
    try:
        await source.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
    except asyncpg.InsufficientPrivilegeError as fault:
        raise SettingsError(
            "a dry run needs a scratch database, and the user of LEDGER_DATABASE_URL may not make one; "
            "ALTER ROLE … CREATEDB, or name a user who may"
        ) from fault


async def _fill(source: asyncpg.Connection, copy: Settings) -> None:
    target = await asyncpg.connect(copy.asyncpg_dsn)
    try:
        async with source.transaction(isolation="repeatable_read", readonly=True):
            names = {row["relname"] for row in await source.fetch(_TABLES)}
            await target.execute("DELETE FROM shards")
            await target.execute("DELETE FROM ledger")
            for table in [*_FIRST, *sorted(names - {*_FIRST, *_LEFT_OUT})]:
                await _copy(source, target, table)
        # Without statistics the first batch would be planned for empty tables.
        await target.execute("ANALYZE")
    finally:
        await target.close()


async def _copy(source: asyncpg.Connection, target: asyncpg.Connection, table: str) -> None:
    columns = [row["attname"] for row in await source.fetch(_COLUMNS, table)]
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_CHUNKS_AHEAD)

    async def read() -> None:
        listed = ", ".join(f'"{column}"' for column in columns)
        try:
            await source.copy_from_query(f'SELECT {listed} FROM "{table}"', output=chunks.put, format="binary")
        finally:
            await chunks.put(None)

    async def each() -> AsyncIterator[bytes]:
        while (chunk := await chunks.get()) is not None:
            yield chunk

    reading = asyncio.create_task(read())
    try:
        await target.copy_to_table(table, source=each(), columns=columns, format="binary")
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
