"""The migrated database: what the tables are, and what it refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, Inspector, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from infra.postgres.migrate import migrate
from infra.postgres.tables import metadata
from infra.settings import Settings, SettingsError

JOURNAL = ("events", "entries", "postings", "dead_letters")
DIALECT = postgresql.dialect()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def _inspected(database_url: str, look: Any) -> Any:
    engine = create_async_engine(database_url.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool)
    async with engine.connect() as connection:

        def run(sync: Connection) -> Any:
            return look(inspect(sync))

        found = await connection.run_sync(run)
    await engine.dispose()
    return found


def _type_name(kind: Any) -> str:
    return str(kind.compile(DIALECT)).replace(' COLLATE "C"', "")


def _columns_of(inspector: Inspector, table: str) -> dict[str, tuple[str, bool]]:
    return {column["name"]: (_type_name(column["type"]), column["nullable"]) for column in inspector.get_columns(table)}


async def test_tables_have_the_columns_types_and_nulls_of_the_migrated_database(database_url: str) -> None:
    names = list(metadata.tables)
    migrated = await _inspected(database_url, lambda found: {name: _columns_of(found, name) for name in names})
    declared = {
        name: {column.name: (_type_name(column.type), column.nullable) for column in table.columns}
        for name, table in metadata.tables.items()
    }
    assert declared == migrated


async def test_tables_have_the_primary_keys_of_the_migrated_database(database_url: str) -> None:
    names = list(metadata.tables)
    migrated = await _inspected(
        database_url, lambda found: {name: found.get_pk_constraint(name)["constrained_columns"] for name in names}
    )
    declared = {name: [column.name for column in table.primary_key] for name, table in metadata.tables.items()}
    assert declared == migrated


async def test_every_table_of_the_ledger_is_named(database: asyncpg.Connection) -> None:
    rows = await database.fetch(
        "SELECT relname FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    assert {name for (name,) in rows} - {"alembic_version"} == set(metadata.tables)


async def test_migrating_again_changes_nothing(database: asyncpg.Connection, database_url: str, shards: int) -> None:
    before = await _everything(database)
    await migrate(replace(Settings(), database_url=database_url, shards=shards))
    assert await _everything(database) == before


async def _everything(database: asyncpg.Connection) -> list[Any]:
    tables = await database.fetch("SELECT oid, relname, relkind FROM pg_class ORDER BY oid")
    shards = await database.fetch("SELECT * FROM shards ORDER BY shard")
    return [*map(tuple, tables), *map(tuple, shards), *map(tuple, await database.fetch("SELECT * FROM ledger"))]


async def test_an_empty_database_is_migrated_and_has_its_shards(empty_database_url: str) -> None:
    await migrate(replace(Settings(), database_url=empty_database_url, shards=3))
    connection = await asyncpg.connect(empty_database_url)
    rows = await connection.fetch("SELECT shard, epoch, next_seq, head_hash FROM shards ORDER BY shard")
    await connection.close()
    assert [tuple(row) for row in rows] == [(shard, 1, 1, bytes(32)) for shard in range(3)]


async def test_a_newer_schema_is_refused(database: asyncpg.Connection, database_url: str, shards: int) -> None:
    await database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SettingsError, match="9999, newer than this program knows"):
        await migrate(replace(Settings(), database_url=database_url, shards=shards))


async def test_another_number_of_shards_is_refused(
    database: asyncpg.Connection, database_url: str, shards: int
) -> None:
    with pytest.raises(SettingsError, match=f"made with {shards} shards.*set LEDGER_SHARDS={shards}"):
        await migrate(replace(Settings(), database_url=database_url, shards=shards + 1))
    assert await database.fetchval("SELECT count(*) FROM shards") == shards


@pytest.mark.parametrize("table", JOURNAL)
async def test_the_owner_cannot_update_the_journal(database: asyncpg.Connection, table: str) -> None:
    await _one_row_each(database)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=f"UPDATE on {table}"):
        await database.execute(f"UPDATE {table} SET shard = shard")


@pytest.mark.parametrize("table", JOURNAL)
async def test_the_owner_cannot_delete_from_the_journal(database: asyncpg.Connection, table: str) -> None:
    await _one_row_each(database)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=f"DELETE on {table}"):
        await database.execute(f"DELETE FROM {table}")


@pytest.mark.parametrize("table", JOURNAL)
async def test_the_owner_cannot_truncate_the_journal(database: asyncpg.Connection, table: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=f"TRUNCATE on {table}"):
        await database.execute(f"TRUNCATE {table}")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE postings SET amount = 1",
        "UPDATE entries SET kind = 'x'",
        "DELETE FROM events",
        "TRUNCATE dead_letters",
        "DELETE FROM balances",
        "UPDATE outbox SET body = ''",
        "DELETE FROM outbox",
        "UPDATE idempotency_keys SET seq = 1",
        "INSERT INTO shards (shard, head_hash) VALUES (9, '')",
        "CREATE TABLE mine ()",
        "UPDATE ledger SET shards = 1",
    ],
)
async def test_the_workers_role_may_not(database: asyncpg.Connection, statement: str) -> None:
    async with database.transaction():
        await database.execute("SET LOCAL ROLE ledgerstream_worker")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.transaction():
                await database.execute(statement)


async def test_the_workers_role_may_insert_into_the_journal(database: asyncpg.Connection) -> None:
    async with database.transaction():
        await database.execute("SET LOCAL ROLE ledgerstream_worker")
        await _one_row_each(database)
    assert await database.fetchval("SELECT count(*) FROM postings") == 1


async def _one_row_each(database: asyncpg.Connection) -> None:
    """One row of each journal table, so that row triggers have something to fire on."""
    await database.execute(
        """
        INSERT INTO events (shard, seq, outputs, outcome, tenant_id, type, source, event_id, occurred_at, recorded_at,
            fingerprint, data)
        VALUES (0, 1, 1, 'applied', 't', 'payment.captured.v1', 's', 'i', now(), now(), 1, '{}')
        """
    )
    await database.execute(
        """
        INSERT INTO entries (shard, seq, entry_id, event_seq, tenant_id, kind, effective_at, occurred_at, recorded_at)
        VALUES (0, 1, gen_random_uuid(), 1, 't', 'payment', now(), now(), now())
        """
    )
    await database.execute(
        """
        INSERT INTO postings (shard, seq, leg, account_id, currency, amount, posted_after, version, effective_at)
        VALUES (0, 1, 0, gen_random_uuid(), 'EUR', 1, 1, 1, now())
        """
    )
    await database.execute(
        """
        INSERT INTO dead_letters (shard, seq, topic, topic_id, partition, "offset", timestamp_ms, code, message,
            headers, recorded_at)
        VALUES (0, 2, 'x', gen_random_uuid(), 0, 0, 0, 'malformed', 'm', '', now())
        """
    )
