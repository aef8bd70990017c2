"""Corners of the domain that no drawn history comes to: found by changing it and seeing that nothing noticed."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from domain import decide
from domain.accounts import NORMAL_SIGN, Account, AccountStatus, AccountType, Balance, reserved_type
from domain.authorization_events import AuthorizationCaptured
from domain.authorization_states import Happening, drawing
from domain.authorizations import AuthorizationRequested
from domain.books import NOT_OPENED, Books
from domain.credit import LineOfCreditCreate
from domain.decide import decide_batch
from domain.disputes import DisputeOpened, DisputeReopened, DisputeSettled
from domain.events import Applied, Parked, Rejected
from domain.holds import HoldCaptured, HoldCreated
from domain.ids import account_id
from domain.keys import natural_key
from domain.money import EXPONENTS, exponent, in_major_units
from domain.payments import PaymentCaptured
from domain.reservations import Authorization, AuthorizationStatus, card_key, category_key
from tests.fixtures.cards import OWNER, card_payment, resolved, till
from tests.fixtures.cards import event_of as cards_event_of
from tests.fixtures.core import books, outcome_of
from tests.fixtures.desk import NOON, envelope, event_of, payment, refund

__all__ = ["books"]
from tests.unit.wire_samples import LEAST


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


# --- accounts --------------------------------------------------------------------------------------------------------


def told(books: Books, type_name: str, **data: Any) -> Any:
    """Decide one event; how it ended."""
    return outcome_of(books, envelope(type_name, **data))


def code(books: Books, type_name: str, **data: Any) -> str:
    outcome = told(books, type_name, **data)
    return str(outcome.code) if isinstance(outcome, Rejected | Parked) else "applied"


@pytest.mark.parametrize("limit", ["floor", "ceiling"])
@pytest.mark.parametrize("type_name", ["account.create.v1", "account.update.v1"])
def test_a_limit_is_within_what_the_books_can_count(books: Books, type_name: str, limit: str) -> None:
    assert code(books, "account.create.v1", name="there", type="asset") == "applied"
    data = {"name": "new", "type": "asset"} if "create" in type_name else {"name": "there"}
    for amount in (2**63, -(2**63)):
        assert code(books, type_name, **data, **{limit: {"EUR": amount}}) == "amount_out_of_range"
    assert code(books, type_name, **data, **{limit: {"EUR": -(2**63 - 1), "JPY": 2**63 - 1}}) == "applied"


def test_an_account_made_again_with_other_data_is_refused_by_its_own_code(books: Books) -> None:
    assert code(books, "account.create.v1", name="a", type="asset") == "applied"
    refused = told(books, "account.create.v1", name="a", type="liability")
    assert (refused.code, refused.conflicts_with) == ("account_exists", 1)


def test_an_account_is_put_below_another_and_on_top_again(books: Books) -> None:
    for name in ("top", "low"):
        assert code(books, "account.create.v1", name=name, type="asset") == "applied"
    top, low = books.accounts["acme", "top"], books.accounts["acme", "low"]
    books.changed_accounts.clear()
    assert code(books, "account.update.v1", name="low", parent="top") == "applied"
    assert low.parent_id == top.account_id
    assert books.changed_accounts == {low.account_id: low}
    assert code(books, "account.update.v1", name="low", description="x") == "applied"
    assert low.parent_id == top.account_id
    assert code(books, "account.update.v1", name="low", parent=None) == "applied"
    assert low.parent_id is None


def test_accounts_above_each_other_end(books: Books) -> None:
    """No ledger has them; what was read at different times may."""
    for name in ("a", "b", "c"):
        assert code(books, "account.create.v1", name=name, type="asset") == "applied"
    a, b, c = (books.accounts["acme", name] for name in "abc")
    a.parent_id, b.parent_id, c.parent_id = b.account_id, c.account_id, None
    assert list(books.ancestors(a)) == [b, c]
    c.parent_id = b.account_id
    with pytest.raises(ValueError, match="is above itself"):
        list(books.ancestors(a))


def test_the_first_account_that_an_event_makes_has_the_ordinal_1(books: Books) -> None:
    assert told(books, "account.create.v1", name="a", type="asset").result == {
        "account_id": str(account_id(1, 0, 1, 1))
    }


def test_a_fact_on_an_account_that_was_closed_or_frozen_says_so(books: Books) -> None:
    for name, status in (("frozen", "account_frozen"), ("shut", "account_closed")):
        code(books, "account.create.v1", name=name, type="asset")
        books.changed_accounts.clear()
        if status == "account_closed":
            code(books, "account.close.v1", name=name)
        else:
            code(books, "account.update.v1", name=name, status="frozen")
        assert [account.name for account in books.changed_accounts.values()] == [name]
        outcome = decide_batch([event_of(payment(name, 5, cash_account=name))], books).handled[0].outcome
        assert isinstance(outcome, Applied) and outcome.entry is not None
        assert outcome.entry.breaches == [status]
    code(books, "account.update.v1", name="frozen", status="active")
    outcome = decide_batch([event_of(payment("after", 5, cash_account="frozen"))], books).handled[0].outcome
    assert isinstance(outcome, Applied) and outcome.entry is not None and outcome.entry.breaches == []


def test_only_an_account_that_something_is_to_be_looked_at_on_is_guarded() -> None:
    plain = Account(NOT_OPENED, "acme", "a", AccountType.ASSET)
    assert not plain.guarded
    for change in (
        {"floors": {"EUR": 0}},
        {"ceilings": {"EUR": 0}},
        {"currency": "EUR"},
        {"status": AccountStatus.FROZEN},
    ):
        account = Account(NOT_OPENED, "acme", "a", AccountType.ASSET, **change)  # type: ignore[arg-type]
        assert account.guarded
        account.floors, account.ceilings, account.currency, account.status = {}, {}, None, AccountStatus.ACTIVE
        account.guard()
        assert not account.guarded


@pytest.mark.parametrize("left", ["posted", "pending", "held"])
def test_an_account_with_anything_on_it_in_any_currency_is_not_empty(left: str) -> None:
    account = Account(NOT_OPENED, "acme", "a", AccountType.ASSET, balances={"EUR": Balance(version=4)})
    assert account.is_empty
    account.balances["JPY"] = Balance(**{left: 1})
    assert not account.is_empty


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("platform:cash", "asset"), ("platform:fees", "revenue"), ("platform:disputes_held", "asset"),
        ("platform:dispute_fees", "expense"), ("platform:dispute_losses", "expense"),
        ("customer_balance:c", "liability"), ("merchant_settlement:m", "liability"), ("subledger:s", "asset"),
        ("subledger_contra:s", "equity"), ("fx:EUR", "equity"), ("fx:rounding", "equity"),
        ("customer_balance", None), ("customer_balance:", None), ("fx", None), ("wallet:a", None), ("platform:x", None),
    ],
)  # fmt: skip
def test_names_that_events_make_accounts_of_have_their_types(name: str, kind: str | None) -> None:
    assert reserved_type(name) == kind


# --- tenants and periods ---------------------------------------------------------------------------------------------


def test_a_tenant_is_registered_once_and_only_on_a_shard_that_there_is(books: Books) -> None:
    assert code(books, "tenant.create.v1", shard=7) == "tenant_not_found"
    assert not books.new_tenants
    books = Books(shard=3, epoch=1, next_seq=1, recorded_at=NOON)
    assert told(books, "tenant.create.v1", shard=3).result == {"tenant_id": "acme", "shard": 3}
    assert code(books, "tenant.create.v1") == "tenant_exists"


def test_a_closed_period_is_told_and_stays_closed(books: Books) -> None:
    assert told(books, "period.close.v1", through="2026-02-28").result == {"through": "2026-02-28"}
    assert code(books, "period.close.v1", through="2026-02-27") == "period_closed"
    assert code(books, "period.close.v1", through="2026-02-28") == "applied"


# --- what a refusal says ---------------------------------------------------------------------------------------------

OVER = 2**63
MOST = 2**63 - 1


@pytest.mark.parametrize(
    ("type_name", "data", "named"),
    [
        ("payment.captured.v1", {"fees": -1}, "fees is -1"),
        ("dispute.opened.v1", {"fees": -1}, "fees is -1"),
        ("dispute.opened.v1", {"amount": MOST, "fees": 1}, "amount and fees is"),
        ("dispute.reopened.v1", {"fees": -1}, "fees is -1"),
        ("dispute.reopened.v1", {"amount": MOST, "fees": 1}, "amount and fees is"),
        ("authorization.requested.v1", {"hold_amount": -1}, "hold_amount is -1"),
        ("authorization.requested.v1", {"hold_amount": OVER}, "hold_amount is 9223372036854775808"),
        ("line_of_credit.create.v1", {"credits_limit": -1}, "credits_limit is -1"),
        ("line_of_credit.create.v1", {"expensed_credits": -1}, "expensed_credits is -1"),
        ("line_of_credit.set_limit.v1", {"credits_limit": OVER}, "credits_limit is"),
        ("line_of_credit.reset.v1", {"credits_limit": OVER}, "credits_limit is"),
        ("line_of_credit.reset.v1", {"expensed_credits": OVER}, "expensed_credits is"),
        ("transfer.created.v1", {"amount": 0}, "amount is 0; it must be at least 1"),
    ],
)  # fmt: skip
def test_a_refused_amount_is_named(books: Books, type_name: str, data: dict[str, Any], named: str) -> None:
    outcome = told(books, type_name, **(LEAST[type_name] | data))
    assert isinstance(outcome, Rejected) and named in outcome.message


def test_more_than_can_be_counted_is_named(books: Books) -> None:
    opened = {"dispute_id": "d", "amount": MOST, "currency": "EUR", "customer_id": "c"}
    assert code(books, "dispute.opened.v1", **opened) == "applied"
    more = told(books, "dispute.reopened.v1", dispute_id="d", reopening_id="1", amount=1)
    assert isinstance(more, Rejected) and more.message.startswith("the amount held is")

    cards = till()
    held = {"hold_id": "h", "account": "bank", "amount": 9, "currency": "EUR"}
    assert cards.code("hold.created.v1", **held) == "applied"
    assert cards.code("hold.captured.v1", hold_id="h", amount=4, final=False, capture_id="1") == "applied"
    over = cards.send("hold.adjusted.v1", hold_id="h", adjustment_id="1", amount=MOST - 3).outcome
    assert isinstance(over, Rejected) and over.code == "amount_out_of_range"
    assert over.message.startswith("what is held and captured is")
    assert cards.code("hold.adjusted.v1", hold_id="h", adjustment_id="2", amount=MOST - 2_000) == "applied"

    ids = {"provider": "visa", "external_id": "x1"}
    cards.later("captured", amount=MOST - 1, force_post=True, currency="EUR")
    for number, (what, named) in enumerate((("captured", "what is captured"), ("refunded", "what is refunded"))):
        if what == "refunded":
            cards.later("refunded", amount=MOST - 1)
        ids["event_id"] = f"over{number}"
        refused = cards.send(f"authorization.{what}.v1", **ids, amount=2).outcome
        assert isinstance(refused, Rejected) and refused.message.startswith(named)


def test_the_books_units_and_how_they_are_shown() -> None:
    assert Counter(EXPONENTS.values()) == {0: 17, 2: 140, 3: 7, 4: 2, 6: 8, 7: 1, 8: 12}
    assert (exponent("XLM"), exponent("ETH"), exponent("USDC"), exponent("EUR"), exponent("nope")) == (7, 8, 6, 2, None)
    shown = [in_major_units(0, "EUR"), in_major_units(-5, "EUR"), in_major_units(1_234_567, "EUR")]
    assert shown == ["0.00 EUR", "-0.05 EUR", "12,345.67 EUR"]
    assert [in_major_units(-1_500, "JPY"), in_major_units(15, "nope")] == ["-1,500 JPY", "15 nope"]


# --- entries on request ----------------------------------------------------------------------------------------------


def test_an_entry_may_be_five_minutes_ahead_and_no_more(books: Books) -> None:
    for name in ("a", "b"):
        code(books, "account.create.v1", name=name, type="asset")
    legs = [{"account": "a", "amount": 5, "currency": "EUR"}, {"account": "b", "amount": -5, "currency": "EUR"}]
    tolerated = NOON + timedelta(minutes=5)
    assert code(books, "entry.post.v1", postings=legs, effective_at=tolerated.isoformat()) == "applied"
    ahead = (tolerated + timedelta(microseconds=1)).isoformat()
    assert code(books, "entry.post.v1", postings=legs, effective_at=ahead) == "effective_at_in_future"


@pytest.mark.parametrize("amount", [OVER, -OVER])
def test_a_leg_is_within_what_the_books_can_count(books: Books, amount: int) -> None:
    legs = [
        {"account": "a", "amount": amount, "currency": "EUR"},
        {"account": "b", "amount": -amount, "currency": "EUR"},
    ]
    assert code(books, "entry.post.v1", postings=legs) == "amount_out_of_range"


def test_a_reversal_is_the_opposite_of_what_was_posted_and_of_nothing_else(books: Books) -> None:
    for name in ("a", "b"):
        code(books, "account.create.v1", name=name, type="asset")
    legs = [{"account": "a", "amount": 5, "currency": "EUR"}, {"account": "b", "amount": -5, "currency": "EUR"}]
    posted = told(books, "entry.post.v1", postings=legs, payment_id="p", description="x").entry
    back = told(books, "entry.reverse.v1", entry_id=str(posted.entry_id), description="y").entry
    assert (back.kind, back.reverses, back.references, back.description) == (
        "reversal",
        posted.entry_id,
        posted.references,
        "y",
    )
    assert [(leg.account.name, leg.amount) for leg in back.postings] == [("a", -5), ("b", 5)]
    assert code(books, "entry.reverse.v1", entry_id=str(back.entry_id)) == "entry_not_reversible"
    assert code(books, "entry.reverse.v1", entry_id="none") == "entry_not_found"
    other = envelope("entry.reverse.v1", tenant="globex", entry_id=str(posted.entry_id))
    outcome = decide_batch([event_of(other)], books).handled[0].outcome
    assert isinstance(outcome, Rejected) and outcome.code == "entry_not_found"


# --- categories, lines and cards -------------------------------------------------------------------------------------


def test_what_a_request_about_credit_made_is_told() -> None:
    books = till()
    for type_name, data, result in (
        ("expense_category.create.v1", {"code": "c", "name": "C"}, {"code": "c"}),
        ("line_of_credit.set_limit.v1", {"line_of_credit_id": "L1", "credits_limit": 5}, {"line_of_credit_id": "L1"}),
        ("card.assign.v1", {"card_id": "k", "owner_type": "team", "owner_ref": OWNER}, {"card_id": "k"}),
        ("card.unassign.v1", {"card_id": "k", "owner_type": "team", "owner_ref": OWNER}, {"card_id": "k"}),
    ):
        outcome = books.send(type_name, **data).outcome
        assert isinstance(outcome, Applied) and outcome.result == result


def test_a_card_is_its_owners_until_it_is_unassigned_from_just_that_owner() -> None:
    books, key = till(), card_key("acme", "k")
    other = OWNER.replace("1", "2")

    def owner() -> tuple[str | None, str | None]:
        card = books.books.cards.get(key)
        assert card is not None and (card.tenant_id, card.card_id) == ("acme", "k")
        return card.owner_type, card.owner_ref

    books.code("card.assign.v1", card_id="k", owner_type="team", owner_ref=OWNER.upper())
    assert owner() == ("team", OWNER)
    books.books.cards.touched.clear()
    books.code("card.unassign.v1", card_id="k", owner_type="team", owner_ref=other)
    books.code("card.unassign.v1", card_id="k", owner_type="employee", owner_ref=OWNER)
    assert owner() == ("team", OWNER) and not books.books.cards.touched
    books.code("card.assign.v1", card_id="k", owner_type="employee", owner_ref=other)
    assert owner() == ("employee", other)
    books.code("card.unassign.v1", card_id="k", owner_type="employee", owner_ref=other.upper())
    assert owner() == (None, None) and books.books.cards.touched.keys() == {key}
    assert books.code("card.unassign.v1", card_id="never", owner_type="team", owner_ref=OWNER) == "applied"
    assert books.books.cards.get(card_key("acme", "never")) is None


def test_a_line_is_kept_as_it_was_asked_for() -> None:
    books = till()
    asked = {"line_of_credit_id": "L3", "owner_type": "team", "owner_ref": OWNER.upper(), "expense_category": "food"}
    assert books.code("line_of_credit.create.v1", **asked, currency="EUR") == "applied"
    line = books.line("L3")
    assert (line.owner_type, line.owner_ref, line.credits_limit, line.expensed_credits) == ("team", OWNER, 0, 0)
    assert books.code("line_of_credit.create.v1", **asked | {"line_of_credit_id": "L4"}, currency="EUR") == (
        "line_of_credit_exists"
    )
    assert books.code("line_of_credit.terminate.v1", line_of_credit_id="L3") == "applied"
    assert books.code("line_of_credit.terminate.v1", line_of_credit_id="L3") == "applied"
    assert (
        books.code("line_of_credit.set_limit.v1", line_of_credit_id="L3", credits_limit=1) == "line_of_credit_not_found"
    )
    # Another may take its place.
    assert books.code("line_of_credit.create.v1", **asked | {"line_of_credit_id": "L4"}, currency="EUR") == "applied"


def test_a_category_is_kept_as_it_was_asked_for() -> None:
    books = till()
    books.code("expense_category.create.v1", code="fuel", name="Fuel", description="d", reference="r", match=[])
    books.code("expense_category.create.v1", code="bare", name="Bare")
    fuel, bare = (books.books.categories[category_key("acme", code)] for code in ("fuel", "bare"))
    assert (fuel.name, fuel.description, fuel.reference, fuel.match) == ("Fuel", "d", "r", b"[]")
    assert (bare.description, bare.reference, bare.match) == (None, None, b"[]")
    assert books.code("expense_category.create.v1", code="fuel", name="Other") == "expense_category_exists"


def test_a_line_in_a_unit_that_nobody_defined_is_refused() -> None:
    asked = {"owner_type": "team", "owner_ref": OWNER, "expense_category": "food", "currency": "XXQ"}
    assert till().code("line_of_credit.create.v1", line_of_credit_id="L3", **asked) == "unknown_currency"


# --- card payments --------------------------------------------------------------------------------------------------


def test_a_decision_says_what_was_asked_for_and_what_is_held() -> None:
    decision = till().request(account="wallet")
    assert (decision.amount, decision.currency, decision.categories) == (80, "EUR", ("food", "travel"))
    declined = till().request(amount=500, account="wallet")
    assert (declined.amount, declined.hold_amount, declined.categories) == (500, None, ("food", "travel"))
    for more, held in (({"account": "wallet"}, 80), ({"account": "wallet", "hold_amount": 90}, 90), ({}, None)):
        advised = till().advise(**more).decision
        assert advised is not None and (advised.hold_amount, advised.amount) == (held, 80)
        assert (advised.account is None) == ("account" not in more)


def test_an_adjustment_puts_off_the_end() -> None:
    books = till()
    books.request(account="wallet")
    later = NOON + timedelta(days=30)
    books.later("adjusted", amount=80, expires_at=later.isoformat())
    assert books.authorization().expires_at == later
    books.later("adjusted", amount=70)
    assert books.authorization().expires_at == later


@pytest.mark.parametrize(("refunded", "expensed"), [(20, 50), (80, 0)])
def test_a_part_that_is_released_leaves_what_is_authorized_less_what_came_back(refunded: int, expensed: int) -> None:
    books = till()
    books.request(account="wallet")
    books.later("captured", amount=20, final=False)
    books.later("refunded", amount=refunded)
    changed = books.changed("released", amount=10, reason="partial")
    assert (changed.status, changed.authorized, changed.captured) == ("approved", 70, 20)
    assert (books.expensed, books.balance()[1]) == ((expensed, expensed), 50)


def test_what_was_refused_leaves_no_currency_behind() -> None:
    books = till()
    books.later("confirmed")
    books.code("line_of_credit.reset.v1", line_of_credit_id="L1", credits_limit=0, expensed_credits=MOST)
    made = resolved(cards_event_of("authorization.advised.v1", card_payment()), {"food": "L1"})
    refused = books.give(made).outcome
    assert isinstance(refused, Rejected) and refused.code == "amount_out_of_range"
    assert books.authorization().currency is None
    assert books.later("captured", amount=5, force_post=True, currency="JPY", account="bank").entry is not None


def test_an_advice_of_nothing_opens_the_account_that_it_names() -> None:
    books = till()
    seq = books.books.next_seq
    books.advise(amount=0, account="new")
    assert books.books.accounts["acme", "new"].account_id == account_id(1, 0, seq, 1)


def test_what_is_left_of_an_authorization() -> None:
    paid = Authorization("acme", "visa", "x", AuthorizationStatus.APPROVED, authorized=80, captured=30)
    assert paid.left == 50
    paid.captured = 90
    assert paid.left == 0
    paid.captured, paid.status = 30, AuthorizationStatus.CAPTURED
    assert paid.left == 0


def test_no_more_is_approved_than_an_account_can_hold() -> None:
    books = till(limit=MOST, funds=0)
    books.code("account.update.v1", name="wallet", floor={"EUR": -MOST})
    asked = {"partial_approval": True, "account": "wallet", "off": True}
    assert books.request(amount=MOST, **asked).approved_amount == MOST
    second = books.request(external_id="b", amount=1, **asked)
    assert (second.decision, second.reason) == ("declined", "insufficient_balance")


def test_more_than_one_transaction_takes_is_a_number_that_the_loaders_know() -> None:
    assert (decide.RESUMED_MAX, decide.WAITING_MAX) == (5_000, 1_000)


# --- what one event leaves for the next -----------------------------------------------------------------------------


def test_an_account_that_a_refused_event_would_have_opened_leaves_nothing_to_the_next(books: Books) -> None:
    full = payment("p1", MOST)
    refused = payment("p2", 5, cash_account="fresh")
    ids = {"provider": "visa", "external_id": "x1", "event_id": "e1"}
    posted = envelope("authorization.captured.v1", **ids, amount=1, force_post=True, currency="EUR", account="fresh")
    handled = decide_batch([event_of(document) for document in (full, refused, posted)], books).handled
    assert [type(each.outcome) for each in handled] == [Applied, Rejected, Applied]
    assert books.accounts["acme", "fresh"].type is AccountType.LIABILITY


def test_the_table_of_states_is_drawn_with_every_row() -> None:
    assert len(drawing().splitlines()) == 2 + len(Happening)


def test_what_came_back_is_kept_as_failed_and_nothing_before(books: Books) -> None:
    paid = {"amount": 5, "currency": "EUR", "provider": "psp"}
    refunded = {"refund_id": "r", "customer_id": "c"} | paid
    paid_out = {"payout_id": "o", "merchant_id": "m"} | paid

    def failed() -> list[bool]:
        refund_ = books.refunds.get(natural_key("acme", "refund", "psp", "r"))
        payout = books.payouts.get(natural_key("acme", "payout", "psp", "o"))
        assert refund_ is not None and payout is not None
        return [refund_.failed, payout.failed]

    assert code(books, "refund.succeeded.v1", **refunded) == code(books, "payout.paid.v1", **paid_out) == "applied"
    assert failed() == [False, False]
    assert code(books, "refund.failed.v1", refund_id="r", provider="psp") == "applied"
    assert code(books, "payout.failed.v1", payout_id="o", provider="psp") == "applied"
    assert failed() == [True, True]


def test_an_event_claims_the_keys_that_it_has_and_makes_its_tenant_once(books: Books) -> None:
    without, with_all = event_of(payment("p1")), event_of(payment("p2", key="k"))
    plain = event_of(envelope("account.close.v1", name="none"))
    decide_batch([without, plain, with_all], books)
    assert books.claims.keys() == {
        *(without.delivery, without.natural),
        *(plain.delivery, plain.publisher),
        *(with_all.delivery, with_all.natural, with_all.publisher),
    }
    assert books.new_tenants == books.known_tenants == {"acme"}
    books.new_tenants.clear()
    decide_batch([event_of(payment("p3"))], books)
    assert books.new_tenants == set()


def test_where_tenants_are_registered_nobody_else_has_events() -> None:
    books = Books(shard=0, epoch=1, next_seq=1, recorded_at=NOON, registered_only=True)
    assert code(books, "account.create.v1", name="a", type="asset") == "tenant_not_found"
    assert not books.new_tenants
    assert code(books, "tenant.create.v1") == "applied"
    assert books.new_tenants == books.known_tenants == {"acme"}
    assert code(books, "account.create.v1", name="a", type="asset") == "applied"


def test_the_most_that_can_be_counted_is_posted(books: Books) -> None:
    for name in ("a", "b"):
        code(books, "account.create.v1", name=name, type="asset")
    legs = [{"account": "a", "amount": MOST, "currency": "EUR"}, {"account": "b", "amount": -MOST, "currency": "EUR"}]
    assert code(books, "entry.post.v1", postings=legs) == "applied"


def test_an_account_of_another_unit_declines_a_card_payment() -> None:
    books = till()
    books.code("account.create.v1", name="yen", type="liability", currency="JPY", floor={"EUR": -1_000})
    assert books.request(account="yen").reasons == ("currency_mismatch",)


def test_a_known_delivery_with_another_body_is_told_once_a_body(books: Books) -> None:
    first = payment("p1", 5)
    other, third = (first | {"data": first["data"] | {"amount": amount}} for amount in (6, 7))
    decided = decide_batch([event_of(document) for document in (first, other, other, third, third, first)], books)
    codes = [getattr(each.outcome, "code", "applied") for each in decided.handled]
    assert (codes, decided.duplicates) == (["applied", "idempotency_conflict", "idempotency_conflict"], 3)


def test_a_conflict_takes_no_key_but_its_delivery(books: Books) -> None:
    made = envelope("account.create.v1", name="a", type="asset", key="k")
    other = envelope("account.close.v1", name="a", key="k")
    handled = decide_batch([event_of(made), event_of(other)], books).handled
    assert [type(each.outcome) for each in handled] == [Applied, Rejected]
    assert event_of(other).delivery in books.claims
    assert decide_batch([event_of(other)], books).duplicates == 1
    assert books.claims[event_of(made).publisher or b""].seq == handled[0].seq  # type: ignore[index]


def test_two_legs_on_one_account_stay_two(books: Books) -> None:
    for name in ("a", "b"):
        code(books, "account.create.v1", name=name, type="asset")
    amounts = [("a", 5), ("a", -2), ("b", -3)]
    legs = [{"account": name, "amount": amount, "currency": "EUR"} for name, amount in amounts]
    applied = told(books, "entry.post.v1", postings=legs)
    assert [(leg.account.name, leg.amount, leg.posted_after, leg.version) for leg in applied.entry.postings] == [
        ("a", 5, 3, 1), ("a", -2, 3, 1), ("b", -3, -3, 1),
    ]  # fmt: skip
    assert [(change.account.name, change.posted_change) for change in applied.changes] == [("a", 3), ("b", -3)]


def test_all_that_a_line_has_may_be_spent_and_no_more() -> None:
    assert till(limit=80).request(amount=80).decision == "approved"
    assert till(limit=80).request(amount=81).reasons == ("insufficient_credits",)


def test_a_capture_that_would_take_its_account_over_the_ceiling_is_refused() -> None:
    books = till()
    assert books.code("account.update.v1", name="wallet", ceiling={"EUR": 1_004}) == "applied"
    held = {"account": "wallet", "currency": "EUR", "direction": "in"}
    for hold_id, amount, ended in (("h5", 5, "balance_over_ceiling"), ("h4", 4, "applied")):
        assert books.code("hold.created.v1", hold_id=hold_id, amount=amount, **held) == "applied"
        assert books.code("hold.captured.v1", hold_id=hold_id) == ended


@pytest.mark.parametrize(
    ("direction", "order"), [("in", ["platform:cash", "wallet"]), ("out", ["wallet", "platform:cash"])]
)
def test_a_capture_debits_first(direction: str, order: list[str]) -> None:
    books = till()
    held = {"account": "wallet", "amount": 5, "currency": "EUR", "direction": direction}
    assert books.code("hold.created.v1", hold_id="h", **held) == "applied"
    entry = getattr(books.send("hold.captured.v1", hold_id="h").outcome, "entry")  # noqa: B009
    assert [(leg.account.name, leg.amount) for leg in entry.postings] == [(order[0], 5), (order[1], -5)]


def test_an_adjustment_that_moves_nothing_is_not_refused() -> None:
    books = till()
    held = {"account": "wallet", "amount": 5, "currency": "EUR"}
    assert books.code("hold.created.v1", hold_id="h", **held) == "applied"
    assert books.code("account.update.v1", name="wallet", status="frozen") == "applied"
    for number, (amount, ended) in enumerate(((5, "applied"), (4, "applied"), (5, "account_frozen"))):
        sent = {"hold_id": "h", "adjustment_id": str(number), "amount": amount}
        assert books.code("hold.adjusted.v1", **sent) == ended


def test_where_not_all_who_wait_are_loaded_the_clock_looks_for_the_rest(books: Books) -> None:
    books.waiting_whole = False
    arrived = event_of(payment("p1", 5))
    assert decide_batch([arrived], books).left_waiting == {arrived.arrives}


def test_what_a_command_leaves_out_is_what_the_contract_says() -> None:
    captured = AuthorizationCaptured("visa", "x1", "e1", 5)
    assert (captured.final, captured.force_post) == (True, False)
    assert AuthorizationRequested("visa", "x1", 5, "EUR", "c1", {}).partial_approval is False
    assert (HoldCreated("h1", "wallet", 5, "EUR").direction, HoldCaptured("h1").final) == ("in", True)
    paid = PaymentCaptured("p1", 5, "EUR", "c1")
    opened, reopened = DisputeOpened("d1", 5, "EUR", "c1"), DisputeReopened("d1", "r1", 5)
    assert (paid.fees, opened.fees, reopened.fees) == (0, 0, 0)
    assert paid.cash_account == opened.cash_account == "platform:cash"
    assert DisputeSettled("d1", won=False).charge_to == "customer"


def test_a_line_begins_with_nothing_unless_it_says_so() -> None:
    line = LineOfCreditCreate("L1", "team", OWNER, "food", "EUR")
    assert (line.credits_limit, line.expensed_credits) == (0, 0)
