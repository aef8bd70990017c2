"""Every audit holds on books that the ledger kept, and names the row that somebody changed behind its back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from infra.outbox import frame, pack, unpack
from infra.postgres.queries import NotFound
from infra.postgres.reading import reading
from infra.postgres.verify import OUTBOX_CHECK, Check, audit_names, verify
from infra.settings import Settings
from tests.fixtures.books import TENANT, LedgerByHand, ledger_by_hand

DAY = timedelta(days=1)

# One shard: the statements below name rows by their order.
pytestmark = pytest.mark.shards(1)


@pytest.fixture
def database_settings(database_url: str, shards: int) -> Settings:
    return replace(Settings(), database_url=database_url, shards=shards)


@pytest.fixture
async def books(database_settings: Settings) -> AsyncIterator[LedgerByHand]:
    async with ledger_by_hand(database_settings) as ledger:
        await _keep(ledger)
        yield ledger


async def _keep(books: LedgerByHand) -> None:
    """A bit of everything that money can do."""
    await books.open("reserve", "asset")
    await books.open("reserve:bank", "asset", parent="reserve")
    await books.open("capital", "equity")
    await books.post(("reserve:bank", 5_000), ("capital", -5_000), dispute_id="unrelated")
    await books.post(("reserve:bank", 70), ("reserve:bank", -20), ("capital", -50), currency="CHF")
    await books.pay("p1", 1_000, fees=30, provider="psp")
    await books.pay("p1", 400, capture_id="2", provider="psp")
    await books.pay("p1", 77, provider="other", customer_id="c2")
    await books.pay("tiny", 10, fees=25)
    await books.send("refund.succeeded.v1", refund_id="r0", amount=5, currency="EUR", customer_id="c9")
    await _refund(books, "r1", 300, payment_id="p1", provider="psp")
    await _refund(books, "r2", 200, payment_id="p1", provider="psp")
    await books.send("refund.failed.v1", refund_id="r2", provider="psp")
    await _refund(books, "early", 50, payment_id="p-later")
    await books.pay("p-later", 60)
    await _refund(books, "never", 50, payment_id="p-never")
    await books.send(
        "transfer.created.v1", transfer_id="t1", amount=500, currency="EUR", customer_id="c1", merchant_id="m"
    )
    await books.send("transfer.reversed.v1", transfer_id="t1", reversal_id="a", amount=120)
    await books.send("payout.paid.v1", payout_id="o1", amount=300, currency="EUR", merchant_id="m")
    await books.send("payout.paid.v1", payout_id="o2", amount=80, currency="EUR", merchant_id="m")
    await books.send("payout.failed.v1", payout_id="o2")
    await books.send(
        "dispute.opened.v1", dispute_id="d1", amount=200, currency="EUR", customer_id="c1", payment_id="p1", fees=15,
        provider="psp",
    )  # fmt: skip
    await books.send("dispute.won.v1", dispute_id="d1", amount=80, provider="psp")
    await books.send("dispute.lost.v1", dispute_id="d1", amount=20, provider="psp", charge_to="platform")
    await books.pay("p1", 1_001, fees=30, provider="psp")  # a conflict
    await books.send_record(b"not json")
    books.now += DAY
    await books.pay("p9", 12, tenant="other")


async def _refund(books: LedgerByHand, refund_id: str, amount: int, **data: str) -> None:
    data = {"customer_id": "c1", "currency": "EUR", **data}
    await books.send("refund.succeeded.v1", refund_id=refund_id, amount=amount, **data)


async def _checks(connection: AsyncConnection, tenant: str | None = None, *, deep: bool = False) -> list[Check]:
    return [check async for check in verify(connection, tenant, deep=deep)]


async def test_every_audit_holds_on_kept_books(books: LedgerByHand, database_settings: Settings) -> None:
    async with reading(database_settings) as connection:
        checks = await _checks(connection, deep=True)
    assert [check for check in checks if not check["ok"]] == []
    assert [check["check"] for check in checks] == [*audit_names(), OUTBOX_CHECK]


async def test_every_audit_holds_on_empty_books(database_settings: Settings) -> None:
    async with reading(database_settings) as connection:
        assert [check for check in await _checks(connection, deep=True) if not check["ok"]] == []


async def test_an_unknown_tenant_can_not_be_verified(database_settings: Settings) -> None:
    async with reading(database_settings) as connection:
        with pytest.raises(NotFound):
            await _checks(connection, "nobody")


# What to change so that exactly one rule is broken, and what the fault must name. Where rows lean on one another, all
# that lean on the changed one are changed along.
_LAST_CASH = """(SELECT seq FROM postings p JOIN accounts a USING (shard, account_id)
    WHERE a.name = 'platform:cash' AND a.tenant_id = 'acme' ORDER BY seq DESC LIMIT 1)"""
_TINY = "(SELECT seq FROM entries WHERE payment_id = 'tiny')"
_CASH = "(SELECT account_id FROM accounts WHERE name = 'platform:cash' AND tenant_id = 'acme')"
BREAKS: dict[str, tuple[list[str], str]] = {
    "accounts_treed": (
        [
            "UPDATE accounts SET parent_id = (SELECT account_id FROM accounts WHERE name = 'reserve:bank')"
            " WHERE name = 'reserve'"
        ],
        "is its own ancestor",
    ),
    "balance_days_folded": (
        [f"UPDATE balance_days SET change = change + 1 WHERE account_id = {_CASH}"],
        "platform:cash on 2026-03-02",
    ),
    "balances_folded": (
        [f"UPDATE balances SET posted = posted + 1 WHERE account_id = {_CASH}"],
        "account platform:cash has",
    ),
    "disputes_totalled": (["UPDATE disputes SET held = held + 1"], "dispute d1 has 101 EUR held; its entries give 100"),
    "entries_balanced": (
        [
            f"UPDATE postings SET amount = amount + 3, posted_after = posted_after + 3 WHERE account_id = {_CASH}"
            f" AND seq = {_LAST_CASH}",
            f"UPDATE balances SET posted = posted + 3 WHERE account_id = {_CASH}",
            f"UPDATE balance_days SET change = change + 3 WHERE account_id = {_CASH}",
        ],
        "sums to 3 EUR",
    ),
    "entries_caused": (
        [f"UPDATE entries SET recorded_at = recorded_at + interval '1 s' WHERE seq = {_TINY}"],
        "no applied event",
    ),
    "entries_complete": ([f"UPDATE postings SET leg = 9 WHERE seq = {_TINY} AND leg = 1"], "has 3 postings"),
    "entry_ids": (
        [f"UPDATE entries SET entry_id = '00010000-0000-8000-8000-005000000001' WHERE seq = {_TINY}"],
        "not what its id says",
    ),
    "events_readable": (
        ["UPDATE events SET data = '[]' WHERE type = 'payout.failed.v1'"],
        "said is no JSON object",
    ),
    "events_resumed": (
        ["UPDATE events SET occurred_at = occurred_at + interval '1 us' WHERE resumes IS NOT NULL"],
        "is not the one that was parked at seq",
    ),
    "keys_claimed": (
        [f"DELETE FROM idempotency_keys WHERE seq = {_TINY}"],
        "of shard 0 has no key",
    ),
    "ledger_described": (["UPDATE ledger SET shards = 2"], "made with 2 shards; shard 1 is missing"),
    "lines_expensed": (
        [
            "INSERT INTO lines_of_credit VALUES (0, gen_random_uuid(), gen_random_uuid(), 'acme', 'ghost', 'team', 'r',"
            " 'food', 'EUR', 0, 5, false)"
        ],
        "line of credit ghost has 5 expensed; it began with nothing",
    ),
    "outbox_chained": ([f"DELETE FROM outbox WHERE seq_first = {_TINY}"], "the outbox of shard 0 goes on at seq"),
    "outbox_recorded": (
        ["UPDATE outbox SET recorded_at = recorded_at + interval '1 us' WHERE seq_first = 1"],
        "what is at seq 1 of shard 0 was recorded at",
    ),
    "outputs_counted": (
        [
            "UPDATE events SET outputs = outputs + 1 WHERE seq = (SELECT max(seq) FROM events)",
            "UPDATE shards SET next_seq = next_seq + 1",
            "UPDATE outbox SET seq_last = seq_last + 1 WHERE seq_last = (SELECT max(seq_last) FROM outbox)",
        ],
        "outputs and should have",
    ),
    "parked_arrived": (["UPDATE parked SET arrived = true"], "is marked as free, and what it waits for is not there"),
    "parked_waiting": (["DELETE FROM parked"], "was taken up 0 times, and is not waiting"),
    "payments_totalled": (
        ["UPDATE payments SET captured = captured + 1 WHERE provider = 'other'"],
        "payment p1 of customer c2 has 78 EUR captured and 0 refunded; its entries give 77 and 0",
    ),
    "payouts_totalled": (["UPDATE payouts SET failed = true WHERE payout_id = 'o1'"], "payout o1 is of 300, failed: t"),
    "posted_after_folded": (
        [f"UPDATE postings SET posted_after = posted_after + 1 WHERE seq = {_TINY} AND leg = 0"],
        "leg 0 of entry",
    ),
    "postings_placed": (
        [f"UPDATE postings SET effective_at = effective_at + interval '1 us' WHERE seq = {_TINY} AND leg = 0"],
        "effective at another time",
    ),
    "recorded_in_order": (
        [
            "UPDATE outbox SET recorded_at = recorded_at - interval '1 s'"
            " WHERE seq_first = (SELECT seq FROM dead_letters)",
            "UPDATE dead_letters SET recorded_at = recorded_at - interval '1 s'",
        ],
        "before what it follows",
    ),
    "recoveries_chained": (["UPDATE shards SET epoch = 2"], "shard 0 is of epoch 2; its last recovery began epoch 1"),
    "refunds_totalled": (["UPDATE refunds SET amount = amount + 1 WHERE refund_id = 'r0'"], "refund r0 is of 6"),
    "seqs_gapless": (
        [
            "DELETE FROM idempotency_keys WHERE seq = (SELECT seq FROM dead_letters)",
            "DELETE FROM dead_letters",
        ],
        "shard 0 goes on at seq",
    ),
    "tenants_placed": (
        ["DELETE FROM tenants WHERE tenant_id = 'other'"],
        "tenant other has rows on shard 0; it lives on none",
    ),
    "transfers_totalled": (["UPDATE transfers SET reversed = reversed + 1"], "transfer t1 is of 500 with 121 reversed"),
    "versions_gapless": (
        [f"UPDATE balances SET version = version + 1 WHERE account_id = {_CASH}"],
        "account platform:cash in EUR",
    ),
}  # fmt: skip


async def test_each_audit_and_no_other_names_the_row_that_breaks_its_rule(
    books: LedgerByHand, database_settings: Settings
) -> None:
    found: dict[str, dict[str, str]] = {}
    for name, (statements, _) in BREAKS.items():
        found[name] = {check["check"]: check["detail"] for check in await _broken(database_settings, statements)}
    assert {name: set(faults) for name, faults in found.items()} == {name: {name} for name in audit_names()}
    assert {name: told for name, (_, told) in BREAKS.items() if told not in found[name][name]} == {}


async def _broken(settings: Settings, statements: list[str]) -> list[Check]:
    """The checks that fail after these statements, which are taken back."""
    async with _changing(settings) as connection:
        for statement in statements:
            changed = await connection.execute(text(statement))
            assert changed.rowcount > 0, f"changes nothing: {statement}"
        return [check for check in await _checks(connection) if not check["ok"]]


@asynccontextmanager
async def _changing(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """A connection on which anything can be changed, and all of it is taken back."""
    url = settings.asyncpg_dsn.replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        # Triggers and foreign keys don't fire for a replica: as if somebody had changed the files.
        await connection.execute(text("SET session_replication_role = replica"))
        yield connection
        await connection.rollback()
    await engine.dispose()


async def test_a_deep_proof_names_an_output_that_is_not_what_the_journal_says(
    books: LedgerByHand, database_settings: Settings
) -> None:
    last = await books.pool.fetchrow("SELECT seq_first, seq_last, body FROM outbox ORDER BY seq_last DESC LIMIT 1")
    async with _changing(database_settings) as connection:
        changed = _retold(last["body"])
        await connection.execute(
            text("UPDATE outbox SET body = :body WHERE seq_last = :seq"), {"body": changed, "seq": last["seq_last"]}
        )
        checks = {check["check"]: check for check in await _checks(connection, deep=True)}
    assert not checks[OUTBOX_CHECK]["ok"]
    assert f"at seq {last['seq_first']} is only in the journal" in checks[OUTBOX_CHECK]["detail"]


def _retold(body: bytes) -> bytes:
    """An outbox row whose entry has another id."""
    outputs = list(unpack(body))
    value = outputs[0].value
    assert value is not None
    told = orjson.loads(value)
    told["data"]["entry_id"] = "00010000-0000-8000-8000-000000000000"
    return pack([frame(outputs[0]._replace(value=orjson.dumps(told))), *map(frame, outputs[1:])])


async def test_a_deep_proof_names_an_outbox_row_that_can_not_be_read(
    books: LedgerByHand, database_settings: Settings
) -> None:
    async with _changing(database_settings) as connection:
        await connection.execute(text("UPDATE outbox SET body = 'broken'::bytea WHERE seq_first = 1"))
        (found,) = [check for check in await _checks(connection, deep=True) if not check["ok"]]
    assert found["check"] == OUTBOX_CHECK
    assert "outbox row 0, 1 to 1 can't be read" in found["detail"]


async def test_a_tenant_is_verified_without_the_faults_of_others(
    books: LedgerByHand, database_settings: Settings
) -> None:
    async with _changing(database_settings) as connection:
        await connection.execute(text(f"UPDATE balances SET posted = posted + 1 WHERE account_id = {_CASH}"))
        acme = [check["check"] for check in await _checks(connection, TENANT) if not check["ok"]]
        other = [check["check"] for check in await _checks(connection, "other") if not check["ok"]]
    assert (acme, other) == (["balances_folded"], [])
