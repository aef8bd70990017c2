"""What is posted to the last unit: which limits are crossed, which aren't, and what the entry says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from domain.accounts import Account, AccountType, Balance
from domain.books import NOT_OPENED, Books
from domain.events import Applied
from domain.ids import account_id
from domain.money import AMOUNT_MAX
from domain.posting import Change, refuse_overflow
from tests.fixtures.core import books, code_of, outcome_of
from tests.fixtures.desk import Envelope, envelope, event_of, payment, post, refund

__all__ = ["books"]

MOST = AMOUNT_MAX


def make(books: Books, *names: str, kind: str = "asset", **more: Any) -> None:
    for name in names:
        assert code_of(books, envelope("account.create.v1", name=name, type=kind, **more)) == "applied"


# Natural posted and held before; by how much both move; whether one thing alone is then out of what can be counted.
COUNTED = [
    ((MOST, 0), (0, 0), False),
    ((MOST, MOST), (0, 0), False),
    ((MOST, 1), (1, 0), True),  # posted, though less than that is available
    ((-MOST, 0), (0, 0), False),
    ((-MOST + 5, 5), (0, 0), False),
    ((-MOST + 4, 5), (0, 0), True),  # available, though it is posted in full
    ((-MOST, 0), (-1, 0), True),
    ((-1, 0), (MOST, 0), False),
    ((-MOST, 0), (MOST + 1, 0), True),  # the change alone
    ((MOST, 0), (-MOST, 0), False),
    ((MOST, 0), (-MOST - 1, 0), True),
    ((MOST, 0), (0, MOST), False),
    ((MOST, 0), (0, MOST + 1), True),  # held alone
]


@pytest.mark.parametrize("kind", [AccountType.ASSET, AccountType.LIABILITY])
@pytest.mark.parametrize(("before", "moved", "refused"), COUNTED)
def test_what_does_not_fit_64_bits_is_refused_whatever_does(
    kind: AccountType, before: tuple[int, int], moved: tuple[int, int], refused: bool
) -> None:
    account = Account(NOT_OPENED, "acme", "a", kind)
    account.balances["EUR"] = Balance(posted=account.natural(before[0]), held=before[1])
    change = Change(account, "EUR", account.natural(moved[0]))
    change.hold(moved[1])
    refusal = refuse_overflow([change])
    assert (refusal is not None and refusal.code == "amount_out_of_range") == refused


def test_an_entry_whose_legs_sum_to_more_than_can_be_counted_is_refused(books: Books) -> None:
    make(books, "a", "b", "c")
    for other in ("b", "c"):
        assert code_of(books, post(("a", -MOST + 1), (other, MOST - 1))) == "applied"
        assert code_of(books, post(("a", MOST - 1), (other, -MOST + 1))) == "applied"
    assert code_of(books, post(("a", -MOST), ("b", MOST))) == "applied"
    # Its balance would be in range again; what the entry moves on it isn't.
    assert code_of(books, post(("a", MOST), ("a", MOST), ("b", -MOST), ("c", -MOST))) == "amount_out_of_range"


def test_one_over_a_ceiling_is_over_it(books: Books) -> None:
    make(books, "till", ceiling={"EUR": 10})
    make(books, "rest")
    assert code_of(books, post(("till", 10), ("rest", -10))) == "applied"
    assert code_of(books, post(("till", 1), ("rest", -1))) == "balance_over_ceiling"


def test_what_leaves_an_account_where_it_is_breaks_no_limit(books: Books) -> None:
    make(books, "till", "rest")
    assert code_of(books, post(("till", 20), ("rest", -20))) == "applied"
    over = {"ceiling": {"EUR": 10}, "floor": {"EUR": 30}}
    assert code_of(books, envelope("account.update.v1", name="till", **over)) == "applied"
    assert code_of(books, post(("till", 5), ("till", -5))) == "applied"


def test_a_limit_for_every_currency_stands_under_the_key_it_is_stored_by(books: Books) -> None:
    make(books, "till", floor=-5, ceiling=7)
    account = books.accounts["acme", "till"]
    assert (account.floors, account.ceilings) == ({"*": -5}, {"*": 7})
    account.floors["JPY"] = -9
    assert (account.floor("EUR"), account.floor("JPY"), account.ceiling("JPY")) == (-5, -9, 7)


def test_accounts_that_one_event_opens_are_numbered_from_1_without_a_gap(books: Books) -> None:
    applied = outcome_of(books, payment("p1", 100, fees=3))
    assert [(change.account.name, change.account.account_id) for change in applied.changes] == [
        (name, account_id(1, 0, 1, number))
        for number, name in enumerate(("platform:cash", "customer_balance:c1", "platform:fees"), 1)
    ]
    assert [account.name for account in books.opened] == [change.account.name for change in applied.changes]


def test_an_entry_that_was_asked_for_is_told_by_its_id_and_is_current(books: Books) -> None:
    make(books, "a", "b")
    applied = outcome_of(books, post(("a", 5), ("b", -5)))
    assert applied.result == {"entry_id": str(applied.entry.entry_id)}
    assert applied.entry.pending is False


def test_by_how_much_legs_do_not_balance_is_said(books: Books) -> None:
    make(books, "a", "b")
    refused = outcome_of(books, post(("a", 5), ("b", -2)))
    assert refused.message == "the postings in EUR sum to 3, not to zero"


@pytest.mark.parametrize("follow", [refund, lambda name, amount, **more: _dispute(name, amount, **more)])
def test_a_refund_of_one_customers_part_of_a_payment_leaves_the_others(
    books: Books, follow: Callable[..., Envelope]
) -> None:
    for customer in ("c1", "c2"):
        assert code_of(books, payment("p1", 50, capture_id=customer, customer_id=customer)) == "applied"
    assert code_of(books, refund("r1", 50, payment_id="p1", customer_id="c1")) == "applied"
    assert code_of(books, follow("f2", 50, payment_id="p1", customer_id="c2")) == "applied"
    assert code_of(books, refund("r3", 1, payment_id="p1", customer_id="c1")) == "refund_exceeds_payment"


def test_a_payment_in_two_currencies_is_refunded_in_each(books: Books) -> None:
    for currency, amount in (("EUR", 50), ("JPY", 700)):
        assert code_of(books, payment("p1", amount, capture_id=currency, currency=currency)) == "applied"
    assert code_of(books, refund("r1", 700, payment_id="p1", currency="JPY")) == "applied"
    assert code_of(books, refund("r2", 51, payment_id="p1")) == "refund_exceeds_payment"
    assert code_of(books, refund("r3", 50, payment_id="p1")) == "applied"
    assert code_of(books, refund("r4", 1, payment_id="p1", currency="USD")) == "currency_mismatch"


def _dispute(name: str, amount: int, **more: Any) -> Envelope:
    return envelope("dispute.opened.v1", dispute_id=name, amount=amount, currency="EUR", **more)


def test_a_payment_that_a_batch_makes_counts_as_the_batchs_own_sums(books: Books) -> None:
    document = payment("p1", 50)
    assert isinstance(outcome_of(books, document), Applied)
    (made,) = books.payments.get(event_of(document).arrives or b"") or []  # type: ignore[arg-type]
    assert (made.captured, made.refunded, made.loaded) == (50, 0, False)
