"""What holds do to balances, and what they are refused for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.decide import decide_batch
from domain.events import Applied
from domain.expiry import HoldExpired
from infra.expiry import expiry_event, read_expiry
from tests.fixtures.cards import NOW, Till, till

OVER = 2**63


def held(till_: Till, hold_id: str = "h1", amount: int = 100, **more: Any) -> str:
    data = {"account": "wallet", "currency": "EUR", "direction": "out"} | more
    return till_.code("hold.created.v1", hold_id=hold_id, amount=amount, **data)


def expire(till_: Till, hold_id: str = "h1") -> bool:
    event = expiry_event("acme", HoldExpired(till_.hold(hold_id).expires_at, hold_id))
    return bool(decide_batch([event], till_.books).handled)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_hold_sets_a_part_of_what_is_available_aside_whatever_its_direction(direction: str) -> None:
    books = till()
    assert held(books, direction=direction) == "applied"
    assert books.balance() == (-1_000, 100)
    assert books.books.accounts["acme", "wallet"].available("EUR") == 900
    assert books.hold().expires_at == NOW + timedelta(days=7)


@pytest.mark.parametrize(("direction", "posted"), [("in", -1_100), ("out", -900)])
def test_a_capture_posts_what_is_held_in_the_holds_direction(direction: str, posted: int) -> None:
    books = till()
    held(books, direction=direction, payment_id="p7")
    outcome = books.send("hold.captured.v1", hold_id="h1").outcome
    assert isinstance(outcome, Applied)
    assert outcome.entry is not None
    assert (outcome.entry.kind, outcome.entry.references) == ("hold_captured", {"payment_id": "p7"})
    assert books.balance() == (posted, 0)
    assert books.balance("platform:cash") == (-(posted + 1_000), 0)
    assert outcome.result == {"hold_id": "h1", "status": "captured", "entry_id": str(outcome.entry.entry_id)}
    # One change of the wallet, its posting and its release together.
    assert sorted((change.account.name, change.held_change) for change in outcome.changes) == [
        ("platform:cash", 0),
        ("wallet", -100),
    ]


def test_a_hold_is_captured_in_parts_until_the_final_one_releases_the_rest() -> None:
    books = till()
    held(books)
    assert books.code("hold.captured.v1", hold_id="h1", amount=30, final=False, capture_id="1") == "applied"
    assert (books.balance(), books.hold().status) == ((-970, 70), "pending")
    assert books.code("hold.captured.v1", hold_id="h1", amount=71, capture_id="2") == "capture_exceeds_hold"
    assert books.balance() == (-970, 70)
    assert books.code("hold.captured.v1", hold_id="h1", amount=20, capture_id="3") == "applied"
    assert (books.balance(), books.hold().status, books.hold().captured) == ((-950, 0), "captured", 50)
    assert len(books.hold().entry_ids) == 2


def test_an_amount_of_0_captures_all_that_is_held() -> None:
    books = till()
    held(books)
    assert books.code("hold.captured.v1", hold_id="h1", amount=0) == "applied"
    assert books.balance() == (-900, 0)


def test_a_final_capture_of_nothing_left_ends_the_hold_without_an_entry() -> None:
    books = till()
    held(books)
    books.code("hold.captured.v1", hold_id="h1", final=False, capture_id="1")
    outcome = books.send("hold.captured.v1", hold_id="h1").outcome
    assert isinstance(outcome, Applied)
    assert (outcome.entry, outcome.changes, books.hold().status) == (None, [], "captured")


def test_an_adjustment_moves_what_is_held_to_the_new_total() -> None:
    books = till()
    held(books)
    for number, amount in enumerate((150, 40)):
        sent = {"hold_id": "h1", "adjustment_id": str(number), "amount": amount}
        assert books.code("hold.adjusted.v1", **sent) == "applied"
        assert books.balance() == (-1_000, amount)


def test_an_adjustment_older_than_the_last_applied_one_changes_nothing() -> None:
    books = till()
    held(books)
    books.code("hold.adjusted.v1", hold_id="h1", adjustment_id="2", amount=150, time=NOW)
    older = {"hold_id": "h1", "adjustment_id": "1", "amount": 500, "time": NOW - timedelta(seconds=1)}
    outcome = books.send("hold.adjusted.v1", **older).outcome
    assert isinstance(outcome, Applied)
    assert outcome.result == {"hold_id": "h1", "status": "pending", "superseded": True}
    assert (outcome.changes, books.balance()) == ([], (-1_000, 150))


def test_a_voided_hold_is_available_again_and_final() -> None:
    books = till()
    held(books)
    assert books.code("hold.voided.v1", hold_id="h1") == "applied"
    assert books.balance() == (-1_000, 0)
    assert books.code("hold.captured.v1", hold_id="h1") == "hold_not_pending"
    assert books.code("hold.adjusted.v1", hold_id="h1", adjustment_id="1", amount=5) == "hold_not_pending"


def test_of_a_capture_and_an_expiry_the_first_wins() -> None:
    books = till()
    held(books)
    assert expire(books)
    assert (books.balance(), books.hold().status) == ((-1_000, 0), "expired")
    assert books.code("hold.captured.v1", hold_id="h1") == "hold_not_pending"
    held(books, "h2")
    assert books.code("hold.captured.v1", hold_id="h2") == "applied"
    assert not expire(books, "h2")
    assert books.balance() == (-900, 0)


@pytest.mark.parametrize("left", [100, 0])
def test_an_expiry_is_told_even_if_nothing_was_left(left: int) -> None:
    books = till()
    held(books)
    if not left:
        books.code("hold.captured.v1", hold_id="h1", amount=100, final=False, capture_id="1")
    event = expiry_event("acme", HoldExpired(books.hold().expires_at, "h1"))
    outcome = decide_batch([event], books.books).handled[0].outcome
    assert isinstance(outcome, Applied)
    assert (outcome.result, outcome.hold_id) == ({"hold_id": "h1", "status": "expired"}, "h1")
    assert [change.held_change for change in outcome.changes] == ([-left] if left else [])


def test_an_expiry_says_so_as_the_clocks_own_event() -> None:
    books = till()
    held(books)
    ends = books.hold().expires_at
    event = expiry_event("acme", HoldExpired(ends, "h1"))
    assert (event.type, event.source) == ("hold.expired.v1", "ledgerstream")
    assert event.event_id == f"expire:h1:{ends.isoformat()}"
    assert read_expiry(event.carried.data) == event.command


def test_an_end_that_was_put_off_does_not_come() -> None:
    books = till()
    held(books)
    event = expiry_event("acme", HoldExpired(books.hold().expires_at, "h1"))
    later = (NOW + timedelta(days=30)).isoformat()
    books.code("hold.adjusted.v1", hold_id="h1", adjustment_id="1", amount=100, expires_at=later)
    for overtaken in (event, expiry_event("acme", HoldExpired(books.hold().expires_at, "never"))):
        assert not decide_batch([overtaken], books.books).handled
    assert books.balance() == (-1_000, 100)


@pytest.mark.parametrize("type_name", ["hold.adjusted.v1", "hold.captured.v1", "hold.voided.v1"])
def test_what_comes_before_its_hold_waits_for_it(type_name: str) -> None:
    books = till()
    data: dict[str, Any] = {"hold_id": "h1"}
    if type_name == "hold.adjusted.v1":
        data |= {"adjustment_id": "1", "amount": 50}
    assert books.code(type_name, **data) == "parked hold_not_found"
    assert held(books) == "applied"
    assert (
        books.hold().status
        == {"adjusted": "pending", "captured": "captured", "voided": "voided"}[type_name.split(".")[1]]
    )
    assert books.balance()[1] == (50 if type_name == "hold.adjusted.v1" else 0)


def _frozen(books: Till) -> None:
    books.code("account.update.v1", name="wallet", status="frozen")


CREATED: list[tuple[dict[str, Any], str]] = [
    ({"amount": 0, "currency": "XXQ", "account": "none"}, "invalid_amount"),
    ({"amount": OVER, "currency": "XXQ", "account": "none"}, "amount_out_of_range"),
    ({"amount": 2_000, "currency": "XXQ", "account": "none"}, "unknown_currency"),
    ({"amount": 2_000, "account": "none"}, "account_not_found"),
    ({"amount": 2_000, "account": "yen"}, "currency_mismatch"),
    ({"amount": 2_000, "account": "cold"}, "account_frozen"),
    ({"amount": 2_000, "account": "shut"}, "account_closed"),
    ({"amount": 1_001}, "insufficient_balance"),
    ({"amount": 1_000}, "applied"),
    ({"amount": 2**63 - 1, "account": "bank", "currency": "EUR"}, "applied"),
]


@pytest.mark.parametrize(("data", "code"), CREATED)
def test_a_hold_is_refused_for_the_first_rule_it_breaks(data: dict[str, Any], code: str) -> None:
    books = till()
    for name in ("cold", "shut"):
        books.code("account.create.v1", name=name, type="asset", floor={"EUR": 0})
    books.code("account.create.v1", name="yen", type="asset", floor={"EUR": 0}, currency="JPY")
    for name in ("cold", "yen"):
        books.code("account.update.v1", name=name, status="frozen")
    books.code("account.close.v1", name="shut")
    assert held(books, **data) == code


def test_more_than_can_be_counted_is_not_held() -> None:
    books = till()
    assert held(books, amount=2**63 - 1, account="bank") == "applied"
    assert held(books, "h2", amount=1, account="bank") == "amount_out_of_range"


def test_a_capture_from_a_frozen_account_is_refused_and_the_hold_stays() -> None:
    books = till()
    held(books)
    _frozen(books)
    assert books.code("hold.captured.v1", hold_id="h1", amount=1_000, capture_id="1") == "account_frozen"
    assert books.balance() == (-1_000, 100)


@pytest.mark.parametrize(
    ("before", "ended"),
    [(timedelta(days=2), "period_closed"), (timedelta(microseconds=1), "period_closed"), (timedelta(0), "applied")],
)
def test_a_capture_in_a_closed_period_is_refused_to_the_end_of_its_last_day(before: timedelta, ended: str) -> None:
    books = till()
    held(books)
    books.code("period.close.v1", through="2026-03-01")
    assert books.code("hold.captured.v1", hold_id="h1", time=NOW.replace(hour=0) - before) == ended


def test_what_takes_nothing_from_an_account_is_not_kept_off_by_its_limits() -> None:
    books = till()
    held(books)
    limits = {"floor": {"EUR": 2_000}, "ceiling": {"EUR": 500}}
    assert books.code("account.update.v1", name="wallet", **limits) == "applied"
    # What is posted was held: no less is available than before.
    assert books.code("hold.captured.v1", hold_id="h1") == "applied"
    # And holding posts nothing, so that no ceiling is crossed by it.
    assert books.code("account.update.v1", name="wallet", floor=None) == "applied"
    assert held(books, "h2") == "applied"


def test_more_is_not_held_than_there_is() -> None:
    books = till()
    held(books)
    assert books.code("hold.adjusted.v1", hold_id="h1", adjustment_id="1", amount=1_001) == "insufficient_balance"
    assert books.balance() == (-1_000, 100)


def test_what_is_held_can_not_be_spent() -> None:
    books = till()
    held(books, amount=950)
    postings = [("wallet", 51), ("bank", -51)]
    legs = [{"account": name, "amount": amount, "currency": "EUR"} for name, amount in postings]
    assert books.code("entry.post.v1", postings=legs) == "insufficient_balance"


def test_an_account_with_a_hold_is_not_closed() -> None:
    books = till()
    books.code("account.create.v1", name="new", type="asset")
    held(books, account="new")
    assert books.code("account.close.v1", name="new") == "account_not_empty"
    books.code("hold.voided.v1", hold_id="h1")
    assert books.code("account.close.v1", name="new") == "applied"
