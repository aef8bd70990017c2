"""What is refused, or changes nothing, leaves nothing behind: in the books, on the shelves, or among the keys."""

from __future__ import annotations

from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest

from domain.accounts import AccountType, Balance
from domain.books import Books, Shelf
from domain.decide import decide_batch
from domain.events import Applied, Rejected
from domain.money import AMOUNT_MAX, in_major_units
from tests.fixtures.cards import OWNER, card_payment, till
from tests.fixtures.core import books, code_of, outcome_of
from tests.fixtures.desk import NOON, again, envelope, event_of, payment, post

__all__ = ["books"]

MOST = AMOUNT_MAX
MONEY = {"amount": 60, "currency": "EUR"}
CASH, PAYER, HELD = "platform:cash", "customer_balance:c1", "platform:disputes_held"


# What made the thing, the account that has no room any more, natural, and what is refused for it.
OVERFLOWS: list[tuple[str, dict[str, Any], str, int, str, dict[str, Any]]] = [
    ("tenant.create.v1", {}, CASH, MOST, "payment.captured.v1", {"payment_id": "p", "customer_id": "c1", **MONEY}),
    ("tenant.create.v1", {}, CASH, -MOST, "refund.succeeded.v1", {"refund_id": "r", "customer_id": "c1", **MONEY}),
    ("refund.succeeded.v1", {"refund_id": "r", "customer_id": "c1", **MONEY}, CASH, MOST, "refund.failed.v1",
     {"refund_id": "r"}),
    ("tenant.create.v1", {}, PAYER, -MOST, "transfer.created.v1",
     {"transfer_id": "t", "customer_id": "c1", "merchant_id": "m1", **MONEY}),
    ("transfer.created.v1", {"transfer_id": "t", "customer_id": "c1", "merchant_id": "m1", **MONEY}, PAYER, MOST,
     "transfer.reversed.v1", {"transfer_id": "t"}),
    ("tenant.create.v1", {}, CASH, -MOST, "payout.paid.v1", {"payout_id": "o", "merchant_id": "m1", **MONEY}),
    ("payout.paid.v1", {"payout_id": "o", "merchant_id": "m1", **MONEY}, CASH, MOST, "payout.failed.v1",
     {"payout_id": "o"}),
    ("tenant.create.v1", {}, CASH, -MOST, "dispute.opened.v1", {"dispute_id": "d", "customer_id": "c1", **MONEY}),
    ("dispute.opened.v1", {"dispute_id": "d", "customer_id": "c1", **MONEY}, CASH, MOST, "dispute.won.v1",
     {"dispute_id": "d"}),
    ("dispute.opened.v1", {"dispute_id": "d", "customer_id": "c1", **MONEY}, CASH, -MOST, "dispute.reopened.v1",
     {"dispute_id": "d", "reopening_id": "1", "amount": 60}),
]  # fmt: skip


@pytest.mark.parametrize(("first", "made", "account", "natural", "type_name", "data"), OVERFLOWS)
def test_a_fact_that_can_not_be_counted_leaves_what_it_is_about_as_it_was(
    books: Books, first: str, made: dict[str, Any], account: str, natural: int, type_name: str, data: dict[str, Any]
) -> None:
    assert code_of(books, envelope(first, **made)) == "applied"
    kind = AccountType.LIABILITY if ":c1" in account else AccountType.ASSET
    full = books.account_for("acme", account, kind)
    if ("acme", account) not in books.accounts:
        books.open_account(full, 9)
    full.balances["EUR"] = Balance(posted=full.natural(natural))
    shelves = [shelf for name in Books.__slots__ if isinstance(shelf := getattr(books, name), Shelf)]
    before = deepcopy([(shelf._things, shelf.touched) for shelf in shelves])
    assert code_of(books, envelope(type_name, **data)) == "amount_out_of_range"
    assert [(shelf._things, shelf.touched) for shelf in shelves] == before
    # With room for it, it is applied.
    full.balances["EUR"] = Balance()
    assert code_of(books, envelope(type_name, **data)) == "applied"


def test_legs_of_zero_are_left_out(books: Books) -> None:
    applied = outcome_of(books, payment("p1", 5, fees=5))
    assert [(leg.account.name, leg.amount) for leg in applied.entry.postings] == [(CASH, 5), ("platform:fees", -5)]


# --- keys and tenants ------------------------------------------------------------------------------------------------


def test_a_create_that_exists_is_told_so_once_a_delivery(books: Books) -> None:
    made = envelope("account.create.v1", name="a", type="asset")
    other = again(made, type="liability")
    decided = decide_batch([event_of(document) for document in (made, other, other, other)], books)
    assert [type(each.outcome) for each in decided.handled] == [Applied, Rejected]
    assert decided.duplicates == 2


def test_a_key_stays_with_who_has_it(books: Books) -> None:
    first = event_of(envelope("account.create.v1", name="a", type="asset", key="k"))
    third = event_of(envelope("account.create.v1", name="b", type="asset", key="own"))
    taken = event_of(envelope("account.create.v1", name="b", type="liability", key="k"))
    decide_batch([first, third, taken], books)
    assert first.publisher is not None and third.natural is not None
    assert (books.claims[first.publisher].seq, books.claims[third.natural].seq) == (1, 2)


def test_where_tenants_are_registered_a_conflict_registers_none() -> None:
    books = Books(shard=0, epoch=1, next_seq=1, recorded_at=NOON, registered_only=True)
    assert code_of(books, envelope("account.create.v1", name="a", type="asset", key="k")) == "tenant_not_found"
    assert code_of(books, envelope("account.close.v1", name="a", key="k")) == "idempotency_conflict"
    assert not books.new_tenants


def test_what_makes_nothing_that_others_wait_for_leaves_nothing_waiting(books: Books) -> None:
    books.waiting_whole = False
    assert not decide_batch([event_of(envelope("account.create.v1", name="a", type="asset"))], books).left_waiting


# --- accounts and entries --------------------------------------------------------------------------------------------


def test_an_account_that_an_event_opens_and_names_twice_is_one(books: Books) -> None:
    opened = envelope("dispute.opened.v1", dispute_id="d", customer_id="c1", cash_account=HELD, **MONEY)
    applied = outcome_of(books, opened)
    assert [(leg.account.name, leg.amount) for leg in applied.entry.postings] == [(HELD, 60), (HELD, -60)]
    assert [account.name for account in books.opened] == [HELD]
    assert code_of(books, envelope("dispute.won.v1", dispute_id="d")) == "applied"


def test_a_closed_account_is_closed_again_whatever_came_since(books: Books) -> None:
    for type_name, more in (("account.create.v1", {"type": "asset"}), ("account.close.v1", {})):
        assert code_of(books, envelope(type_name, name="till", **more)) == "applied"
    assert code_of(books, payment("p1", 5, cash_account="till")) == "applied"
    books.changed_accounts.clear()
    assert code_of(books, envelope("account.close.v1", name="till")) == "applied"
    assert not books.changed_accounts


def test_a_limit_in_a_unit_that_nobody_defined_is_refused(books: Books) -> None:
    made = envelope("account.create.v1", name="a", type="asset", floor={"XXQ": 0})
    assert code_of(books, made) == "unknown_currency"


def test_an_expected_version_is_that_of_the_balance(books: Books) -> None:
    for name in ("a", "b"):
        assert code_of(books, envelope("account.create.v1", name=name, type="asset")) == "applied"
    for version, ended in ((1, "version_conflict"), (0, "applied"), (0, "version_conflict"), (1, "applied")):
        document = post(("a", 5), ("b", -5))
        document["data"]["postings"][0]["expect_version"] = version
        assert code_of(books, document) == ended


def test_an_entry_is_not_reversed_ahead_of_time_and_once_however_its_id_is_spelled(books: Books) -> None:
    for name in ("a", "b"):
        assert code_of(books, envelope("account.create.v1", name=name, type="asset")) == "applied"
    books.next_seq = 0xABCDEF
    entry_id = str(outcome_of(books, post(("a", 5), ("b", -5))).entry.entry_id)
    assert entry_id != entry_id.upper()
    late = envelope("entry.reverse.v1", entry_id=entry_id, time=NOON + timedelta(minutes=6))
    assert code_of(books, late) == "effective_at_in_future"
    spelled = [event_of(envelope("entry.reverse.v1", entry_id=each)) for each in (entry_id, entry_id.upper())]
    assert spelled[0].natural == spelled[1].natural


# --- cards and holds -------------------------------------------------------------------------------------------------


def test_a_part_that_is_released_takes_no_more_back_than_was_spent() -> None:
    books = till()
    books.request(account="wallet")
    books.later("captured", amount=20, final=False)
    books.later("refunded", amount=80)
    books.later("released", amount=10, reason="partial")
    assert (books.expensed, books.authorization().expensed) == ((0, 0), 0)


@pytest.mark.parametrize(
    ("type_name", "data"),
    [
        ("authorization.requested.v1", card_payment(amount=-1)),
        ("authorization.adjusted.v1", {"provider": "visa", "external_id": "x1", "event_id": "1", "amount": -1}),
        ("hold.captured.v1", {"hold_id": "h", "amount": -1}),
        ("line_of_credit.set_limit.v1", {"line_of_credit_id": "L1", "credits_limit": -1}),
        ("line_of_credit.reset.v1", {"line_of_credit_id": "L1", "credits_limit": -1, "expensed_credits": 0}),
        ("line_of_credit.reset.v1", {"line_of_credit_id": "L1", "credits_limit": 0, "expensed_credits": -1}),
    ],
)
def test_less_than_nothing_is_no_amount(type_name: str, data: dict[str, Any]) -> None:
    assert till().code(type_name, **data) == "invalid_amount"


def test_a_payment_that_names_no_account_says_nothing_of_a_hold() -> None:
    decision = till().request(hold_amount=50)
    assert (decision.decision, decision.hold_amount, decision.account) == ("approved", None, None)


def test_a_line_that_nothing_was_expensed_on_is_not_saved() -> None:
    books = till()
    books.books.changed_lines.clear()
    assert books.request(amount=0).decision == "approved"
    assert not books.books.changed_lines
    assert books.line().owner_ref == OWNER


def test_the_least_amount_below_nothing_is_shown_as_one() -> None:
    assert [in_major_units(amount, "EUR") for amount in (-1, 0, 1)] == ["-0.01 EUR", "0.00 EUR", "0.01 EUR"]
