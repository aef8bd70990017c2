"""`explain` tells of an entry, or of an account, where it came from and what was said of it."""

from __future__ import annotations

import json
import sys
from asyncio import create_subprocess_exec, subprocess

import asyncpg
import pytest

from infra.postgres.queries_explained import explain_account, explain_entry
from infra.postgres.reading import reading
from infra.settings import Settings
from tests.fixtures.books import TENANT, LedgerByHand, ledger_by_hand

pytestmark = pytest.mark.shards(1)


async def _entry_of(books: LedgerByHand, payment_id: str, kind: str = "payment") -> asyncpg.Record:
    return await books.pool.fetchrow("SELECT * FROM entries WHERE payment_id = $1 AND kind = $2", payment_id, kind)


async def test_an_entry_is_told_from_its_place_in_kafka_to_its_outputs(ledger_settings: Settings) -> None:
    async with ledger_by_hand(ledger_settings) as books:
        await books.pay("p0", 5)
        await books.pay("p1", 1_000, fees=30)
        row = await _entry_of(books, "p1")
        await books.pool.execute("INSERT INTO relayed (shard, seq) VALUES (0, $1)", row["seq"])
        async with reading(ledger_settings) as connection:
            found = await explain_entry(connection, TENANT, row["entry_id"])
    event = found["event"]
    assert (event["type"], event["id"]) == ("payment.captured.v1", "evt-3")
    assert (event["topic"], event["partition"], event["offset"]) == ("ledger.payments", 0, 4)
    assert event["data"]["payment_id"] == "p1"
    assert sum(leg["amount"] for leg in found["entry"]["postings"]) == 0
    assert [(output["id"], output["topic"], output["published"]) for output in found["outputs"]] == [
        ("1-0-4", "entries", True),
        *((f"1-0-{seq}", "balances", False) for seq in (5, 6, 7)),
    ]


async def test_an_entry_that_waited_says_for_what_and_one_without_outbox_says_so(ledger_settings: Settings) -> None:
    async with ledger_by_hand(ledger_settings) as books:
        refund = {"refund_id": "r1", "amount": 5, "currency": "EUR", "customer_id": "c1", "payment_id": "late"}
        await books.send("refund.succeeded.v1", **refund)
        await books.pay("late", 60)
        row = await _entry_of(books, "late", "refund")
        async with reading(ledger_settings) as connection:
            found = await explain_entry(connection, TENANT, row["entry_id"])
        owner = await asyncpg.connect(ledger_settings.asyncpg_dsn)
        await owner.execute("DELETE FROM outbox")
        await owner.close()
        async with reading(ledger_settings) as connection:
            forgotten = await explain_entry(connection, TENANT, row["entry_id"])
    parked = found["event"].get("parked")
    assert parked is not None
    assert (parked["seq"], parked["code"]) == (1, "payment_not_found")
    assert {output["topic"] for output in found["outputs"]} == {"entries", "balances"}
    assert [output["topic"] for output in forgotten["outputs"]] == [None] * len(found["outputs"])


async def test_an_account_is_told_by_its_last_entries_the_latest_first(ledger_settings: Settings) -> None:
    async with ledger_by_hand(ledger_settings) as books:
        for number in range(4):
            await books.pay(f"p{number}", 100 + number)
        await books.open("a", "asset")
        await books.post(("a", 5), ("a", 6), ("a", 7), ("customer_balance:c1", -18))
        async with reading(ledger_settings) as connection:
            found = await explain_account(connection, TENANT, "customer_balance:c1", limit=3)
            several = await explain_account(connection, TENANT, "a", limit=2)
    kinds = [(each["entry"]["kind"], each["entry"]["references"].get("payment_id")) for each in found["entries"]]
    assert kinds == [("posted", None), ("payment", "p3"), ("payment", "p2")]
    assert found["more"]
    assert [line["posted"] for line in found["balances"]] == [-406 - 18]
    assert (len(several["entries"]), several["more"]) == (1, False)


async def test_people_get_tables_and_programs_json(ledger_settings: Settings) -> None:
    async with ledger_by_hand(ledger_settings) as books:
        await books.pay("p1", 1_000)
        row = await _entry_of(books, "p1")
    code, shown = await _run(ledger_settings, str(row["entry_id"]))
    assert code == 0
    assert "read from   ledger.payments[0] offset" in shown
    assert "ledger.entries[0]" in shown
    code, shown = await _run(ledger_settings, "customer_balance:c1")
    assert (code, "payment.captured.v1" in shown, "10.00" in shown) == (0, True, True)
    code, shown = await _run(ledger_settings, "customer_balance:c1", "--json")
    assert json.loads(shown)["entries"][0]["entry"]["references"] == {"payment_id": "p1"}
    code, shown = await _run(ledger_settings, "00010000-0000-8000-8000-000000000001")
    assert (code, "has no entry" in shown) == (1, True)


async def _run(settings: Settings, *arguments: str) -> tuple[int, str]:
    process = await create_subprocess_exec(
        sys.executable, "-m", "consumers.cli", "explain", *arguments, "--tenant", TENANT,
        env={"LEDGER_DATABASE_URL": settings.need_database_url(), "LEDGER_SHARDS": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()
