"""A bank's own ledger of 20,000 transactions through Kafka, twice, held against the bank's own figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from random import Random
from typing import Any

import orjson
import pytest
from aiokafka import ConsumerRecord

from infra.kafka.partitioner import partition_of
from infra.postgres import queries
from infra.postgres.queries import EntryFilter
from infra.postgres.reading import reading
from infra.postgres.verify import verify
from tests.fixtures.bank import TENANT, Row, bank_rows, by_account
from tests.fixtures.ledger import RunningLedger
from tests.fixtures.subscriber import assert_once_and_in_order

pytestmark = pytest.mark.timeout(300)

OUTPUTS = ("balances", "entries", "outcomes", "decisions", "dead-letters")
DAYS_ASKED = 25


async def test_a_banks_ledger_sent_twice_is_right_to_the_haler(running_ledger: RunningLedger) -> None:
    rows = bank_rows()
    await running_ledger.publish(*(row.event("first") for row in rows))
    await running_ledger.wait_until_drained(120)
    shuffled = list(rows)
    Random(1993).shuffle(shuffled)
    await running_ledger.publish(*(row.event("second") for row in shuffled))
    await running_ledger.wait_until_drained(120)

    await _the_books_are_the_banks(running_ledger, rows)
    outputs = await running_ledger.outputs(*OUTPUTS)
    entries = _each_output_is_there_once(outputs, running_ledger, rows)
    _printed_balances_chain(entries, rows)


async def _the_books_are_the_banks(ledger: RunningLedger, rows: list[Row]) -> None:
    """Sums per account, the bank's total, the number of entries, balances in the past, and every audit."""
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row.account] += row.amount
    async with reading(ledger.settings) as books:
        lines, totals = await queries.trial_balance(books, TENANT)
        assert totals == [{"currency": "CZK", "total": 0}]
        cash = [line["posted"] for line in lines if line["account"] == "platform:cash"]
        assert cash == [sum(row.amount for row in rows)] == [33_476_516_80]
        found: Counter[str] = Counter()
        for line in lines:
            if line["account"] != "platform:cash":
                found[line["account"].partition(":")[2]] -= line["posted"]
        assert found == sums
        assert len(sums) == 986
        assert sum([1 async for _ in queries.list_entries(books, TENANT, EntryFilter())]) == len(rows) == 20_000
        for row in _unbroken(rows)[:: len(rows) // 2 // DAYS_ASKED]:
            assert await _balance_at(books, row) == row.printed
        assert [check async for check in verify(books, deep=True) if not check["ok"]] == []


async def _balance_at(books: Any, row: Row) -> int:
    """What the account had right after the row, from both of the accounts that it is in our books."""
    natural = 0
    for kind in ("customer_balance", "merchant_settlement"):
        try:
            lines = await queries.balance(books, TENANT, f"{kind}:{row.account}", at=row.time)
        except queries.NotFound:
            continue
        natural -= sum(line["posted"] for line in lines)
    return natural


def _each_output_is_there_once(
    outputs: Iterable[ConsumerRecord], ledger: RunningLedger, rows: list[Row]
) -> list[dict[str, Any]]:
    """One entry and two balances a row, no gap, nothing twice, nothing else; the entries."""
    outputs = list(outputs)
    shard = partition_of(TENANT.encode(), ledger.settings.shards)
    assert_once_and_in_order(outputs, epoch=1, shard=shard, seq_last=3 * len(rows))
    assert len(outputs) == 3 * len(rows)
    entries = [
        orjson.loads(record.value)["data"] for record in outputs if record.topic == ledger.settings.topic("entries")
    ]
    named = Counter(next(iter(entry["references"].values())) for entry in entries)
    assert named == Counter(row.number for row in rows)
    return entries


def _printed_balances_chain(entries: Iterable[dict[str, Any]], rows: list[Row]) -> None:
    """Where the printed balance chains to the one before, what was published moves the account by as much."""
    moved = {
        next(iter(entry["references"].values())): -entry["postings"][side]["amount"]
        for entry in entries
        for side in [0 if entry["kind"] == "payout" else 1]
    }
    chained = unbroken = 0
    for account in by_account(rows).values():
        printed = balance = 0
        for row in account:
            balance += moved[row.number]
            if printed + row.amount == row.printed:
                chained += 1
                assert printed + moved[row.number] == row.printed
            unbroken += balance == row.printed
            printed = row.printed
    assert chained >= len(rows) * 0.94
    assert unbroken >= len(_unbroken(rows))


def _unbroken(rows: list[Row]) -> list[Row]:
    """The rows whose printed balance chains back to their account's first."""
    found: list[Row] = []
    balances: defaultdict[str, int] = defaultdict(int)
    broken: set[str] = set()
    for row in sorted(rows, key=lambda row: row.time):
        balances[row.account] += row.amount
        if balances[row.account] != row.printed:
            broken.add(row.account)
        if row.account not in broken:
            found.append(row)
    return found
