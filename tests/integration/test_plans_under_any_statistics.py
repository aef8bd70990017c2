"""No state of the statistics makes an audit or a read go through pairs of rows: what they touch grows with the rows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from random import Random
from typing import Any, Literal

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.postgres import queries
from infra.postgres.queries import EntryFilter
from infra.postgres.reading import reading
from infra.postgres.verify import verify
from infra.settings import Settings
from tests.fixtures.desk import NOON, Desk, Envelope, desk_on, envelope, payment

ROWS = 1_000
# Several nodes of a plan see each of the 2,000 postings; pairs of rows would be millions.
TOUCHED_MAX = 60 * ROWS
State = Literal["never analyzed", "analyzed while nearly empty", "analyzed"]
TENANT = "acme"
STATES: tuple[State, ...] = ("never analyzed", "analyzed while nearly empty", "analyzed")
MIXED = 9
SEED = 1993

pytestmark = [pytest.mark.shards(1), pytest.mark.timeout(120)]

_TABLES = """
SELECT c.oid::regclass::text
FROM pg_class c
WHERE c.relkind IN ('r', 'p')
  AND c.relnamespace = 'public'::regnamespace
ORDER BY 1
"""
_FORGET = """
SELECT pg_clear_attribute_stats('public', $1::text, attname::text, inherited)
FROM pg_attribute, unnest(ARRAY[false, true]) AS inherited
WHERE attrelid = $1::regclass
  AND attnum > 0
  AND NOT attisdropped
"""
# As autovacuum leaves a table behind when it first has something to look at, which is after 50 rows.
_NEARLY_EMPTY = """
SELECT pg_restore_attribute_stats('schemaname', 'public', 'relname', $1::text, 'attname', attname::text,
    'inherited', false, 'null_frac', 0::real, 'avg_width', 8,
    'n_distinct', CASE attname WHEN 'shard' THEN 1 ELSE -1 END::real)
FROM pg_attribute
WHERE attrelid = $1::regclass
  AND attnum > 0
  AND NOT attisdropped
"""


async def _take_on(connection: asyncpg.Connection, table: str, state: State) -> None:
    """Bring what Postgres thinks of a table into a state that it may have got into by itself."""
    if state == "analyzed":
        await connection.execute(f"ANALYZE {table}")
        return
    await connection.execute(_FORGET, table)
    await connection.execute("SELECT pg_clear_relation_stats('public', $1)", table)
    if state == "analyzed while nearly empty":
        await connection.execute(
            "SELECT pg_restore_relation_stats('schemaname', 'public', 'relname', $1::text, 'relpages', 1, 'reltuples',"
            " 50::real)",
            table,
        )
        await connection.execute(_NEARLY_EMPTY, table)


@pytest.fixture
async def kept(ledger_settings: Settings) -> AsyncIterator[Desk]:
    connection = await asyncpg.connect(ledger_settings.asyncpg_dsn)
    for (table,) in await connection.fetch(_TABLES.replace("IN ('r', 'p')", "= 'r'")):
        await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    await connection.close()
    async with desk_on(ledger_settings) as desk:
        await desk.apply(*(_event(number) for number in range(ROWS)))
        yield desk


def _event(number: int) -> Envelope:
    """Payments and payouts of few accounts: of those Postgres may look at all, pairs of the rest are what is tested."""
    more: dict[str, Any] = {"amount": 1_000, "currency": "EUR", "time": NOON - timedelta(minutes=ROWS - number)}
    if number % 2:
        return payment(f"p{number}", customer_id=f"c{number % 20}", **more)
    return envelope("payout.paid.v1", payout_id=f"o{number}", merchant_id=f"m{number % 20}", **more)


async def test_no_state_of_the_statistics_makes_an_audit_or_a_read_go_through_pairs_of_rows(
    kept: Desk, ledger_settings: Settings
) -> None:
    connection = await asyncpg.connect(ledger_settings.asyncpg_dsn)
    tables = [table for (table,) in await connection.fetch(_TABLES)]
    drawn = Random(SEED)
    states = [dict.fromkeys(tables, state) for state in STATES]
    states += [{table: drawn.choice(STATES) for table in tables} for _ in range(MIXED)]
    worst: dict[str, int] = {}
    for state in states:
        for table, known in state.items():
            await _take_on(connection, table, known)
        for statement, touched in (await _touched(ledger_settings)).items():
            worst[statement] = max(worst.get(statement, 0), touched)
    await connection.close()
    assert len(worst) > 25
    assert {statement: touched for statement, touched in worst.items() if touched > TOUCHED_MAX} == {}


async def _touched(settings: Settings) -> dict[str, int]:
    """How many rows each statement of each read and audit touches."""
    async with reading(settings) as connection:
        await connection.execute(text("SET LOCAL statement_timeout = '30s'"))
        statements: dict[str, Any] = {}

        def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
            statements[statement] = parameters

        event.listen(connection.sync_connection, "before_cursor_execute", note)
        await _read_everything(connection)
        touched = await _explained(connection, statements)
        assert [check async for check in verify(connection) if not check["ok"]] == []
        event.remove(connection.sync_connection, "before_cursor_execute", note)
        return touched | await _explained(connection, statements)


async def _explained(connection: AsyncConnection, statements: dict[str, Any]) -> dict[str, int]:
    touched: dict[str, int] = {}
    asked = [(each, parameters) for each, parameters in statements.items() if each.startswith(("SELECT", "WITH"))]
    statements.clear()
    for statement, parameters in asked:
        answer = (await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)).scalar()
        plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
        touched[statement] = sum(_rows(node) for node in _nodes(plan))
    statements.clear()
    return touched


async def _read_everything(connection: AsyncConnection) -> None:
    middle = NOON - timedelta(minutes=ROWS // 2)
    await queries.trial_balance(connection, TENANT)
    await queries.trial_balance(connection, TENANT, at=middle)
    await queries.balance(connection, TENANT, "platform:cash", at=middle)
    assert len([line async for line in queries.list_entries(connection, TENANT, EntryFilter())]) == ROWS
    assert len([line async for line in queries.statement(connection, TENANT, "platform:cash")]) == ROWS
    assert [line async for line in queries.statement(connection, TENANT, "platform:cash", from_time=middle)]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _rows(node: dict[str, Any]) -> int:
    removed = ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
    return int((node["Actual Rows"] + sum(node.get(name, 0) for name in removed)) * node["Actual Loops"])
