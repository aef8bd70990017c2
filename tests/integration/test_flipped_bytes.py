"""One changed value, in whatever column of whatever table, is found, and its row is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from consumers.translate import read_command
from infra.digest import compared_columns
from infra.postgres.reading import reading, sqlalchemy_url
from infra.rebuild import prepare, rebuild_shard, rules_of, target_of
from infra.settings import Settings
from infra.verify_rebuild import differing_rows, rebuild_check, rows_of
from tests.fixtures.desk import Desk, lone_desk
from tests.integration.test_replay_journal import history

__all__ = ["lone_desk"]

pytestmark = pytest.mark.timeout(180)

# Another value of the same type.
FLIPS = {
    "bigint": "{0} + 1",
    "integer": "{0} + 1",
    "smallint": "({0} + 1)::smallint",
    "numeric": "{0} + 1",
    "boolean": "NOT {0}",
    "text": "overlay({0} placing chr(ascii({0}) + 1) from 1 for 1)",
    "uuid": "overlay({0}::text placing 'f' from 36 for 1)::uuid",
    "date": "{0} + 1",
    "timestamp with time zone": "{0} + interval '1 microsecond'",
    "bytea": "set_byte({0}, 0, get_byte({0}, 0) # 1)",
    "jsonb": """{0} || '{{"flipped": 1}}'""",
    "text[]": "{0} || 'flipped'::text",
}


@pytest.fixture
async def kept(lone_desk: Desk, ledger_settings: Settings) -> AsyncIterator[Settings]:
    await history(lone_desk, ledger_settings)
    yield ledger_settings


async def test_a_changed_value_in_any_column_is_found_and_its_row_named(
    kept: Settings, empty_database_url: str
) -> None:
    plan = await prepare(kept, empty_database_url)
    for shard in plan.until:
        await rebuild_shard(kept, empty_database_url, plan, rules_of(kept, plan), read_command, shard)
    engine = create_async_engine(sqlalchemy_url(kept), poolclass=NullPool)
    async with engine.connect() as ledger, reading(target_of(kept, empty_database_url)) as rebuilt:
        await ledger.execute(text("SET session_replication_role = replica"))
        assert await differing_rows(ledger, rebuilt) == []
        types = await _types(ledger)
        flipped, unseen = set(), []
        for table, columns in (await compared_columns(ledger)).items():
            for column in columns:
                told = await _flip(ledger, rebuilt, table, column, types[table, column])
                if told is not None:
                    flipped.add(table)
                    unseen += [] if any(line.startswith(f"{table} (") for line in told) else [(table, column, told)]
        await ledger.rollback()
    await engine.dispose()
    assert unseen == []
    assert flipped >= {
        "events",
        "entries",
        "postings",
        "accounts",
        "balances",
        "idempotency_keys",
        "shards",
        "payments",
    }


async def _types(ledger: AsyncConnection) -> dict[tuple[str, str], str]:
    found = await ledger.execute(
        text(
            "SELECT attrelid::regclass::text, attname, format_type(atttypid, NULL) FROM pg_attribute"
            " JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND attnum > 0"
        )
    )
    return {(table, column): kind for table, column, kind in found}


async def _flip(
    ledger: AsyncConnection, rebuilt: AsyncConnection, table: str, column: str, kind: str
) -> list[str] | None:
    """What is found after one value has changed, which is taken back; None where the column has none anywhere."""
    point = await ledger.begin_nested()
    value = FLIPS[kind].format(f'"{column}"')
    chosen = f'SELECT tableoid, ctid FROM "{table}" WHERE "{column}" IS NOT NULL'
    chosen += f" AND \"{column}\" <> ''" if kind == "text" else ""
    try:
        # Constraints are the first to see some of them.
        changed: Any = await ledger.execute(
            text(f'UPDATE "{table}" SET "{column}" = {value} WHERE (tableoid, ctid) IN ({chosen} LIMIT 1)')
        )
        found = await rows_of(ledger, rebuilt, table) if changed.rowcount else None
    except Exception as refused:
        if getattr(getattr(refused, "orig", None), "sqlstate", "")[:2] != "23":
            raise
        found = None
    await point.rollback()
    return found


# What the journal says came in decides what it gives: changed, something else comes of it.
CAME_IN = {
    "data": ("replace(data, ':1000', ':1001')", "data LIKE '%:1000%' AND outcome = 'applied'", "shard"),
    "event_id": ("'other'", "outcome = 'applied' AND resumes IS NULL", "shard"),
    '"offset"': ('"offset" + 1', "outcome = 'rejected'", "shard"),
}


async def test_a_changed_value_of_what_came_in_is_found(kept: Settings) -> None:
    connection = await asyncpg.connect(kept.asyncpg_dsn)
    await connection.execute("SET session_replication_role = replica")
    found = {}
    for column, (value, chosen, told) in CAME_IN.items():
        place = await connection.fetchrow(
            f"SELECT shard, seq, {column} FROM events WHERE {chosen} ORDER BY 1, 2 LIMIT 1"
        )
        at = f"WHERE shard = {place[0]} AND seq = {place[1]}"
        await connection.execute(f"UPDATE events SET {column} = {value} {at}")
        found[column] = await rebuild_check(kept, read_command)
        await connection.execute(f"UPDATE events SET {column} = $1 {at}", place[2])
        assert told in found[column]["detail"], found[column]
    await connection.close()
    assert [column for column, check in found.items() if check["ok"]] == []
