"""What an event leaves behind says whose it is, and its entry what the event said."""

from __future__ import annotations

import json
from typing import Any

from domain.books import Books
from domain.events import Applied
from domain.keys import natural_key
from domain.reservations import category_key, hold_key
from tests.fixtures.cards import till
from tests.fixtures.core import books, outcome_of
from tests.fixtures.desk import envelope

__all__ = ["books"]

MONEY = {"amount": 60, "currency": "EUR"}
SETTLED = {"dispute_id": "d1", "outcome_id": "1", "amount": 20}
# Each follows the one above that it names.
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("payment.captured.v1", {"payment_id": "p1", "customer_id": "c1", **MONEY}),
    ("refund.succeeded.v1", {"refund_id": "r1", "customer_id": "c1", **MONEY}),
    ("refund.failed.v1", {"refund_id": "r1"}),
    ("transfer.created.v1", {"transfer_id": "t1", "customer_id": "c1", "merchant_id": "m1", **MONEY}),
    ("transfer.reversed.v1", {"transfer_id": "t1"}),
    ("payout.paid.v1", {"payout_id": "o1", "merchant_id": "m1", **MONEY}),
    ("payout.failed.v1", {"payout_id": "o1"}),
    ("dispute.opened.v1", {"dispute_id": "d1", "customer_id": "c1", **MONEY}),
    ("dispute.won.v1", SETTLED),
    ("dispute.lost.v1", SETTLED),
    ("dispute.reopened.v1", {"dispute_id": "d1", "reopening_id": "1", "amount": 5}),
]


def applied(books: Books, type_name: str, **data: Any) -> Applied:
    outcome = outcome_of(books, envelope(type_name, **data))
    assert isinstance(outcome, Applied), (type_name, outcome)
    return outcome


def test_an_entry_says_what_its_event_said(books: Books) -> None:
    for name in ("a", "b"):
        applied(books, "account.create.v1", name=name, type="asset")
    legs = [{"account": name, "amount": amount, "currency": "EUR"} for name, amount in (("a", 5), ("b", -5))]
    for type_name, data in [*EVENTS, ("entry.post.v1", {"postings": legs})]:
        entry = applied(books, type_name, description=type_name, metadata={"of": type_name}, **data).entry
        assert entry is not None and entry.metadata is not None
        assert (entry.description, json.loads(entry.metadata)) == (type_name, {"of": type_name})


def test_an_account_is_kept_as_it_was_asked_for(books: Books) -> None:
    applied(books, "account.create.v1", name="a", type="asset", description="x", metadata={"of": "a"})
    account = books.accounts["acme", "a"]
    assert (account.description, json.loads(account.metadata or b"")) == ("x", {"of": "a"})


def test_what_stays_open_says_whose_it_is(books: Books) -> None:
    for type_name, data in EVENTS:
        applied(books, type_name, provider="psp", **data)
    kinds = {"payment": "p1", "refund": "r1", "transfer": "t1", "payout": "o1", "dispute": "d1"}
    for kind, name in kinds.items():
        kept = getattr(books, f"{kind}s").get(natural_key("acme", kind, "psp", name))
        (kept,) = kept if kind == "payment" else [kept]
        assert (kept.tenant_id, kept.provider, getattr(kept, f"{kind}_id")) == ("acme", "psp", name)
        assert kept.currency == "EUR"


def test_holds_categories_and_lines_say_whose_they_are() -> None:
    books = till()
    assert books.code("hold.created.v1", hold_id="h1", account="wallet", **MONEY) == "applied"
    hold, line = books.books.holds.get(hold_key("acme", "h1")), books.line("L2")
    assert hold is not None and (hold.tenant_id, hold.hold_id) == ("acme", "h1")
    assert books.books.categories[category_key("acme", "food")].tenant_id == "acme"
    assert (line.tenant_id, line.line_of_credit_id, line.expense_category) == ("acme", "L2", "travel")
