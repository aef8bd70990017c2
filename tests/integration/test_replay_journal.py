"""A ledger built again from its journal is the same, byte for byte; what doesn't fit is found and named."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from consumers.translate import read_command
from infra.devstack import RunningStack
from infra.faultpoints import VARIABLE
from infra.journal import JournalDifferenceError
from infra.rebuild import finish, prepare
from infra.rebuild_shard import rebuild_shard
from infra.records import DeadLetter, InputRecord
from infra.recover_outbox import move_outputs
from infra.settings import Settings
from tests.coherence import assert_coherent
from tests.fixtures.cards import OWNER
from tests.fixtures.desk import TOPIC_ID, Desk, again, envelope, lone_desk, payment, post, refund
from tests.fixtures.programs import _MAIN, environment_of
from tests.integration.test_cards import LINES, asked, later, opened

__all__ = ["lone_desk"]

TENANTS = ("acme", "globex", "initech", "umbrella")


@pytest.fixture
async def into(empty_database_url: str) -> AsyncIterator[str]:
    yield empty_database_url


def letter(number: int) -> DeadLetter:
    headers = (("ce_type", b"x"), ("odd", None), ("bytes", b"\xff\x00"))
    record = InputRecord("ledger.payments", TOPIC_ID, 0, 10_000 + number, 77, b"k", b"{no", headers)
    return DeadLetter(record, "malformed", "is no JSON")


async def history(desk: Desk, settings: Settings) -> None:
    """Something of everything: parking in levels, conflicts, refusals, dead letters, expiry, later epochs."""
    for number, tenant in enumerate(TENANTS):
        first = payment(f"p{number}", 1_000, tenant=tenant, description="Grüße ÷ 'quoted'")
        failed = envelope("refund.failed.v1", tenant=tenant, refund_id=f"r{number}")
        early = refund(f"r{number}", 10, tenant=tenant, payment_id=f"p{number}")
        await desk.apply(failed, early, refund(f"never{number}", 5, tenant=tenant, payment_id="never"))
        await desk.apply(post(("a", 5), ("b", -5), tenant=tenant), again(failed, id="same-again"))
        desk.now += timedelta(seconds=1)
        await desk.apply(first, again(first, amount=9), again(first), post(("a", 5), ("b", -4), tenant=tenant))
        await desk.apply(
            envelope("account.create.v1", tenant=tenant, name="shop", type="asset", floor=0),
            envelope("account.create.v1", tenant=tenant, name="shop", type="equity"),
            post(("shop", -5), ("b", 5), tenant=tenant),
            envelope("account.update.v1", tenant=tenant, name="shop", description="the shop", floor=None),
            envelope("period.close.v1", tenant=tenant, through="2026-02-01"),
        )
        desk.now += timedelta(seconds=1)
    await desk.swap([payment("q", 7), payment("q2", 8)], None, [letter(1), letter(2)])
    await desk.swap([payment("q3", 7)], None, [letter(3)])
    await new_epochs(settings, renamed=True)
    await desk.apply(*(payment(f"z{number}", tenant=tenant) for number in range(5) for tenant in TENANTS))
    desk.now += timedelta(days=2)
    for shard in range(desk.rules.shards):
        await desk.ledger.expire_parked(shard)
    late = [refund(f"never{number}", 5, tenant=tenant) for number, tenant in enumerate(TENANTS)]
    await desk.apply(*late, refund("waits", 1, payment_id="on its way"))
    await new_epochs(settings, renamed=False)


async def new_epochs(settings: Settings, *, renamed: bool) -> None:
    """As `recover` does: the last batch of each shard goes out under the new epoch, or only what comes after it."""
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        for row in await connection.fetch("SELECT * FROM shards"):
            shard, epoch, last = row["shard"], row["epoch"] + 1, row["next_seq"] - 1
            kept = await connection.fetch(
                "SELECT seq_last, head_hash, recorded_at FROM outbox WHERE shard = $1 ORDER BY seq_last DESC LIMIT 2",
                shard,
            )
            after, head, recorded_at = last, row["head_hash"], row["last_recorded_at"]
            if renamed and kept:
                after, head, recorded_at = kept[1].values()
            end = await move_outputs(connection, shard, after, head, epoch, last)
            await connection.execute("UPDATE shards SET epoch = $2, head_hash = $3 WHERE shard = $1", shard, epoch, end)
            await connection.execute(
                "INSERT INTO recoveries VALUES ($1, $2, $3, $4, $5, $6, 1, 1, 0, true, now())",
                shard,
                epoch,
                last + 1,
                after + 1,
                head,
                recorded_at,
            )
    finally:
        await connection.close()


async def rebuild(desk: Desk, settings: Settings, into: str) -> dict[str, bool]:
    plan = await prepare(settings, into)
    for shard in plan.until:
        await rebuild_shard(settings, into, plan, desk.rules, read_command, shard)
    return await finish(settings, into, plan)


TOGETHER = {
    "all that was recorded in one transaction": {},
    "a few batches in one": {"infra.journal_runs.PAGE_ROWS": 11},
    "each table by COPY": {"infra.postgres.writes.TOGETHER_ROWS_MAX": 0},
}
"""How much is one database transaction, and how it is written: so few rows would always go in one statement."""


@pytest.fixture(params=TOGETHER)
def together(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each of these ways, of the ledger that is rebuilt; what was recorded is the same in all of them."""
    for name, value in TOGETHER[request.param].items():
        monkeypatch.setattr(name, value)
    yield


@pytest.mark.usefixtures("together")
async def test_the_rebuilt_ledger_is_the_same(
    lone_desk: Desk, ledger_settings: Settings, into: str, caplog: pytest.LogCaptureFixture
) -> None:
    await history(lone_desk, ledger_settings)
    with caplog.at_level(logging.INFO, "infra.journal"):
        same = await rebuild(lone_desk, ledger_settings, into)
    # Nothing had to be gone through batch by batch.
    assert not caplog.records
    assert set(same.values()) == {True}
    assert {"events", "entries", "balances", "parked", "idempotency_keys", "recoveries", "shards"} <= same.keys()
    connection = await asyncpg.connect(into)
    try:
        await assert_coherent(connection)
        theirs = await connection.fetch("SELECT shard, seq_last, epoch, head_hash, body FROM outbox ORDER BY 1, 2")
        ours = await lone_desk.pool.fetch("SELECT shard, seq_last, epoch, head_hash, body FROM outbox ORDER BY 1, 2")
        assert theirs == ours
    finally:
        await connection.close()
    # Nothing is left to do, and doing it again changes nothing.
    assert await rebuild(lone_desk, ledger_settings, into) == same


@pytest.mark.usefixtures("together")
async def test_card_payments_are_rebuilt_from_what_the_resolvers_answered_then(
    lone_desk: Desk, ledger_settings: Settings, into: str
) -> None:
    ends = (lone_desk.now + timedelta(days=1)).isoformat()
    held: dict[str, Any] = {"account": "wallet", "amount": 100, "currency": "EUR", "direction": "out"}
    for document in (
        *opened(),
        asked("x1", account="wallet"),
        asked("x2", 500),
        asked("x3", 5, advice=True),
        later("captured", "x1", amount=70),
        later("refunded", "x1", amount=20),
        later("released", "x4", reason="cancelled"),
        later("confirmed", "x5"),
        asked("ends", 10, expires_at=ends),
        envelope("hold.created.v1", hold_id="h1", expires_at=ends, **held),
        envelope("hold.created.v1", hold_id="h2", **held),
        envelope("hold.captured.v1", hold_id="h2", amount=30),
        envelope("hold.voided.v1", hold_id="h2"),
    ):
        await lone_desk.apply(document)
    # An owner's line ends and another begins.
    line = {"owner_type": "employee", "owner_ref": OWNER, "currency": "EUR", "credits_limit": 9}
    line["expense_category"], ended = next(iter(LINES.items()))
    await lone_desk.apply(envelope("line_of_credit.terminate.v1", line_of_credit_id=ended))
    await lone_desk.apply(envelope("line_of_credit.create.v1", line_of_credit_id="other", **line))
    # The data that the resolvers read are others by now.
    await lone_desk.apply(envelope("card.unassign.v1", card_id="c1", owner_type="employee", owner_ref=OWNER))
    lone_desk.now += timedelta(days=2)
    assert await lone_desk.ledger.expire_holds(await lone_desk.shard()) > 0
    same = await rebuild(lone_desk, ledger_settings, into)
    assert {"holds", "authorizations", "lines_of_credit"} <= same.keys()


@pytest.mark.shards(1)
async def test_what_was_decided_otherwise_in_a_batch_of_its_own_is_gone_through_batch_by_batch(
    lone_desk: Desk, ledger_settings: Settings, into: str, caplog: pytest.LogCaptureFixture
) -> None:
    await lone_desk.apply(payment("p1", 1_000))
    lone_desk.now += timedelta(seconds=1)
    entry_id = (await lone_desk.entries())[-1]["entry_id"]
    # Together with the payment it would know of no such entry.
    await lone_desk.apply(envelope("entry.reverse.v1", entry_id=entry_id), payment("p2", 5, capture_id="a"))
    lone_desk.now += timedelta(seconds=1)
    await lone_desk.apply(payment("p2", 6, capture_id="b"), refund("r", 11, payment_id="p2"))
    with caplog.at_level(logging.INFO, "infra.journal"):
        await rebuild(lone_desk, ledger_settings, into)
    assert ["batch by batch" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.shards(1)
@pytest.mark.parametrize("parts", [("a", "b"), ("a", None)], ids=["each says which", "the last doesn't say which"])
async def test_a_payment_captured_in_parts_long_after_one_another_is_one(
    lone_desk: Desk,
    ledger_settings: Settings,
    into: str,
    parts: tuple[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("infra.journal_runs.PAGE_ROWS", 1)
    monkeypatch.setattr("infra.postgres.writes.TOGETHER_ROWS_MAX", 0)
    for part in parts:
        await lone_desk.apply(payment("p", 5, **({} if part is None else {"capture_id": part})))
        lone_desk.now += timedelta(seconds=1)
    await rebuild(lone_desk, ledger_settings, into)
    connection = await asyncpg.connect(into)
    try:
        assert await connection.fetchval("SELECT captured FROM payments") == 10
    finally:
        await connection.close()


@pytest.mark.shards(1)
async def test_a_difference_in_the_middle_is_named_and_all_before_its_batch_is_kept(
    lone_desk: Desk, ledger_settings: Settings, into: str
) -> None:
    for number in range(6):
        await lone_desk.apply(payment(f"p{number}", 1_000, description="as it was"), payment(f"q{number}"))
        lone_desk.now += timedelta(seconds=1)
    source = await asyncpg.connect(ledger_settings.asyncpg_dsn)
    try:
        begins = await source.fetchval("SELECT seq FROM events WHERE data LIKE '%\"p3\"%'")
        bad = await source.fetchval("SELECT seq FROM events WHERE data LIKE '%\"q3\"%'")
        await source.execute("ALTER TABLE events DISABLE TRIGGER USER")
        await source.execute("UPDATE events SET outputs = outputs + 1 WHERE seq = $1", bad)
    finally:
        await source.close()
    with pytest.raises(JournalDifferenceError, match=rf"events \(shard 0, seq {bad}\): .*: outputs is recorded as 4"):
        await rebuild(lone_desk, ledger_settings, into)
    connection = await asyncpg.connect(into)
    try:
        assert await connection.fetchval("SELECT next_seq FROM shards") == begins
        assert await connection.fetchval("SELECT count(*) FROM events") == 6
        await assert_coherent(connection)
    finally:
        await connection.close()


@pytest.mark.parametrize("point", ["journal.committed:3", "journal.run:12"])
async def test_a_rebuild_that_was_killed_goes_on(
    lone_desk: Desk, ledger_settings: Settings, into: str, point: str
) -> None:
    await history(lone_desk, ledger_settings)
    killed = await program(ledger_settings, into, die_at=point)
    assert killed == -signal.SIGKILL
    connection = await asyncpg.connect(into)
    try:
        assert await connection.fetchval("SELECT count(*) FROM events") > 0
        await assert_coherent(connection)
    finally:
        await connection.close()
    assert await program(ledger_settings, into) == 0


async def program(settings: Settings, into: str, *, die_at: str = "") -> int:
    command = [sys.executable, "-c", _MAIN, "replay", "journal", "--processes", "1", "--into", into]
    process = await asyncio.create_subprocess_exec(*command, env=environment_of(settings) | {VARIABLE: die_at})
    async with asyncio.timeout(60):
        return await process.wait()


FLIPPED = {
    "what an event said": ("events", "data = replace(data, '\"amount\":1000', '\"amount\":1001')", "fingerprint"),
    "free text of an event": (
        "events",
        "data = replace(data, 'quoted', 'quotee')",
        "the output at seq 1 is not the one",
    ),
    "an event's source": (
        "events",
        "source = 'psq' WHERE code = 'idempotency_conflict'",
        "is not the one that was published",
    ),
    "an entry": ("entries", "description = 'Gruße' WHERE description LIKE 'Gr%'", "differs in entries"),
    "a posting": ("postings", "posted_after = posted_after + 1 WHERE leg = 0", "differs in postings"),
    "a balance": ("balances", "posted = posted + 1", "differs in balances"),
    "a key": ("idempotency_keys", "fingerprint = fingerprint # 1", "differs in idempotency_keys"),
    "a dead letter": ("dead_letters", "value = '\\x7b6e70'", "dead_letters .* is not the one"),
}


@pytest.mark.parametrize("case", FLIPPED)
@pytest.mark.shards(1)
async def test_one_flipped_byte_is_found(
    lone_desk: Desk, ledger_settings: Settings, into: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that it is found while what follows is being fetched.
    monkeypatch.setattr("infra.journal_runs.PAGE_ROWS", 1)
    await lone_desk.apply(payment("p1", 1_000, description="Grüße quoted"), again(payment("p2"), id="x", amount=5))
    await lone_desk.apply(again(payment("p1", 2_000), id="y"))
    await lone_desk.swap([], None, [letter(1)])
    table, change, said = FLIPPED[case]
    connection = await asyncpg.connect(ledger_settings.asyncpg_dsn)
    try:
        await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        assert await connection.execute(f"UPDATE {table} SET {change}") != "UPDATE 0"
    finally:
        await connection.close()
    with pytest.raises(JournalDifferenceError, match=str(said)):
        await rebuild(lone_desk, ledger_settings, into)


async def test_another_ledgers_database_is_left_alone(
    lone_desk: Desk, ledger_settings: Settings, stack: RunningStack
) -> None:
    from tests.fixtures.database import database
    from tests.fixtures.desk import desk_on

    async with database(stack, ledger_settings.shards) as other:
        others = replace(ledger_settings, database_url=other)
        async with desk_on(others) as desk:
            await desk.apply(payment("p1"))
        with pytest.raises(Exception, match="has another ledger in it"):
            await prepare(ledger_settings, other)
