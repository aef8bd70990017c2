"""Entries and statements: what is told, in which order, and through which filters."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from consumers.cli_output import as_json
from infra.outbox import TYPE_INDEX, unpack
from infra.postgres import queries
from infra.postgres.queries import EntryDocument, EntryFilter, NotFound, StatementLine
from infra.postgres.reading import reading
from infra.settings import Settings
from tests.fixtures.books import NOON, TENANT, LedgerByHand, ledger_by_hand

HOUR = timedelta(hours=1)


@pytest.fixture
def database_settings(database_url: str, shards: int) -> Settings:
    return replace(Settings(), database_url=database_url, shards=shards)


@pytest.fixture
async def books(database_settings: Settings) -> AsyncIterator[LedgerByHand]:
    async with ledger_by_hand(database_settings) as ledger:
        yield ledger


async def _entries(settings: Settings, **wanted: Any) -> list[EntryDocument]:
    async with reading(settings) as connection:
        return [entry async for entry in queries.list_entries(connection, TENANT, EntryFilter(**wanted))]


async def _statement(settings: Settings, account: str, **wanted: Any) -> list[StatementLine]:
    async with reading(settings) as connection:
        return [line async for line in queries.statement(connection, TENANT, account, **wanted)]


async def _morning(books: LedgerByHand) -> None:
    """Five entries, an hour between them, and one of another tenant."""
    await books.pay("p1", 1_000, fees=30)
    books.now += HOUR
    await books.send(
        "refund.succeeded.v1", refund_id="r1", amount=100, currency="EUR", customer_id="c1", payment_id="p1"
    )
    books.now += HOUR
    transfer = {"transfer_id": "t1", "amount": 500, "currency": "EUR", "customer_id": "c1", "merchant_id": "m1"}
    await books.send("transfer.created.v1", **transfer)
    books.now += HOUR
    await books.send("payout.paid.v1", payout_id="o1", amount=300, currency="EUR", merchant_id="m1")
    books.now += HOUR
    dispute = {"dispute_id": "d1", "amount": 50, "currency": "EUR", "customer_id": "c1", "payment_id": "p1"}
    await books.send("dispute.opened.v1", **dispute)
    await books.pay("p1", 7, tenant="other")


# --- entries --------------------------------------------------------------------------------------------------------


async def test_entries_come_in_the_order_of_the_ledger(books: LedgerByHand, database_settings: Settings) -> None:
    await _morning(books)
    found = await _entries(database_settings)
    assert [entry["kind"] for entry in found] == ["payment", "refund", "transfer", "payout", "dispute_opened"]
    assert [entry["seq"] for entry in found] == sorted(entry["seq"] for entry in found)


async def test_an_entry_reads_as_it_was_published(books: LedgerByHand, database_settings: Settings) -> None:
    await books.pay("p1", 1_000, fees=30, description="Order 5", metadata={"order": "5", "weight": 1.5})
    await books.open("capital", "equity")
    await books.open("reserve", "asset")
    await books.post(("reserve", 10), ("capital", -10))
    (posted,) = await _entries(database_settings, kind="posted")
    await books.send("entry.reverse.v1", entry_id=str(posted["entry_id"]))
    read = [json.loads(as_json(entry)) for entry in await _entries(database_settings)]
    assert read == await _published(books)
    assert len(read) == 3


async def _published(books: LedgerByHand) -> list[Any]:
    bodies = await books.pool.fetch("SELECT body FROM outbox ORDER BY shard, seq_last")
    outputs = [output for row in bodies for output in unpack(row["body"])]
    wanted = TYPE_INDEX["entry.recorded.v1"]
    return [orjson.loads(output.value or b"")["data"] for output in outputs if output.type == wanted]


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [
        ({"payment_id": "p1"}, ["payment", "refund", "dispute_opened"]),
        ({"refund_id": "r1"}, ["refund"]),
        ({"transfer_id": "t1"}, ["transfer"]),
        ({"payout_id": "o1"}, ["payout"]),
        ({"dispute_id": "d1"}, ["dispute_opened"]),
        ({"kind": "payout"}, ["payout"]),
        ({"account": "merchant_settlement:m1"}, ["transfer", "payout"]),
        ({"account": "platform:cash", "kind": "payment"}, ["payment"]),
        ({"after": NOON}, ["refund", "transfer", "payout", "dispute_opened"]),
        ({"before": NOON + 2 * HOUR}, ["payment", "refund"]),
        ({"after": NOON, "before": NOON + 2 * HOUR}, ["refund"]),
        ({"limit": 2}, ["payment", "refund"]),
        ({"payment_id": "unknown"}, []),
    ],
    ids=str,
)
async def test_entries_are_filtered_by(
    books: LedgerByHand, database_settings: Settings, wanted: dict[str, Any], kinds: list[str]
) -> None:
    await _morning(books)
    assert [entry["kind"] for entry in await _entries(database_settings, **wanted)] == kinds


async def test_a_cursor_goes_on_after_the_last_entry_seen(books: LedgerByHand, database_settings: Settings) -> None:
    await _morning(books)
    pages, cursor = [], None
    while page := await _entries(database_settings, limit=2, cursor=cursor):
        pages.append([entry["kind"] for entry in page])
        cursor = page[-1]["entry_id"]
    assert pages == [["payment", "refund"], ["transfer", "payout"], ["dispute_opened"]]


async def test_a_cursor_that_is_no_entry_of_the_tenant_is_refused(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await _morning(books)
    with pytest.raises(NotFound, match="take the last entry_id you saw"):
        await _entries(database_settings, cursor=UUID("12345678-1234-4234-8234-123456789012"))


async def test_an_entry_is_found_by_its_id(books: LedgerByHand, database_settings: Settings) -> None:
    await _morning(books)
    first, *_ = await _entries(database_settings)
    async with reading(database_settings) as connection:
        assert await queries.entry(connection, TENANT, first["entry_id"]) == first


async def test_an_entry_of_another_tenant_is_not_found(books: LedgerByHand, database_settings: Settings) -> None:
    await _morning(books)
    first, *_ = await _entries(database_settings)
    async with reading(database_settings) as connection:
        with pytest.raises(NotFound, match="tenant 'other' has no entry"):
            await queries.entry(connection, "other", first["entry_id"])


# --- statements -----------------------------------------------------------------------------------------------------


def _figures(lines: list[StatementLine]) -> list[tuple[int, int, int]]:
    return [(line["debit"], line["credit"], line["balance"]) for line in lines]


async def test_a_statement_tells_each_posting_and_the_balance_after_it(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await _morning(books)
    lines = await _statement(database_settings, "customer_balance:c1")
    assert _figures(lines) == [(0, 970, 970), (100, 0, 870), (500, 0, 370)]
    assert [line["opposing_account"] for line in lines] == [None, "platform:cash", "merchant_settlement:m1"]


async def test_a_split_entry_has_no_opposing_account(books: LedgerByHand, database_settings: Settings) -> None:
    await _morning(books)
    first, second, *_ = await _statement(database_settings, "platform:cash")
    assert (first["opposing_account"], second["opposing_account"]) == (None, "customer_balance:c1")


async def test_a_statement_from_a_time_begins_with_the_balance_before_it(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await _morning(books)
    lines = await _statement(database_settings, "customer_balance:c1", from_time=NOON + HOUR, to_time=NOON + HOUR)
    assert _figures(lines) == [(100, 0, 870)]


async def test_a_statement_s_last_balance_is_the_balance_at_its_end(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await _morning(books)
    to_time = NOON + 3 * HOUR
    *_, last = await _statement(database_settings, "platform:cash", from_time=NOON, to_time=to_time)
    async with reading(database_settings) as connection:
        (balance,) = await queries.balance(connection, TENANT, "platform:cash", at=to_time)
    assert last["balance"] == balance["posted"] == 600


async def test_a_statement_is_in_the_order_of_what_was_effective(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await books.pay("p1", 100)
    await books.pay("p0", 30, time=datetime(2026, 2, 1, tzinfo=UTC))
    oldest = await _statement(database_settings, "customer_balance:c1")
    youngest = await _statement(database_settings, "customer_balance:c1", order="youngest")
    assert _figures(oldest) == [(0, 30, 30), (0, 100, 130)]
    assert youngest == oldest[::-1]


async def test_a_statement_keeps_a_balance_per_currency(books: LedgerByHand, database_settings: Settings) -> None:
    await books.pay("p1", 100)
    await books.pay("p2", 5, "JPY")
    await books.pay("p3", 10)
    lines = await _statement(database_settings, "platform:cash")
    assert [(line["currency"], line["balance"]) for line in lines] == [("EUR", 100), ("JPY", 5), ("EUR", 110)]
    yen = await _statement(database_settings, "platform:cash", currency="JPY")
    assert [(line["currency"], line["balance"]) for line in yen] == [("JPY", 5)]


async def test_a_recursive_statement_names_the_account_of_each_line(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await books.open("cash", "asset")
    await books.open("cash:bank", "asset", parent="cash")
    await books.open("capital", "equity")
    await books.post(("cash:bank", 10), ("capital", -10))
    await books.post(("cash", 5), ("capital", -5))
    lines = await _statement(database_settings, "cash", recursive=True)
    assert [(line["account"], line["balance"]) for line in lines] == [("cash:bank", 10), ("cash", 15)]
