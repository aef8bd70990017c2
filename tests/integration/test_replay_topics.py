"""`ledgerstream replay topics`: what is known stays as it is, what was missed is applied, a dry run changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from consumers.cli import cli
from infra.kafka.topics import ensure_topics
from infra.settings import Settings
from tests.fixtures.ledger import Raw, RunningLedger
from tests.fixtures.programs import environment_of
from tests.fixtures.traffic import Sent, payment, publish

NOT_AN_EVENT = Sent("payouts", b"acme", b"not an event", "")


async def replay(settings: Settings, *arguments: str) -> Result:
    """In a thread: the command has a loop of its own."""
    command = ["replay", "topics", *arguments, "--json"]
    return await asyncio.to_thread(lambda: CliRunner().invoke(cli, command, env=environment_of(settings)))


def counted(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    return {name: document[name] for name in ("applied", "duplicates", "rejected", "parked", "dead_letters")}


@pytest.fixture
async def books(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    await ensure_topics(settings, connection)
    yield connection
    await connection.close()


async def state(books: asyncpg.Connection) -> dict[str, Any]:
    """What a replay of known records must leave alone."""
    return {
        table: [tuple(row) for row in await books.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3")]
        for table in ("shards", "input_offsets", "balances", "dead_letters", "idempotency_keys")
    }


async def test_what_the_books_know_is_a_duplicate_and_nothing_moves(
    running_ledger: RunningLedger, settings: Settings, books: asyncpg.Connection
) -> None:
    data = {"payment_id": "p1", "amount": 1_000, "currency": "EUR", "customer_id": "c1"}
    paid = running_ledger.event("payment.captured.v1", data)
    data = {"refund_id": "r1", "amount": 5_000, "currency": "EUR", "customer_id": "c1", "payment_id": "p1"}
    refused = running_ledger.event("refund.succeeded.v1", data)
    data = {"refund_id": "r2", "amount": 1, "currency": "EUR", "customer_id": "c1", "payment_id": "nowhere"}
    parked = running_ledger.event("refund.succeeded.v1", data, tenant="globex")
    await running_ledger.publish(paid, refused, parked)
    await running_ledger.publish_raw([Raw("payouts", b"not an event"), Raw("payouts", b"{}", b"k")])
    await running_ledger.wait_until_drained()
    before = await state(books)
    result = await replay(settings, "--from-beginning")
    assert result.exit_code == 0, result.output
    assert counted(result) == {"applied": 0, "duplicates": 5, "rejected": 0, "parked": 0, "dead_letters": 0}
    dry = await replay(settings, "--from-beginning", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert json.loads(dry.stdout)["accounts"] == json.loads(dry.stdout)["entries"] == []
    assert await state(books) == before


async def test_a_dry_run_says_what_would_change_and_the_replay_changes_it(
    settings: Settings, books: asyncpg.Connection
) -> None:
    await publish(settings, [payment(1), payment(2, tenant="globex"), NOT_AN_EVENT])
    untouched = await state(books)
    dry = await replay(settings, "--from-beginning", "--dry-run")
    assert dry.exit_code == 1, dry.output
    would = json.loads(dry.stdout)
    assert counted(dry) == {"applied": 2, "duplicates": 0, "rejected": 0, "parked": 0, "dead_letters": 1}
    assert [(each["tenant"], each["account"], each["posted_before"], each["posted"]) for each in would["accounts"]] == [
        (tenant, account, 0, posted)
        for tenant in ("acme", "globex")
        for account, posted in (("customer_balance:c1", -970), ("platform:cash", 1_000), ("platform:fees", -30))
    ]
    assert sorted((each["tenant"], each["kind"], each["references"]["payment_id"]) for each in would["entries"]) == [
        ("acme", "payment", "p1"),
        ("globex", "payment", "p2"),
    ]
    assert await state(books) == untouched
    scratch = "SELECT count(*) FROM pg_database WHERE datname LIKE 'ledgerstream_scratch_%'"
    assert await books.fetchval(scratch) == 0
    done = await replay(settings, "--from-beginning")
    assert (done.exit_code, counted(done)) == (0, counted(dry))
    assert await books.fetchval("SELECT count(*) FROM input_offsets") == 0
    assert await books.fetchval("SELECT count(*) FROM dead_letters") == 1


async def test_only_what_was_asked_for_is_read_again(settings: Settings, books: asyncpg.Connection) -> None:
    await publish(settings, [payment(number) for number in range(4)])
    await publish(settings, [payment(9, tenant="globex"), NOT_AN_EVENT])
    by_tenant = await replay(settings, "--from-beginning", "--tenant", "globex")
    assert counted(by_tenant) == {"applied": 1, "duplicates": 0, "rejected": 0, "parked": 0, "dead_letters": 0}
    by_type = await replay(settings, "--from-beginning", "--type", "refund.succeeded.v1")
    assert not any(counted(by_type).values())
    topics = [f"payments:{shard}:0" for shard in range(settings.shards)]
    offsets = [part for topic in topics for part in ("--from-offset", topic)]
    by_offset = await replay(settings, *offsets)
    assert counted(by_offset) == {"applied": 4, "duplicates": 1, "rejected": 0, "parked": 0, "dead_letters": 0}
    later = await replay(settings, "--from", "2199-01-01T00:00:00Z")
    assert not any(counted(later).values())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say where to begin"),
        (["--from-beginning", "--from", "2026-01-01T00:00:00Z"], "say where to begin"),
        (["--from-offset", "payments:1"], "is not TOPIC:PARTITION:OFFSET"),
        (["--from-offset", "nothing:0:1"], "is no partition of an input topic"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    settings: Settings, books: asyncpg.Connection, arguments: list[str], told: str
) -> None:
    result = await replay(settings, *arguments)
    assert (result.exit_code, told in result.output) == (2, True), result.output
