"""Balances: now, in the past, as they were known, and with what is below."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from infra.postgres import queries
from infra.postgres.queries import NotFound
from infra.postgres.reading import reading
from infra.settings import Settings
from tests.fixtures.books import NOON, TENANT, LedgerByHand, ledger_by_hand

SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)


@pytest.fixture
def database_settings(database_url: str, shards: int) -> Settings:
    return replace(Settings(), database_url=database_url, shards=shards)


@pytest.fixture
async def books(database_settings: Settings) -> AsyncIterator[LedgerByHand]:
    async with ledger_by_hand(database_settings) as ledger:
        yield ledger


async def _posted(settings: Settings, account: str, **wanted: object) -> dict[str, int]:
    async with reading(settings) as connection:
        lines = await queries.balance(connection, TENANT, account, **wanted)  # type: ignore[arg-type]
    return {line["currency"]: line["posted"] for line in lines}


async def test_a_balance_has_a_line_per_currency(books: LedgerByHand, database_settings: Settings) -> None:
    await books.pay("p1", 1_000, fees=30)
    await books.pay("p2", 500, "JPY")
    async with reading(database_settings) as connection:
        lines = await queries.balance(connection, TENANT, "customer_balance:c1")
    euros, yen = lines
    assert (euros["currency"], euros["posted"], euros["available"], euros["version"]) == ("EUR", -970, 970, 1)
    assert (yen["currency"], yen["posted"], yen["available"], yen["held"], yen["pending"]) == ("JPY", -500, 500, 0, 0)
    assert euros["updated_at"] == NOON
    assert euros["type"] == "liability"


async def test_a_balance_can_be_of_one_currency(books: LedgerByHand, database_settings: Settings) -> None:
    await books.pay("p1", 1_000)
    await books.pay("p2", 500, "JPY")
    assert await _posted(database_settings, "platform:cash", currency="JPY") == {"JPY": 500}


async def test_an_asked_for_currency_without_postings_is_zero(books: LedgerByHand, database_settings: Settings) -> None:
    await books.pay("p1", 1_000)
    assert await _posted(database_settings, "platform:cash", currency="CHF") == {"CHF": 0}


async def test_an_account_without_postings_has_no_lines_but_its_own_currency(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await books.open("reserve", "asset")
    await books.open("reserve:eur", "asset", currency="EUR")
    assert await _posted(database_settings, "reserve") == {}
    assert await _posted(database_settings, "reserve:eur") == {"EUR": 0}


async def test_an_unknown_account_is_not_found(books: LedgerByHand, database_settings: Settings) -> None:
    await books.pay("p1", 1_000)
    with pytest.raises(NotFound, match="tenant 'acme' has no account 'nobody'"):
        await _posted(database_settings, "nobody")


async def test_an_unknown_tenant_is_not_found(database_settings: Settings) -> None:
    with pytest.raises(NotFound, match="no tenant 'acme'"):
        await _posted(database_settings, "platform:cash")


# --- the past -------------------------------------------------------------------------------------------------------


async def _three_days(books: LedgerByHand) -> None:
    """1, 10 and 100 on three days at noon and 1,000 on the second day's last microsecond, sent in this order.

    The last comes on the fourth day, so it is known late.
    """
    for number, amount in enumerate((1, 10, 100)):
        books.now = NOON + number * DAY
        await books.pay(f"p{number}", amount)
    books.now = NOON + 3 * DAY
    await books.pay("late", 1_000, time=datetime(2026, 3, 3, 23, 59, 59, 999_999, tzinfo=UTC))


async def test_a_balance_at_a_time_is_of_what_was_effective_then_or_before(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await _three_days(books)
    expected = {
        NOON - MICROSECOND: 0,
        NOON: 1,
        NOON + DAY - MICROSECOND: 1,
        NOON + DAY: 11,
        datetime(2026, 3, 3, 23, 59, 59, 999_998, tzinfo=UTC): 11,
        datetime(2026, 3, 3, 23, 59, 59, 999_999, tzinfo=UTC): 1_011,
        NOON + 2 * DAY: 1_111,
        NOON + 900 * DAY: 1_111,
    }
    found = {at: (await _posted(database_settings, "platform:cash", at=at)).get("EUR", 0) for at in expected}
    assert found == expected


async def test_a_balance_known_at_a_time_is_of_what_was_recorded_then_or_before(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await _three_days(books)
    expected = {
        NOON - MICROSECOND: 0,
        NOON: 1,
        NOON + DAY: 11,
        NOON + 3 * DAY - MICROSECOND: 111,
        NOON + 3 * DAY: 1_111,
    }
    found = {at: (await _posted(database_settings, "platform:cash", known_at=at)).get("EUR", 0) for at in expected}
    assert found == expected


async def test_both_times_together_leave_out_what_was_not_known(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await _three_days(books)
    before_the_late_one = NOON + 3 * DAY - SECOND
    at = datetime(2026, 3, 4, tzinfo=UTC)
    assert await _posted(database_settings, "platform:cash", at=at, known_at=before_the_late_one) == {"EUR": 11}
    assert await _posted(database_settings, "platform:cash", at=at, known_at=NOON + 3 * DAY) == {"EUR": 1_011}


async def test_every_way_to_ask_for_now_gives_the_same(books: LedgerByHand, database_settings: Settings) -> None:
    await _three_days(books)
    now = await _posted(database_settings, "platform:cash")
    later = NOON + 10 * DAY
    assert await _posted(database_settings, "platform:cash", at=later) == now
    assert await _posted(database_settings, "platform:cash", known_at=later) == now
    assert await _posted(database_settings, "platform:cash", at=later, known_at=later) == now


async def test_a_past_balance_does_not_guess_what_was_held(books: LedgerByHand, database_settings: Settings) -> None:
    await _three_days(books)
    async with reading(database_settings) as connection:
        (line,) = await queries.balance(connection, TENANT, "platform:cash", at=NOON)
    assert [line[name] for name in ("pending", "held", "available", "version", "updated_at")] == [None] * 5


# --- with what is below ---------------------------------------------------------------------------------------------


async def _tree(books: LedgerByHand) -> None:
    await books.open("cash", "asset")
    await books.open("cash:bank", "asset", parent="cash")
    await books.open("cash:bank:savings", "asset", parent="cash:bank")
    await books.open("capital", "equity")
    await books.post(("cash", 1), ("capital", -1))
    await books.post(("cash:bank", 10), ("capital", -10))
    books.now += DAY
    await books.post(("cash:bank:savings", 100), ("capital", -100))
    await books.post(("cash:bank:savings", 7), ("capital", -7), currency="CHF")


async def test_a_recursive_balance_adds_what_is_below(books: LedgerByHand, database_settings: Settings) -> None:
    await _tree(books)
    async with reading(database_settings) as connection:
        lines = await queries.balance(connection, TENANT, "cash", recursive=True)
    assert {line["currency"]: (line["posted"], line["recursive_posted"]) for line in lines} == {
        "CHF": (0, 7),
        "EUR": (1, 111),
    }


async def test_a_recursive_balance_can_be_of_the_past(books: LedgerByHand, database_settings: Settings) -> None:
    await _tree(books)
    async with reading(database_settings) as connection:
        (line,) = await queries.balance(connection, TENANT, "cash", recursive=True, at=NOON)
        (known,) = await queries.balance(connection, TENANT, "cash", recursive=True, known_at=NOON)
    assert (line["posted"], line["recursive_posted"]) == (1, 11)
    assert (known["posted"], known["recursive_posted"]) == (1, 11)


# --- trial balance --------------------------------------------------------------------------------------------------


async def test_a_trial_balance_lists_every_account_and_sums_to_zero(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await books.pay("p1", 1_000, fees=30)
    await books.pay("p2", 500, "JPY")
    await books.send("payment.captured.v1", tenant="other", payment_id="x", amount=9, currency="EUR", customer_id="c")
    async with reading(database_settings) as connection:
        lines, totals = await queries.trial_balance(connection, TENANT)
    assert [tuple(line.values()) for line in lines] == [
        ("customer_balance:c1", "EUR", "liability", -970),
        ("customer_balance:c1", "JPY", "liability", -500),
        ("platform:cash", "EUR", "asset", 1_000),
        ("platform:cash", "JPY", "asset", 500),
        ("platform:fees", "EUR", "revenue", -30),
    ]
    assert totals == [{"currency": "EUR", "total": 0}, {"currency": "JPY", "total": 0}]


async def test_a_trial_balance_of_the_past_sums_to_zero(books: LedgerByHand, database_settings: Settings) -> None:
    await _three_days(books)
    async with reading(database_settings) as connection:
        lines, totals = await queries.trial_balance(connection, TENANT, at=NOON + DAY)
    assert {line["account"]: line["posted"] for line in lines} == {"customer_balance:c1": -11, "platform:cash": 11}
    assert totals == [{"currency": "EUR", "total": 0}]
