"""One changed value, in whatever column of whatever table of the ledger, is found, and its row is named.

Changed as a disk would: no constraint, trigger or foreign key is in the way. Found by `verify --deep`, or by
`verify --deep --rebuild` where only the journal can tell. What can't be found is written down here, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from consumers.translate import read_command
from infra.devstack import RunningStack
from infra.digest import compared_columns
from infra.postgres.reading import reading, sqlalchemy_url
from infra.postgres.verify import verify
from infra.rebuild_shard import target_of
from infra.records import OffsetSwap
from infra.settings import Settings
from infra.verify_rebuild import _KEY, rebuild_faults, rows_of
from infra.verify_streams import stream_checks
from tests.fixtures.cards import OWNER
from tests.fixtures.database import database
from tests.fixtures.desk import TOPIC_ID, Desk, Envelope, envelope, lone_desk, payment, refund
from tests.integration.test_cards import apply, asked, later, opened
from tests.integration.test_replay_journal import history, letter, new_epochs

__all__ = ["lone_desk"]

pytestmark = pytest.mark.timeout(240)

Column = tuple[str, str]
"""A table and one of its columns."""

# Nothing of it is money or a key; each reason says who notices instead, or why nobody needs to.
NOT_FOUND: dict[Column, str] = {
    ("alembic_version", "version_num"): "every process refuses a schema of another version",
    ("events", "topic"): "where an applied event was read is told to nobody but `explain`",
    ("events", "partition"): "the same",
    ("events", "offset"): "the same",
    ("events", "occurred_at"): "of an event that was refused or waits, nothing follows from its time yet",
    (
        "input_offsets",
        "topic",
    ): "read again: what is known stays as it is; `replay topics --dry-run` finds what was skipped",
    ("input_offsets", "topic_id"): "the same",
    ("input_offsets", "partition"): "the same",
    ("input_offsets", "next_offset"): "the same",
    ("input_offsets", "updated_at"): "when a position was last moved, for people",
    ("ledger", "singleton"): "there to hold the table to one row",
    ("ledger", "ledger_id"): "a name that is drawn once: nothing is made from it that could be compared",
    ("ledger", "created_at"): "when the database was made, for people",
    ("parked", "expires_at"): "how long one waits is a setting, which may have changed since",
    ("recoveries", "lost"): "what `recover` found on the streams, for people",
    ("recoveries", "recovered_at"): "the same",
    ("recoveries", "sealed"): "whether the streams must be told, which has been done by the time anything else is",
    ("recoveries", "streams_epoch"): "what `recover` found on the streams, for people",
    ("recoveries", "streams_seq"): "the same",
    ("relayed", "updated_at"): "when the hint was last moved, for people",
    ("topics", "partitions"): "every process refuses a topic that has another number",
    ("topics", "topic"): "the same",
}

# By these alone, without the journal: what is in them is no row that could be built again.
BY_DEEP = ("ledger", "outbox", "relayed", "parked")

# Another value of the same type, and no other row's.
FLIPS = {
    "bigint": "{0} + 1",
    "integer": "{0} + 1",
    "smallint": "({0} + 1)::smallint",
    "numeric": "{0} + 1",
    "boolean": "NOT {0}",
    "text": "overlay({0} placing chr(ascii({0}) # 1) from 1 for 1)",
    "uuid": "overlay({0}::text placing translate(substr({0}::text, 36), '0123456789abcdef', '1032547698badcfe')"
    " from 36 for 1)::uuid",
    "date": "{0} + 1",
    "timestamp with time zone": "{0} + interval '1 microsecond'",
    "bytea": "set_byte({0}, 0, get_byte({0}, 0) # 1)",
    "jsonb": """{0} || '{{"flipped": 1}}'""",
    "text[]": "{0} || 'flipped'::text",
    "character varying": "{0} || '?'",
}
# In a key: far from any other row.
FAR = {"bigint": "{0} # 1073741824", "integer": "{0} # 1024", "smallint": "({0} # 64)::smallint"}

_COLUMNS = """
SELECT c.table_name, c.column_name, format_type(a.atttypid, NULL)
FROM information_schema.columns AS c
JOIN pg_class AS t ON t.oid = to_regclass(format('%I.%I', c.table_schema, c.table_name))
JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attname = c.column_name
WHERE c.table_schema = 'public'
  AND t.relkind IN ('r', 'p')
  AND NOT t.relispartition
ORDER BY 1, c.ordinal_position
"""
_CHECKS = """
SELECT conrelid::regclass::text, conname
FROM pg_constraint
WHERE contype = 'c'
  AND coninhcount = 0
  AND conrelid <> 0
  AND connamespace = 'public'::regnamespace
"""


async def lived(desk: Desk, settings: Settings) -> None:
    """Something in every column of every table."""
    await history(desk, settings)
    ends = (desk.now + timedelta(days=1)).isoformat()
    held: dict[str, Any] = {"account": "wallet", "amount": 100, "currency": "EUR", "payment_id": "p"}
    money: dict[str, Any] = {"amount": 50, "currency": "EUR", "customer_id": "c1", "provider": "psp"}
    documents: list[Envelope] = [
        *opened(),
        envelope("account.create.v1", name="top", type="asset", description="all", metadata={"n": 1}),
        envelope("account.create.v1", name="below", type="asset", parent="top", ceiling={"EUR": 9}, currency="EUR"),
        payment("rich", 900, provider="psp", metadata={"a": 1}, traceparent=True, key="k1"),
        envelope("refund.succeeded.v1", refund_id="r", payment_id="rich", **money),
        envelope("transfer.created.v1", transfer_id="t", merchant_id="m", **money),
        envelope("payout.paid.v1", payout_id="o", merchant_id="m", amount=5, currency="EUR", provider="psp"),
        envelope("dispute.opened.v1", dispute_id="d", payment_id="rich", **money),
        asked("x1", account="wallet", expires_at=ends),
        asked("x2", 500, account="wallet"),
        asked("x3", 5, advice=True),
        later("adjusted", "x1", amount=75),
        later("captured", "x1", amount=20, final=False),
        later("refunded", "x1", amount=20),
        later("released", "x4", reason="cancelled"),
        later("confirmed", "x5"),
        envelope("hold.created.v1", hold_id="h1", expires_at=ends, **held),
        envelope("hold.adjusted.v1", hold_id="h1", adjustment_id="1", amount=90),
        envelope("hold.created.v1", hold_id="h2", **held),
        envelope("hold.captured.v1", hold_id="h2", amount=30),
        envelope("hold.voided.v1", hold_id="gone"),
        envelope("card.assign.v1", card_id="c2", owner_type="employee", owner_ref=OWNER),
    ]
    for document in documents:
        document["data"].pop("traceparent", None)
        await apply(desk, document)
    # In a closed period.
    await apply(desk, payment("old", 5, time=desk.now - timedelta(days=60)))
    await apply(desk, payment("traced", 5) | {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "idempotencykey": "k2"})
    posted = envelope("entry.post.v1", postings=[{"account": "bank", "amount": n, "currency": "EUR"} for n in (9, -9)])
    await apply(desk, posted)
    reversed_id = (await desk.entries())[-1]["entry_id"]
    await apply(desk, envelope("entry.reverse.v1", entry_id=reversed_id))
    await apply(desk, envelope("expense_category.create.v1", code="x", name="X", description="d", reference="r"))
    await desk.swap([payment("swapped", 5)], OffsetSwap("ledger.payments", TOPIC_ID, 0, None, 7))
    await desk.pool.execute("RESET ROLE")
    await desk.pool.execute("INSERT INTO relayed SELECT shard, next_seq - 1 FROM shards WHERE next_seq > 1")
    await desk.pool.execute("INSERT INTO topics VALUES ('ledger.payments', 4)")


@pytest.fixture
async def kept(lone_desk: Desk, ledger_settings: Settings) -> AsyncIterator[Settings]:
    await lived(lone_desk, ledger_settings)
    yield ledger_settings


@asynccontextmanager
async def as_on_disk(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """A connection whose changes nothing refuses."""
    engine = create_async_engine(sqlalchemy_url(settings), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text("SET session_replication_role = replica"))
        for table, name in (await connection.execute(text(_CHECKS))).all():
            await connection.execute(text(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"'))
        yield connection
        await connection.rollback()
    await engine.dispose()


class Flip(NamedTuple):
    """A value to be changed: its row by its key, as text."""

    table: str
    column: str
    key: dict[str, str]
    kind: str

    @property
    def is_key(self) -> bool:
        return self.column in self.key

    @property
    def where(self) -> str:
        return " AND ".join(f""""{name}"::text = '{value}'""" for name, value in self.key.items())

    @property
    def named(self) -> str:
        return ", ".join(f'"{name}"::text' for name in self.key)

    @property
    def statement(self) -> str:
        flips = FLIPS | FAR if self.is_key else FLIPS
        changed = flips[self.kind].format(f'"{self.column}"')
        return f'UPDATE "{self.table}" SET "{self.column}" = {changed} WHERE {self.where}'

    @property
    def row(self) -> str:
        """How its row is named."""
        return f"{self.table} ({', '.join(f'{name} {value}' for name, value in self.key.items())})"


async def columns_of(ledger: AsyncConnection) -> list[tuple[str, str, str]]:
    """Every column of every table of the ledger, with its type."""
    return [(table, column, kind) for table, column, kind in await ledger.execute(text(_COLUMNS))]


async def flip_of(ledger: AsyncConnection, table: str, column: str, kind: str, where: str = "true") -> Flip:
    """One of the rows that have a value there. None is a gap in the history above."""
    key = list(await ledger.scalars(text(_KEY), {"table": table}))
    named = ", ".join(f'"{part}"::text' for part in key)
    present = f"\"{column}\" IS NOT NULL AND \"{column}\"::text NOT IN ('', '{{}}', '[]') AND {where}"
    found = await ledger.execute(text(f'SELECT {named} FROM "{table}" WHERE {present} ORDER BY {named} DESC LIMIT 1'))
    row = found.first()
    assert row is not None, f"no row of {table} has a {column} to change"
    return Flip(table, column, dict(zip(key, row, strict=True)), kind)


async def deep(ledger: AsyncConnection, settings: Settings) -> list[str]:
    """What `verify --deep` finds, without Kafka."""
    found = [check async for check in verify(ledger, deep=True) if not check["ok"]]
    found += [check async for check in stream_checks(ledger, settings) if check["check"] == "outputs_chained"]
    return [check["detail"] for check in found if not check["ok"]]


async def test_a_changed_value_in_any_column_is_found_and_its_row_named(
    kept: Settings, empty_database_url: str
) -> None:
    assert await rebuild_faults(kept, empty_database_url, read_command) == []
    unseen: list[Any] = []
    async with as_on_disk(kept) as ledger, reading(target_of(kept, empty_database_url)) as rebuilt:
        assert await deep(ledger, kept) == []
        compared = await compared_columns(ledger)
        for table, column, kind in await columns_of(ledger):
            if (table, column) in NOT_FOUND or table in CAME_IN:
                continue
            flip = await flip_of(ledger, table, column, kind)
            point = await ledger.begin_nested()
            assert (await ledger.execute(text(flip.statement))).rowcount == 1
            if column in compared.get(table, ()):
                told = await rows_of(ledger, rebuilt, table)
                named = any(line.startswith(flip.row) for line in told)
            else:
                told = await deep(ledger, kept)
                named = any(_names(line, flip) for line in told)
            unseen += [] if named else [(flip, told)]
            await point.rollback()
    assert unseen == [], "\n".join(map(repr, unseen))


def _names(fault: str, flip: Flip) -> bool:
    """Whether a fault says which row it is about: its shard, and where in it; of a key, where it seems to be now."""
    if "shard" not in flip.key:
        return True
    places = {value for name, value in flip.key.items() if name in ("seq", "seq_last", "epoch")}
    if flip.column in ("next_seq", "outputs_from"):
        # Where an epoch begins is told by the first row that is of another one than was published.
        places = set(re.findall(r"seq (\d+)", fault))
    shards = {flip.key["shard"], str(int(flip.key["shard"]) ^ 64)}
    far = {str(int(place) ^ bit) for place in places for bit in (1 << 30, 1 << 10)} if flip.is_key else set()
    words = set(re.findall(r"\d+", fault))
    named = any(re.search(rf"(shard|row) {shard}\b", fault) for shard in shards)
    return named and (not places or bool(words & (places | far)))


async def test_every_table_and_column_has_a_case(kept: Settings) -> None:
    """A column that is new is looked for like any other; one that is listed as not found must be there."""
    async with reading(kept) as ledger:
        columns = {(table, column) for table, column, _ in await columns_of(ledger)}
        compared = {(table, column) for table, names in (await compared_columns(ledger)).items() for column in names}
    assert NOT_FOUND.keys() <= columns
    assert {table for table, _ in columns - compared - NOT_FOUND.keys()} <= {*BY_DEEP}


def test_what_is_not_found_is_said_in_the_guarantees() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guarantees.md").read_text(encoding="utf-8")
    listed = page.partition("| Column | Why |")[2].partition("\n\n")[0]
    columns = [re.findall(r"`(\w+)\.(\w+)`", row.split("|")[1]) for row in listed.splitlines() if row.startswith("| `")]
    assert {place for row in columns for place in row} == NOT_FOUND.keys()


# --- what the journal says came in decides what it gives: changed, something else comes of it -------------------------

SHARDS = 4
CAME_IN = ("events", "dead_letters", "recoveries")


async def came_in(desk: Desk, settings: Settings) -> None:
    """On each shard the same: an event of each end, a dead letter, and a later epoch."""
    for shard in range(SHARDS):
        tenant = f"t{shard}"
        trace = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
        first = payment("p1", 1_000, description="x", tenant=tenant, key="chosen")
        early = refund("r", 7, tenant=tenant, key="early", payment_id="p1")
        waits = refund("waits", 7, tenant=tenant, key="waits", payment_id="never")
        other = payment("p1", 9, tenant=tenant, key="other")
        for documents in (
            [envelope("tenant.create.v1", tenant=tenant, shard=shard)],
            [early | trace],
            [first | trace, other | trace, payment("p3", 9, tenant=tenant), waits | trace],
        ):
            await desk.ledger.apply([desk.event(document) for document in documents], shard=shard)
            desk.now += timedelta(seconds=1)
        fourth = desk.event(payment("p4", 4, tenant=tenant))
        await desk.ledger.apply([fourth], shard=shard, dead_letters=[letter(shard)])
        desk.now += timedelta(seconds=1)
    await new_epochs(settings, renamed=True)
    for shard in range(SHARDS):
        await desk.ledger.apply([desk.event(payment("p5", 5, tenant=f"t{shard}"))], shard=shard)


# Of events that ended otherwise than `applied`: what only those have, and what the others say less about.
ENDED = {
    "rejected": (
        "topic",
        "partition",
        "offset",
        "code",
        "message",
        "event_id",
        "idempotency_key",
        "fingerprint",
        "data",
    ),
    "parked": ("waits_for", "outcome", "source", "type", "recorded_at", "data"),
}
NOT_APPLIED = {"topic", "partition", "offset", "code", "message", "waits_for"}


def ends_of(table: str, column: str) -> list[str]:
    """Conditions for the rows that a value is changed in."""
    if table != "events":
        return [] if (table, column) in NOT_FOUND else ["true"]
    ends = [end for end, columns in ENDED.items() if column in columns]
    return [f"outcome = '{end}'" for end in ([] if column in NOT_APPLIED else ["applied"]) + ends]


@pytest.mark.shards(SHARDS)
async def test_a_changed_value_of_what_came_in_is_found_and_its_row_named(
    lone_desk: Desk, ledger_settings: Settings, stack: RunningStack
) -> None:
    await came_in(lone_desk, ledger_settings)
    unseen: list[Any] = []
    async with as_on_disk(ledger_settings) as ledger:
        await ledger.commit()
        cases = [
            (table, column, kind, end)
            for table, column, kind in await columns_of(ledger)
            if table in CAME_IN
            for end in ends_of(table, column)
        ]
        for at in range(0, len(cases), SHARDS):
            flips = [
                await flip_of(ledger, table, column, kind, f"shard = {shard} AND {end}")
                for shard, (table, column, kind, end) in enumerate(cases[at : at + SHARDS])
            ]
            unseen += await _unseen(ledger, ledger_settings, stack, flips)
    assert unseen == [], "\n".join(map(repr, unseen))


async def _unseen(
    ledger: AsyncConnection, settings: Settings, stack: RunningStack, flips: Sequence[Flip]
) -> list[tuple[Flip, list[str]]]:
    """Change a value on each shard. Which of them nothing names: neither `verify --deep` nor a rebuild."""
    told = await _found(ledger, settings, stack, flips)
    unseen = [flip for flip in flips if not any(_names(fault, flip) for fault in told)]
    if unseen and len(unseen) < len(flips):
        # A rebuild that can't go on on one shard isn't compared on the others.
        told = await _found(ledger, settings, stack, unseen)
        unseen = [flip for flip in unseen if not any(_names(fault, flip) for fault in told)]
    return [(flip, told) for flip in unseen]


async def _found(ledger: AsyncConnection, settings: Settings, stack: RunningStack, flips: Sequence[Flip]) -> list[str]:
    """What is found while these are changed; then they are as they were."""
    taken_back = []
    for flip in flips:
        before = (
            await ledger.execute(text(f'SELECT "{flip.column}"::text FROM "{flip.table}" WHERE {flip.where}'))
        ).one()
        now = (await ledger.execute(text(f"{flip.statement} RETURNING {flip.named}"))).one()
        there = flip._replace(key=dict(zip(flip.key, now, strict=True)))
        back = f'"{flip.column}" = CAST(CAST(:old AS text) AS {flip.kind})'
        taken_back.append((f'UPDATE "{flip.table}" SET {back} WHERE {there.where}', before[0]))
    told = await deep(ledger, settings)
    await ledger.commit()
    async with database(stack, SHARDS) as into:
        told += await rebuild_faults(settings, into, read_command)
    for statement, old in taken_back:
        assert (await ledger.execute(text(statement), {"old": old})).rowcount == 1
    await ledger.commit()
    return told
