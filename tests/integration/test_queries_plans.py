"""Reads use their indexes on tables that were never analyzed, so their cost doesn't grow with the journal."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ids import entry_id
from domain.keys import Key
from domain.reservations import authorization_key, hold_key, line_key
from infra.postgres import queries
from infra.postgres.queries import EntryFilter
from infra.postgres.queries_explained_cards import explain_authorization, explain_hold
from infra.postgres.reading import reading
from infra.settings import Settings

pytestmark = pytest.mark.shards(1)

TENANT = "acme"
SEQ = 12_345
NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)
# 30,000 entries of two postings each on 1,001 of 10,001 accounts, ten days, one output each; as many holds, lines,
# cards, and card payments of two events each.
FILL = """
INSERT INTO tenants VALUES ('acme', 0);
UPDATE shards SET next_seq = 30001;

INSERT INTO accounts (shard, account_id, tenant_id, name, type, parent_id)
SELECT 0, lpad(n::text, 32, '0')::uuid, 'acme', 'account:' || n, 'asset',
       CASE WHEN n % 100 = 1 THEN lpad('0', 32, '0')::uuid END
FROM generate_series(0, 10000) n;

CREATE TEMPORARY TABLE times AS
SELECT n, timestamptz '2026-03-01Z' + n * interval '28.8 s' AS t FROM generate_series(1, 30000) n;

INSERT INTO events (shard, seq, outputs, outcome, code, tenant_id, type, source, event_id, occurred_at, recorded_at,
    fingerprint, data)
SELECT 0, n, 1, CASE WHEN n % 1000 = 0 THEN 'rejected' ELSE 'applied' END,
       CASE WHEN n % 1000 = 0 THEN 'invalid_amount' END, 'acme', 'payment.captured.v1', 's', n::text, t, t, 1, '{}'
FROM times;

INSERT INTO entries (shard, seq, entry_id, event_seq, tenant_id, kind, payment_id, effective_at, occurred_at,
    recorded_at)
SELECT 0, n, gen_random_uuid(), n, 'acme', 'payment', 'p' || n, t, t, t
FROM times;

INSERT INTO postings (shard, seq, leg, account_id, currency, amount, posted_after, version, effective_at)
SELECT 0, n, leg, lpad(CASE leg WHEN 0 THEN '0' ELSE (1 + n % 1000)::text END, 32, '0')::uuid, 'EUR', 1 - 2 * leg,
       n, n, t
FROM times, generate_series(0, 1) leg;

INSERT INTO balances
SELECT 0, account_id, currency, sum(amount), 0, 0, 1, now() FROM postings GROUP BY account_id, currency;

INSERT INTO balance_days
SELECT 0, account_id, currency, (effective_at AT TIME ZONE 'UTC')::date AS day, sum(amount), min(seq), max(seq)
FROM postings GROUP BY account_id, currency, day;

CREATE TEMPORARY TABLE keys AS
SELECT n, lpad(n::text, 32, '0')::uuid AS key, lpad((1 + n % 1000)::text, 32, '0')::uuid AS account
FROM generate_series(1, 30000) n;

INSERT INTO holds
SELECT 0, key, 'acme', 'h' || n, account, 'EUR', 'out', NULL, 'pending', 1, 1, 0, now(), NULL, '{}' FROM keys;

INSERT INTO hold_changes
SELECT 0, n, account, 'EUR', 1, n, n FROM keys;

INSERT INTO authorizations
SELECT 0, key, 'acme', 'visa', 'x' || n, 'approved', false, 'EUR', account, 'approved', 'ledger', NULL, '{}',
       1, 1, 1, 0, 0, 0, 0, 1, '{}', '{}', now(), NULL
FROM keys;

INSERT INTO authorization_events
SELECT 0, key, 1 + (n + more) % 30000 FROM keys, generate_series(0, 1) more;

INSERT INTO idempotency_keys
SELECT 0, key, n, 1, 1 FROM keys;

INSERT INTO parked
SELECT 0, n, lpad((n + 50000)::text, 32, '0')::uuid, now() FROM keys;

INSERT INTO expense_categories
SELECT 0, key, 'acme', 'code:' || n, 'name', NULL, NULL, '[]' FROM keys WHERE n <= 1000;

INSERT INTO lines_of_credit
SELECT 0, key, key, 'acme', 'line:' || n, 'employee', (1 + n % 1000)::text, 'code:' || n, 'EUR', 1, 0, false FROM keys;

INSERT INTO cards
SELECT 0, key, 'acme', 'card:' || n, 'employee', 'e' FROM keys;
"""
FILLED = """
SELECT oid::regclass::text
FROM pg_class
WHERE relkind = 'r' AND relname ~ '_s0_' OR relkind = 'r' AND relname = ANY($1)
"""
CARDS = (
    "holds", "hold_changes", "authorizations", "authorization_events", "idempotency_keys", "parked",
    "expense_categories", "lines_of_credit", "cards",
)  # fmt: skip
GROWING = ("accounts", "balances", "balance_days", "events", "entries", "postings", *CARDS)

IN_VAIN_MAX = 1_000
"""How many of 30,000 rows a read may look at and leave out: an index of which only the first column helps is none."""

Read = Callable[[AsyncConnection], Awaitable[Any]]


@pytest.fixture
async def database_settings(database_url: str, shards: int) -> Settings:
    connection = await asyncpg.connect(database_url)
    # Statistics would hide a plan that is only good with them.
    for (table,) in await connection.fetch(FILLED, GROWING):
        await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    await connection.execute(FILL)
    # Keys are hashes of names, which SQL can't make: one row of each gets its own.
    adjusted = "UPDATE holds SET hold_key = $1, adjusted_at = now() WHERE hold_id = 'h7'"
    await connection.execute(adjusted, _uuid(hold_key(TENANT, "h7")))
    line = _uuid(line_key(TENANT, "line:7"))
    await connection.execute("UPDATE lines_of_credit SET line_key = $1 WHERE line_of_credit_id = 'line:7'", line)
    payment = _uuid(authorization_key(TENANT, "visa", "x7"))
    await connection.execute("UPDATE authorizations SET authorization_key = $1 WHERE external_id = 'x7'", payment)
    await connection.execute("INSERT INTO authorization_events VALUES (0, $1, 8), (0, $1, 9)", payment)
    await connection.close()
    return replace(Settings(), database_url=database_url, shards=shards)


async def _plans(settings: Settings, read: Read) -> list[dict[str, Any]]:
    """The plans of all statements of a read."""
    statements: list[tuple[str, Any]] = []
    async with reading(settings) as connection:

        def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
            statements.append((statement, parameters))

        event.listen(connection.sync_connection, "before_cursor_execute", note)
        await read(connection)
        event.remove(connection.sync_connection, "before_cursor_execute", note)
        # ANALYZE: without it Postgres doesn't show what a recursive query would look up.
        explained = [
            await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            for statement, parameters in statements
        ]
        answers = [answer.scalar_one() for answer in explained]
    return [(json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"] for answer in answers]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _table(name: str) -> str:
    """The table of a partition: `postings` for `postings_s0_0`."""
    return name.partition("_s0_")[0]


def _uuid(key: Key) -> UUID:
    return UUID(bytes=bytes(key))


async def _every(lines: Any) -> None:
    found = [line async for line in lines]
    assert found


def _entries(**wanted: Any) -> Read:
    return lambda connection: _every(queries.list_entries(connection, TENANT, EntryFilter(**wanted)))


async def _entry_that_is_not_there(connection: AsyncConnection) -> None:
    with pytest.raises(queries.NotFound):
        await queries.entry(connection, TENANT, entry_id(1, 0, SEQ))


def _not_there(read: Read) -> Read:
    async def refused(connection: AsyncConnection) -> None:
        with pytest.raises(queries.NotFound):
            await read(connection)

    return refused


READS: dict[str, tuple[Read, set[str]]] = {
    "balance": (lambda c: queries.balance(c, TENANT, "account:7"), {"accounts_name_uq", "balances_pkey"}),
    "balance at": (
        lambda c: queries.balance(c, TENANT, "account:7", at=NOON),
        {"balance_days_pkey", "postings_s0_0_shard_account_id_seq_idx"},
    ),
    "balance known at": (
        lambda c: queries.balance(c, TENANT, "account:7", known_at=NOON),
        {"entries_s0_0_pkey", "balance_days_pkey"},
    ),
    "balance recursive": (
        lambda c: queries.balance(c, TENANT, "account:0", recursive=True),
        {"accounts_parent_ix", "balances_pkey"},
    ),
    "statement": (
        lambda c: _every(queries.statement(c, TENANT, "account:7", from_time=NOON, to_time=NOON.replace(day=5))),
        {"postings_s0_0_shard_account_id_seq_idx", "entries_s0_0_pkey", "balance_days_pkey"},
    ),
    "entry": (_entry_that_is_not_there, {"entries_s0_0_pkey"}),
    "entries": (_entries(limit=10), {"entries_s0_0_pkey", "events_s0_0_pkey", "postings_s0_0_pkey"}),
    "entries by payment": (_entries(payment_id="p77"), {"entries_s0_0_shard_payment_id_seq_idx"}),
    "entries by account": (
        _entries(account="account:7", limit=10),
        {"postings_s0_0_shard_account_id_seq_idx", "entries_s0_0_pkey"},
    ),
    "entries after": (_entries(after=NOON, limit=10), {"entries_s0_0_pkey"}),
    "hold that is not there": (
        _not_there(lambda c: queries.hold(c, TENANT, "h9")),
        {"holds_pkey", "idempotency_keys_pkey", "parked_waits_for_ix"},
    ),
    "authorization that is not there": (
        _not_there(lambda c: queries.authorization(c, TENANT, "visa", "y")),
        {"authorizations_pkey", "idempotency_keys_pkey", "parked_waits_for_ix"},
    ),
    "hold": (lambda c: queries.hold(c, TENANT, "h7"), {"holds_pkey", "accounts_pkey"}),
    "authorization": (
        lambda c: queries.authorization(c, TENANT, "visa", "x7"),
        {"authorizations_pkey", "authorization_events_pkey", "events_s0_0_pkey", "hold_changes_pkey"},
    ),
    "line": (lambda c: queries.line(c, TENANT, "line:7"), {"lines_of_credit_pkey"}),
    "explain authorization": (
        lambda c: explain_authorization(c, TENANT, "visa", "x7"),
        {"authorizations_pkey", "authorization_events_pkey", "events_s0_0_pkey"},
    ),
    "explain hold": (
        lambda c: explain_hold(c, TENANT, "h7"),
        {"holds_pkey", "idempotency_keys_pkey", "events_s0_0_shard_tenant_id_seq_idx"},
    ),
    "line that is not there": (
        _not_there(lambda c: queries.line(c, TENANT, "L9")),
        {"lines_of_credit_pkey", "lines_of_credit_owner_ix"},
    ),
    "lines": (
        lambda c: _every(queries.list_lines(c, TENANT, owner_type="employee", owner_ref="7")),
        {"lines_of_credit_owner_ix"},
    ),
    "categories": (lambda c: _every(queries.list_categories(c, TENANT)), {"expense_categories_code_uq"}),
    "cards": (lambda c: _every(queries.list_cards(c, TENANT)), {"cards_card_id_uq"}),
    "rejections": (lambda c: _every(queries.list_rejections(c, TENANT)), {"events_s0_0_shard_seq_idx"}),
}


async def test_reads_use_their_indexes_and_scan_no_growing_table(database_settings: Settings) -> None:
    scanned: dict[str, set[str]] = {}
    missing: dict[str, set[str]] = {}
    in_vain: dict[str, int] = {}
    for name, (read, indexes) in READS.items():
        nodes = [node for plan in await _plans(database_settings, read) for node in _nodes(plan)]
        # An empty default partition is scanned at no cost.
        tables = {
            node["Relation Name"]
            for node in nodes
            if node["Node Type"] == "Seq Scan" and not node["Relation Name"].endswith("_default")
        }
        scanned[name] = {_table(table) for table in tables} & set(GROWING)
        missing[name] = indexes - {str(node.get("Index Name")) for node in nodes}
        in_vain[name] = int(sum(node.get("Rows Removed by Filter", 0) * node["Actual Loops"] for node in nodes))
    assert {name: tables for name, tables in scanned.items() if tables} == {}
    assert {name: indexes for name, indexes in missing.items() if indexes} == {}
    assert {name: rows for name, rows in in_vain.items() if rows > IN_VAIN_MAX} == {}
