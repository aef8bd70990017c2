"""Each type's refusals, in order: a row breaks its rule and every later one, so the code that is told is the first."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from consumers.translate import TRANSLATIONS, to_event
from domain.books import Books
from domain.decide import decide_batch
from domain.events import Applied, Handled, Parked, Rejected
from domain.posting import BREACHES
from domain.rejections import RejectionCode
from schemas.registry import EVENT_TYPES
from schemas.rejections import REJECTION_CODES
from schemas.wire import WireEvent, read
from tests.unit.wire_samples import LEAST

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
OVER = 2**63


@dataclass(slots=True)
class Small:
    """Books in memory, and what was decided on them."""

    books: Books = field(default_factory=lambda: Books(shard=0, epoch=1, next_seq=1, recorded_at=NOW))
    sent: int = 0

    def send(self, type_name: str, *, time: datetime = NOW, **data: Any) -> Handled:
        self.sent += 1
        document = {
            "specversion": "1.0",
            "id": f"e{self.sent}",
            "source": "s",
            "type": type_name,
            "time": time.isoformat(),
            "tenantid": "acme",
            "data": data,
        }
        if EVENT_TYPES[type_name].needs_key:
            document["idempotencykey"] = f"k{self.sent}"
        wire = read(json.dumps(document).encode(), (), EVENT_TYPES[type_name].topic)
        assert isinstance(wire, WireEvent), wire
        self.books.new_claims.clear()
        return decide_batch([to_event(wire, None)], self.books).handled[0]

    def code(self, type_name: str, **data: Any) -> str:
        match self.send(type_name, **data).outcome:
            case Rejected(code=code):
                return str(code)
            case Parked(code=code):
                return f"parked {code}"
            case Applied():
                return "applied"


def lived_in() -> Small:
    """Books in which every refusal can be met."""
    small = Small()
    money = {"amount": 100, "currency": "EUR", "customer_id": "c1"}
    for type_name, data in (
        ("payment.captured.v1", {"payment_id": "p1", **money}),
        ("payment.captured.v1", {"payment_id": "p0", **money}),
        ("transfer.created.v1", {"transfer_id": "t1", "merchant_id": "m1", **money}),
        ("transfer.created.v1", {"transfer_id": "gone", "merchant_id": "m1", **money}),
        ("transfer.reversed.v1", {"transfer_id": "gone"}),
        ("dispute.opened.v1", {"dispute_id": "d1", **money}),
        ("dispute.opened.v1", {"dispute_id": "gone", **money}),
        ("dispute.won.v1", {"dispute_id": "gone"}),
        ("account.create.v1", {"name": "top", "type": "asset"}),
        ("account.create.v1", {"name": "below", "type": "asset", "parent": "top"}),
        ("account.create.v1", {"name": "plain", "type": "asset"}),
        ("account.create.v1", {"name": "fixed", "type": "asset", "currency": "EUR", "floor": 0, "ceiling": 10}),
        ("account.create.v1", {"name": "cold", "type": "asset", "floor": {"EUR": 0}}),
        ("account.create.v1", {"name": "shut", "type": "asset", "floor": {"EUR": 0}}),
        ("account.update.v1", {"name": "cold", "status": "frozen"}),
        ("account.close.v1", {"name": "shut"}),
        ("period.close.v1", {"through": "2026-02-28"}),
    ):
        assert small.code(type_name, **data) == "applied"
    return small


# One row breaks the rule it names and all below it in its block that it can.
MONEY: list[tuple[str, dict[str, Any], str]] = [
    (
        "payment.captured.v1",
        {"amount": 0, "fees": -1, "currency": "XXQ", "cash_account": "platform:fees"},
        "invalid_amount",
    ),
    ("payment.captured.v1", {"amount": OVER, "fees": -1, "currency": "XXQ"}, "amount_out_of_range"),
    ("payment.captured.v1", {"fees": -1, "currency": "XXQ", "cash_account": "platform:fees"}, "invalid_amount"),
    ("payment.captured.v1", {"fees": OVER, "currency": "XXQ"}, "amount_out_of_range"),
    ("payment.captured.v1", {"currency": "XXQ", "cash_account": "platform:fees"}, "unknown_currency"),
    ("payment.captured.v1", {"cash_account": "platform:fees", "amount": 2**63 - 1}, "account_type_mismatch"),
    ("payment.captured.v1", {"amount": 2**63 - 1}, "amount_out_of_range"),
    ("refund.succeeded.v1", {"amount": 0, "currency": "XXQ", "payment_id": "none"}, "invalid_amount"),
    ("refund.succeeded.v1", {"amount": OVER, "currency": "XXQ", "payment_id": "none"}, "amount_out_of_range"),
    ("refund.succeeded.v1", {"currency": "XXQ", "payment_id": "none"}, "unknown_currency"),
    ("refund.succeeded.v1", {"payment_id": "none"}, "parked payment_not_found"),
    (
        "refund.succeeded.v1",
        {"payment_id": "p1", "currency": "JPY", "customer_id": "c2", "amount": 101},
        "currency_mismatch",
    ),
    ("refund.succeeded.v1", {"payment_id": "p1", "customer_id": "c2", "amount": 101}, "customer_mismatch"),
    ("refund.succeeded.v1", {"payment_id": "p1", "customer_id": "c1", "amount": 101}, "refund_exceeds_payment"),
    (
        "refund.succeeded.v1",
        {"payment_id": "p1", "customer_id": "c1", "cash_account": "platform:fees", "amount": 100},
        "applied",
    ),
    ("refund.succeeded.v1", {"cash_account": "customer_balance:c1"}, "account_type_mismatch"),
    ("refund.failed.v1", {"refund_id": "none"}, "parked refund_not_found"),
    ("transfer.created.v1", {"amount": -1, "currency": "XXQ"}, "invalid_amount"),
    ("transfer.created.v1", {"amount": OVER, "currency": "XXQ"}, "amount_out_of_range"),
    ("transfer.created.v1", {"currency": "XXQ"}, "unknown_currency"),
    ("transfer.reversed.v1", {"transfer_id": "none", "amount": 0}, "invalid_amount"),
    ("transfer.reversed.v1", {"transfer_id": "none", "amount": OVER}, "amount_out_of_range"),
    ("transfer.reversed.v1", {"transfer_id": "none"}, "parked transfer_not_found"),
    ("transfer.reversed.v1", {"transfer_id": "t1", "amount": 101}, "reversal_exceeds_transfer"),
    ("transfer.reversed.v1", {"transfer_id": "gone", "reversal_id": "2"}, "reversal_exceeds_transfer"),
    ("payout.paid.v1", {"amount": 0, "currency": "XXQ", "cash_account": "platform:fees"}, "invalid_amount"),
    ("payout.paid.v1", {"amount": OVER, "currency": "XXQ"}, "amount_out_of_range"),
    ("payout.paid.v1", {"currency": "XXQ", "cash_account": "platform:fees"}, "unknown_currency"),
    ("payout.paid.v1", {"cash_account": "merchant_settlement:m1"}, "account_type_mismatch"),
    ("payout.failed.v1", {"payout_id": "none"}, "parked payout_not_found"),
    ("dispute.opened.v1", {"amount": 0, "fees": -1, "currency": "XXQ", "payment_id": "none"}, "invalid_amount"),
    ("dispute.opened.v1", {"fees": -1, "currency": "XXQ", "payment_id": "none"}, "invalid_amount"),
    ("dispute.opened.v1", {"fees": 2**63 - 1, "currency": "XXQ", "payment_id": "none"}, "amount_out_of_range"),
    ("dispute.opened.v1", {"currency": "XXQ", "payment_id": "none"}, "unknown_currency"),
    ("dispute.opened.v1", {"payment_id": "none"}, "parked payment_not_found"),
    ("dispute.opened.v1", {"payment_id": "p1", "currency": "JPY", "customer_id": "c2"}, "currency_mismatch"),
    ("dispute.opened.v1", {"payment_id": "p1", "customer_id": "c2"}, "customer_mismatch"),
    ("dispute.opened.v1", {"cash_account": "platform:dispute_losses"}, "account_type_mismatch"),
    *(
        (type_name, data, code)
        for type_name in ("dispute.won.v1", "dispute.lost.v1")
        for data, code in (
            ({"dispute_id": "none", "amount": 0}, "invalid_amount"),
            ({"dispute_id": "none", "amount": OVER}, "amount_out_of_range"),
            ({"dispute_id": "none"}, "parked dispute_not_found"),
            ({"dispute_id": "gone", "outcome_id": "2", "amount": 101}, "dispute_closed"),
            ({"dispute_id": "d1", "amount": 101}, "dispute_amount_exceeded"),
        )
    ),
    ("dispute.reopened.v1", {"dispute_id": "none", "amount": 0, "fees": -1}, "invalid_amount"),
    ("dispute.reopened.v1", {"dispute_id": "none", "fees": -1}, "invalid_amount"),
    ("dispute.reopened.v1", {"dispute_id": "none", "fees": 2**63 - 1}, "amount_out_of_range"),
    ("dispute.reopened.v1", {"dispute_id": "none"}, "parked dispute_not_found"),
    ("dispute.reopened.v1", {"dispute_id": "d1", "amount": 2**63 - 1}, "amount_out_of_range"),
]


def leg(account: str, amount: int, currency: str = "EUR", **more: Any) -> dict[str, Any]:
    return {"account": account, "amount": amount, "currency": currency, **more}


LATER = (NOW + timedelta(minutes=6)).isoformat()
EARLY = "2026-02-28T12:00:00Z"
ENTRIES: list[tuple[dict[str, Any], str]] = [
    ({"postings": [leg("none", 0, "XXQ")], "effective_at": LATER}, "too_few_postings"),
    ({"postings": [leg("none", 0), leg("none", OVER, "XXQ")], "effective_at": LATER}, "invalid_amount"),
    ({"postings": [leg("none", OVER, "XXQ"), leg("plain", 1)], "effective_at": LATER}, "amount_out_of_range"),
    ({"postings": [leg("none", -OVER, "XXQ"), leg("plain", 1)], "effective_at": LATER}, "amount_out_of_range"),
    ({"postings": [leg("none", 5, "XXQ"), leg("plain", 1)], "effective_at": LATER}, "unknown_currency"),
    ({"postings": [leg("none", 5), leg("plain", 1)], "effective_at": LATER}, "effective_at_in_future"),
    ({"postings": [leg("none", 5), leg("plain", 1)], "effective_at": EARLY}, "account_not_found"),
    ({"postings": [leg("fixed", 5, "JPY"), leg("cold", 1)], "effective_at": EARLY}, "postings_not_balanced"),
    (
        {"postings": [leg("fixed", 5, "JPY"), leg("cold", -5, "JPY"), leg("shut", 1), leg("plain", -1)]},
        "currency_mismatch",
    ),
    ({"postings": [leg("shut", -5), leg("cold", 5, expect_version=9)], "effective_at": EARLY}, "account_frozen"),
    ({"postings": [leg("plain", 5), leg("shut", -5, expect_version=9)], "effective_at": EARLY}, "account_closed"),
    ({"postings": [leg("plain", 5), leg("fixed", -5, expect_version=9)], "effective_at": EARLY}, "version_conflict"),
    ({"postings": [leg("plain", 5), leg("fixed", -5)], "effective_at": EARLY}, "period_closed"),
    (
        {
            "postings": [
                leg("plain", 2**63 - 1),
                leg("plain", 2**63 - 1),
                leg("fixed", -(2**63 - 1)),
                leg("top", -(2**63 - 1)),
            ]
        },
        "amount_out_of_range",
    ),
    ({"postings": [leg("plain", 5), leg("fixed", -5)]}, "insufficient_balance"),
    ({"postings": [leg("plain", -11), leg("fixed", 11)]}, "balance_over_ceiling"),
    ({"postings": [leg("plain", -10), leg("fixed", 10, expect_version=0)]}, "applied"),
]

OTHERS: list[tuple[str, dict[str, Any], str]] = [
    (
        "account.create.v1",
        {"name": "platform:cash", "type": "equity", "currency": "XXQ", "parent": "none"},
        "unknown_currency",
    ),
    ("account.create.v1", {"name": "platform:cash", "type": "equity", "parent": "none"}, "account_exists"),
    ("account.create.v1", {"name": "platform:fees", "type": "equity", "parent": "none"}, "account_type_mismatch"),
    ("account.create.v1", {"name": "merchant_settlement:9", "type": "asset"}, "account_type_mismatch"),
    ("account.create.v1", {"name": "new", "type": "asset", "parent": "none"}, "account_not_found"),
    ("account.update.v1", {"name": "none", "parent": "none"}, "account_not_found"),
    ("account.update.v1", {"name": "shut", "parent": "none"}, "account_not_found"),
    ("account.update.v1", {"name": "shut", "parent": "shut"}, "account_closed"),
    ("account.update.v1", {"name": "top", "parent": "below"}, "account_in_cycle"),
    ("account.update.v1", {"name": "top", "parent": "top"}, "account_in_cycle"),
    ("account.close.v1", {"name": "none"}, "account_not_found"),
    ("account.close.v1", {"name": "platform:cash"}, "account_not_empty"),
    ("account.close.v1", {"name": "shut"}, "applied"),
    ("period.close.v1", {"through": "2026-02-27"}, "period_closed"),
    ("period.close.v1", {"through": "2026-02-28"}, "applied"),
    ("entry.reverse.v1", {"entry_id": "no uuid"}, "entry_not_found"),
    ("tenant.create.v1", {}, "tenant_exists"),
]


@pytest.mark.parametrize(("type_name", "data", "code"), MONEY)
def test_a_fact_is_refused_for_the_first_rule_it_breaks(type_name: str, data: dict[str, Any], code: str) -> None:
    assert lived_in().code(type_name, **(LEAST[type_name] | data)) == code


@pytest.mark.parametrize(("data", "code"), ENTRIES)
def test_an_entry_is_refused_for_the_first_rule_it_breaks(data: dict[str, Any], code: str) -> None:
    assert lived_in().code("entry.post.v1", **data) == code


@pytest.mark.parametrize(("type_name", "data", "code"), OTHERS)
def test_a_request_is_refused_for_the_first_rule_it_breaks(type_name: str, data: dict[str, Any], code: str) -> None:
    assert lived_in().code(type_name, **data) == code


def test_a_refusal_leaves_the_books_as_they_were() -> None:
    for type_name, data, code in MONEY:
        if code == "applied" or code.startswith("parked "):
            continue
        small = lived_in()
        before = {name: dict(account.balances) for name, account in small.books.accounts.items()}
        small.code(type_name, **(LEAST[type_name] | data))
        assert {name: dict(account.balances) for name, account in small.books.accounts.items()} == before


def test_a_fact_says_everything_it_broke_in_the_order_of_a_requests_refusals() -> None:
    small = lived_in()
    limits = {"floor": {"JPY": 0}, "ceiling": {"JPY": -1_000}}
    small.code("account.create.v1", name="till", type="asset", currency="EUR", **limits)
    small.code("account.create.v1", name="customer_balance:c9", type="liability", ceiling={"JPY": 0}, floor={"JPY": 0})
    small.code("account.update.v1", name="till", status="frozen")
    small.code("account.close.v1", name="customer_balance:c9")
    money = {"currency": "JPY", "customer_id": "c9", "cash_account": "till"}
    old = datetime(2026, 2, 28, 23, 59, tzinfo=UTC)
    handled = small.send("refund.succeeded.v1", refund_id="r", amount=5, time=old, **money)
    assert isinstance(handled.outcome, Applied)
    entry = handled.outcome.entry
    assert entry is not None
    assert entry.breaches == list(BREACHES[:-1])
    assert (entry.effective_at, entry.occurred_at) == (datetime(2026, 3, 1, tzinfo=UTC), old)
    handled = small.send("payment.captured.v1", payment_id="q", amount=9, time=NOW + timedelta(days=400), **money)
    assert isinstance(handled.outcome, Applied)
    assert handled.outcome.entry is not None
    assert handled.outcome.entry.breaches == [BREACHES[0], BREACHES[1], BREACHES[2], BREACHES[5]]
    assert handled.outcome.entry.effective_at == NOW


def test_what_moves_back_is_no_breach() -> None:
    small = Small()
    small.books.closed_through["acme"] = date(2020, 1, 1)
    small.code("account.create.v1", name="bank", type="asset", floor={"EUR": 0}, ceiling={"EUR": 10})
    moves = [("refund.succeeded.v1", 50), ("payment.captured.v1", 20), ("payment.captured.v1", 80)]
    moves += [("refund.succeeded.v1", 5), ("refund.succeeded.v1", 45)]
    found = []
    for number, (type_name, amount) in enumerate(moves):
        money = {"amount": amount, "currency": "EUR", "customer_id": "c1", "cash_account": "bank"}
        name = "refund_id" if type_name.startswith("refund") else "payment_id"
        outcome = small.send(type_name, **{name: str(number)}, **money).outcome
        assert isinstance(outcome, Applied)
        assert outcome.entry is not None
        found.append([str(code) for code in outcome.entry.breaches])
    assert found == [["insufficient_balance"], [], ["balance_over_ceiling"], [], []]


def test_the_codes_of_the_domain_are_those_on_the_wire() -> None:
    assert tuple(str(code) for code in RejectionCode) == REJECTION_CODES


def test_every_type_on_the_wire_has_a_translation_and_nothing_else_has() -> None:
    assert set(TRANSLATIONS) == set(EVENT_TYPES)


@pytest.mark.parametrize("type_name", sorted(EVENT_TYPES))
def test_the_domain_and_the_wire_agree_on_what_a_type_is(type_name: str) -> None:
    small = Small()
    event = small.send(type_name, **LEAST[type_name]).event
    kind = EVENT_TYPES[type_name].kind
    assert event.command.fact == (kind == "fact")
    assert (event.command.taken is not None) == (kind == "create")
    assert (event.natural is None) == EVENT_TYPES[type_name].needs_key
