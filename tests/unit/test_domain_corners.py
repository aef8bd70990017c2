"""Corners of the domain that no drawn history comes to: found by changing it and seeing that nothing noticed."""

from __future__ import annotations

import pytest

from domain import decide
from domain.accounts import NORMAL_SIGN, Account, AccountType
from domain.books import NOT_OPENED, Books
from domain.decide import decide_batch
from domain.events import Applied, Rejected
from tests.fixtures.desk import NOON, envelope, event_of, payment, refund


@pytest.fixture
def books() -> Books:
    return Books(shard=0, epoch=1, next_seq=1, recorded_at=NOON)


def test_debits_raise_assets_and_expenses_and_credits_the_rest() -> None:
    assert {kind: NORMAL_SIGN[kind] for kind in AccountType} == {
        "asset": 1, "expense": 1, "liability": -1, "equity": -1, "revenue": -1,
    }  # fmt: skip
    assert Account(NOT_OPENED, "acme", "own", AccountType.EQUITY).natural(-5) == 5


def test_a_dispute_lost_by_a_customer_without_an_account_opens_a_liability(books: Books) -> None:
    opened = envelope("dispute.opened.v1", dispute_id="d1", amount=9, currency="EUR", customer_id="c9")
    decide_batch([event_of(opened), event_of(envelope("dispute.lost.v1", dispute_id="d1"))], books)
    account = books.account("acme", "customer_balance:c9")
    assert account is not None and account.type is AccountType.LIABILITY


def test_what_one_transaction_has_no_room_for_is_left_for_the_clock(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "RESUMED_MAX", 2)
    refunds = [event_of(refund(f"r{number}", 1, payment_id="p1")) for number in range(5)]
    decided = decide_batch([*refunds, event_of(payment("p1"))], books)
    assert [type(each.outcome) for each in decided.handled[5:]] == [Applied] * 3
    assert decided.left_waiting == {event_of(payment("p1")).arrives}


def test_the_thousand_and_first_that_waits_is_refused(books: Books) -> None:
    refunds = [event_of(refund(f"r{number}", 1, payment_id="p1")) for number in range(decide.WAITING_MAX + 1)]
    *_, before, last = decide_batch(refunds, books).handled
    assert decide.WAITING_MAX == 1_000
    assert not isinstance(before.outcome, Rejected)
    assert isinstance(last.outcome, Rejected) and last.outcome.code == "too_many_parked"
