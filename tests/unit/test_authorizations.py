"""What is decided on card payments, and what becomes of lines of credit and holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain.decide import decide_batch
from domain.events import Applied
from domain.expiry import HoldExpired
from domain.reservations import Resolution
from infra.expiry import expiry_event
from tests.fixtures.cards import NOW, OWNER, card_payment, event_of, resolved, till

ONE = {"food": "L1"}


def test_an_approved_payment_is_expensed_on_each_line_and_held_on_its_account() -> None:
    books = till()
    decision = books.request(account="wallet")
    assert (decision.decision, decision.reason, decision.reasons) == ("approved", None, ())
    assert (decision.approved_amount, decision.hold_amount) == (80, 80)
    assert decision.lines == [("L1", 20), ("L2", 20)]
    assert decision.account == ("wallet", -1_000, 80, 920)
    assert books.expensed == (80, 80)
    assert books.balance() == (-1_000, 80)


def test_of_two_requests_of_80_on_a_line_of_100_one_is_approved() -> None:
    books = till()
    assert books.request(external_id="a").decision == "approved"
    second = books.request(external_id="b")
    assert (second.decision, second.reason) == ("declined", "insufficient_credits")
    assert books.expensed == (80, 80)


def test_of_two_lines_neither_is_touched_if_one_is_short() -> None:
    books = till()
    books.code("line_of_credit.set_limit.v1", line_of_credit_id="L2", credits_limit=79)
    assert books.request().reasons == ("insufficient_credits",)
    assert books.expensed == (0, 0)


CHECKS: list[tuple[dict[str, Any], list[str]]] = [
    ({"lines": {}, "account": "none"}, ["no_expense_category", "account_not_found"]),
    ({"lines": {"food": "L1", "nope": "L9"}}, ["expense_category_not_found"]),
    ({"lines": {"food": "L9"}, "account": "cold"}, ["no_line_of_credit", "account_frozen", "insufficient_balance"]),
    ({"resolution": Resolution(frozenset(["food", "travel"]), ONE)}, ["no_line_of_credit"]),
    ({"resolution": Resolution(frozenset(["food"]), None)}, ["no_line_of_credit"]),
    ({"lines": {"food": "L1", "toys": "L3"}}, ["currency_mismatch"]),
    ({"lines": {"toys": "L3", "nope": "L9"}}, ["expense_category_not_found"]),
    ({"lines": {"toys": "L3", "food": "L9"}}, ["no_line_of_credit"]),
    ({"currency": "JPY", "account": "wallet"}, ["currency_mismatch", "insufficient_balance"]),
    ({"amount": 101, "account": "poor"}, ["insufficient_credits", "insufficient_balance"]),
    ({"amount": 101, "account": "shut"}, ["insufficient_credits", "account_closed", "insufficient_balance"]),
    ({"account": "poor"}, ["insufficient_balance"]),
    ({"off": True}, ["no_line_of_credit"]),
    ({"off": True, "account": "poor"}, ["insufficient_balance"]),
    ({"resolution": Resolution(failed=True), "account": "none"}, ["resolver_failed"]),
    ({"respond_by": (NOW - timedelta(seconds=1)).isoformat(), "account": "none"}, ["expired_before_decision"]),
]


@pytest.mark.parametrize(("data", "reasons"), CHECKS)
def test_a_payment_is_declined_for_all_checks_that_fail_in_their_order(
    data: dict[str, Any], reasons: list[str]
) -> None:
    books = till()
    books.code("expense_category.create.v1", code="toys", name="Toys")
    owned = {"owner_type": "team", "owner_ref": OWNER, "expense_category": "toys", "currency": "JPY"}
    assert books.code("line_of_credit.create.v1", line_of_credit_id="L3", credits_limit=1_000, **owned) == "applied"
    for name in ("cold", "shut", "poor"):
        books.code("account.create.v1", name=name, type="liability")
    books.code("account.update.v1", name="cold", status="frozen")
    books.code("account.close.v1", name="shut")
    decision = books.request(**data)
    assert (decision.decision, decision.reason, list(decision.reasons)) == ("declined", reasons[0], reasons)
    assert (decision.approved_amount, decision.hold_amount) == (0, None)
    assert books.expensed == (0, 0)
    assert books.balance("poor")[1] == 0


def test_without_resolvers_the_account_alone_decides() -> None:
    books = till()
    assert books.request(off=True, account="wallet", amount=900).decision == "approved"
    assert (books.balance(), books.expensed) == ((-1_000, 900), (0, 0))


def test_an_answer_that_is_still_waited_for_is_given() -> None:
    assert till().request(respond_by=NOW.isoformat()).decision == "approved"


def test_an_amount_of_0_is_approved_and_expenses_nothing() -> None:
    books = till(limit=0, funds=0)
    decision = books.request(amount=0, account="wallet")
    assert (decision.decision, decision.approved_amount, decision.hold_amount) == ("approved", 0, 0)
    assert (books.expensed, books.balance()) == ((0, 0), (0, 0))
    assert books.request(external_id="b", amount=0, lines={}).reason == "no_expense_category"


def test_an_amount_of_0_asks_for_no_credits_and_no_balance_where_there_are_less_than_none() -> None:
    books = till(limit=0, funds=0)
    books.advise(account="wallet", amount=5)
    assert (books.line().available, books.books.accounts["acme", "wallet"].available("EUR")) == (-5, -5)
    assert books.request(external_id="b", amount=0, account="wallet").decision == "approved"
    assert books.request(external_id="c", amount=1, account="wallet").reasons == (
        "insufficient_credits",
        "insufficient_balance",
    )


def test_an_account_of_the_payments_own_unit_is_no_mismatch() -> None:
    books = till()
    books.code("account.create.v1", name="euros", type="liability", currency="EUR", floor={"EUR": -100})
    assert books.request(account="euros").decision == "approved"


def test_the_least_that_lines_and_account_have_is_approved_where_less_will_do() -> None:
    books = till(funds=60)
    books.code("line_of_credit.set_limit.v1", line_of_credit_id="L2", credits_limit=70)
    decision = books.request(partial_approval=True, account="wallet", hold_amount=300)
    assert (decision.decision, decision.reason, decision.approved_amount) == ("approved", "partial", 60)
    assert decision.reasons == ("insufficient_credits", "insufficient_balance")
    assert decision.hold_amount == 60
    assert (books.expensed, books.balance()) == ((60, 60), (-60, 60))


def test_nothing_left_is_no_part_and_the_least_unit_is_one() -> None:
    assert till(limit=0).request(partial_approval=True).decision == "declined"
    decision = till(limit=1).request(partial_approval=True)
    assert (decision.decision, decision.reason, decision.approved_amount) == ("approved", "partial", 1)


def test_more_than_an_account_can_count_as_held_is_declined() -> None:
    books, most = till(limit=2**63 - 1, funds=10), 2**63 - 1
    books.code("account.update.v1", name="wallet", floor={"EUR": -most})
    assert books.request(external_id="a", amount=5, off=True, account="wallet").decision == "approved"
    over = books.request(external_id="b", amount=most - 4, off=True, account="wallet")
    assert (over.decision, over.reasons) == ("declined", ("insufficient_balance",))
    assert books.request(external_id="c", amount=most - 5, off=True, account="wallet").decision == "approved"
    assert books.balance() == (-10, most)


def test_an_account_that_nothing_was_posted_to_is_shown_with_nothing() -> None:
    decision = till(funds=0).request(account="wallet")
    assert (decision.decision, decision.account) == ("declined", ("wallet", 0, 0, 0))


def test_a_floor_below_0_is_room() -> None:
    books = till(funds=0)
    books.code("account.update.v1", name="wallet", floor={"EUR": -50})
    assert books.request(amount=50, account="wallet").decision == "approved"
    assert books.request(external_id="b", amount=1, account="wallet").reason == "insufficient_balance"


def test_a_fuel_pump_holds_more_than_it_asks_for() -> None:
    books = till(limit=10_000, funds=20_000)
    decision = books.request(amount=100, hold_amount=10_000, account="wallet")
    assert (decision.approved_amount, decision.hold_amount) == (100, 10_000)
    assert (books.expensed, books.balance()) == ((100, 100), (-20_000, 10_000))
    changed = books.changed("captured", amount=6_320)
    assert (changed.status, changed.authorized, changed.captured) == ("captured", 100, 6_320)
    assert (books.expensed, books.balance()) == ((6_320, 6_320), (-13_680, 0))


def test_a_hotel_adjusts_twice_captures_twice_and_releases_the_rest() -> None:
    books = till(limit=500)
    books.request(amount=200, account="wallet")
    books.later("adjusted", amount=300)
    books.later("adjusted", amount=400)
    assert (books.expensed, books.balance()) == ((400, 400), (-1_000, 400))
    books.later("captured", amount=150, final=False)
    books.later("captured", amount=100, final=False)
    assert (books.expensed, books.balance()) == ((400, 400), (-750, 150))
    changed = books.changed("released", reason="partial")
    assert (changed.status, changed.authorized, changed.captured) == ("released", 250, 250)
    assert (books.expensed, books.balance()) == ((250, 250), (-750, 0))


def test_a_tip_is_captured_over_what_was_authorized() -> None:
    books = till()
    books.request(amount=80, account="wallet")
    books.later("captured", amount=96)
    assert (books.expensed, books.balance()) == ((96, 96), (-904, 0))


def test_an_adjustment_goes_past_the_limit() -> None:
    books = till(funds=100)
    books.request(account="wallet")
    books.later("adjusted", amount=500)
    assert (books.expensed, books.line().available, books.balance()) == ((500, 500), -400, (-100, 500))


def test_an_older_adjustment_is_superseded() -> None:
    books = till()
    books.request()
    books.later("adjusted", amount=60)
    older = books.changed("adjusted", amount=95, time=NOW - timedelta(seconds=1))
    assert (older.superseded, older.authorized, books.expensed) == (True, 60, (60, 60))


def test_clearing_after_expiry_is_posted_with_its_breach() -> None:
    books = till()
    books.request(account="wallet")
    assert books.expire()
    assert (books.expensed, books.balance(), books.authorization().status) == ((0, 0), (-1_000, 0), "released")
    outcome = books.later("captured", amount=80)
    assert outcome.entry is not None
    assert outcome.entry.breaches == ["hold_not_pending"]
    assert (books.expensed, books.balance()) == ((80, 80), (-920, 0))


def test_of_a_capture_and_an_expiry_the_first_wins() -> None:
    books = till()
    books.request(account="wallet")
    assert books.later("captured", amount=80).entry is not None
    assert not books.expire()
    assert books.balance() == (-920, 0)


def test_an_end_that_was_put_off_or_is_of_nothing_does_not_come() -> None:
    books = till()
    books.request(account="wallet")
    ends = books.authorization().expires_at
    assert ends is not None
    books.later("adjusted", amount=80, expires_at=(ends + timedelta(days=1)).isoformat())
    for overtaken in (HoldExpired(ends, None, "visa", "x1"), HoldExpired(ends, None, "visa", "never")):
        assert not decide_batch([expiry_event("acme", overtaken)], books.books).handled
    assert (books.expensed, books.balance()) == ((80, 80), (-1_000, 80))


def test_an_authorization_of_lines_alone_ends_too() -> None:
    books = till()
    books.request()
    assert books.expire()
    assert books.expensed == (0, 0)


def test_a_force_post_needs_no_authorization() -> None:
    books = till()
    outcome = books.later("captured", amount=70, force_post=True, currency="EUR", account="wallet")
    assert outcome.entry is not None
    assert outcome.entry.kind == "authorization_captured"
    assert (books.balance(), books.expensed) == ((-930, 0), (0, 0))
    # What follows knows it.
    assert books.changed("refunded", amount=20) == ("visa", "x1", "captured", False, 0, 70, 20, False)
    assert books.balance() == (-950, 0)


def test_a_force_post_in_a_unit_that_nobody_defined_is_refused() -> None:
    data = {"provider": "visa", "external_id": "x1", "event_id": "e1", "amount": 5, "force_post": True}
    assert till().code("authorization.captured.v1", **data, currency="XXQ", account="wallet") == "unknown_currency"


@pytest.mark.parametrize(("name", "kind"), [("platform:dispute_losses", "expense"), ("purse:1", "liability")])
def test_an_account_that_a_capture_makes_has_the_type_of_its_name(name: str, kind: str) -> None:
    books = till()
    books.later("captured", amount=5, force_post=True, currency="EUR", account=name)
    assert books.books.accounts["acme", name].type == kind


def test_a_refund_gives_the_lines_back_what_was_expensed_and_no_more() -> None:
    books = till()
    books.request(account="wallet")
    books.later("captured", amount=80)
    books.later("refunded", amount=30)
    assert (books.expensed, books.balance()) == ((50, 50), (-950, 0))
    books.later("refunded", amount=70)
    assert (books.expensed, books.balance()) == ((0, 0), (-1_020, 0))


def test_captures_and_refunds_debit_first() -> None:
    books = till()
    books.request(account="wallet")
    for what, legs in (
        ("captured", [("wallet", 30), ("platform:cash", -30)]),
        ("refunded", [("platform:cash", 30), ("wallet", -30)]),
    ):
        entry = books.later(what, amount=30).entry
        assert entry is not None
        assert [(leg.account.name, leg.amount) for leg in entry.postings] == legs


def test_a_capture_that_cash_itself_pays_has_both_its_legs_there() -> None:
    books = till()
    books.request(account="wallet")
    applied = books.later("captured", amount=30, account="platform:cash")
    assert applied.entry is not None
    assert [(leg.account.name, leg.amount) for leg in applied.entry.postings] == [
        ("platform:cash", 30),
        ("platform:cash", -30),
    ]
    assert (books.balance(), books.balance("platform:cash")) == ((-1_000, 0), (0, 0))


def test_a_capture_after_a_refund_does_not_expense_anew_what_came_back() -> None:
    books = till()
    books.request()
    books.later("captured", amount=50, final=False)
    books.later("refunded", amount=50)
    books.later("captured", amount=30)
    assert books.expensed == (30, 30)


def test_confirmation_comes_before_or_after_the_decision() -> None:
    books = till()
    assert books.changed("confirmed").status == "pending"
    assert (books.authorization().amount, books.authorization().approved_amount) == (0, 0)
    assert books.request().decision == "approved"
    assert books.authorization().confirmed
    books.request(external_id="b", amount=900)
    assert books.changed("confirmed", external_id="b")[2:4] == ("declined", True)


def test_what_comes_before_the_decision_waits_for_it_even_if_it_is_confirmed() -> None:
    books = till()
    books.later("confirmed")
    data = {"provider": "visa", "external_id": "x1", "event_id": "c", "amount": 80}
    assert books.code("authorization.captured.v1", **data) == "parked authorization_not_found"
    books.request(account="wallet")
    assert (books.balance(), books.authorization().status) == ((-920, 0), "captured")


def test_after_a_decline_a_capture_posts_and_touches_no_line() -> None:
    books = till()
    assert books.request(amount=500, account="wallet").decision == "declined"
    outcome = books.later("captured", amount=500)
    assert outcome.entry is not None
    assert outcome.entry.breaches == []
    assert (books.expensed, books.balance(), books.authorization().status) == ((0, 0), (-500, 0), "declined")


def test_an_advice_overrides_a_decline_with_a_second_decision() -> None:
    books = till()
    late = (NOW - timedelta(minutes=1)).isoformat()
    assert books.request(account="wallet", respond_by=late).reason == "expired_before_decision"
    decision = books.advise(account="wallet").decision
    assert decision is not None
    assert (decision.decision, decision.decided_by, decision.reason, decision.reasons) == (
        "approved",
        "stand_in",
        None,
        (),
    )
    assert (books.expensed, books.balance()) == ((80, 80), (-1_000, 80))


def test_an_advice_stands_whatever_the_limits_say() -> None:
    books = till(limit=10, funds=10)
    books.advise(account="wallet", amount=500)
    assert (books.expensed, books.balance()) == ((500, 500), (-10, 500))


def test_an_advice_joins_an_approval_and_a_request_its_advice() -> None:
    books = till()
    books.request()
    joined = books.advise()
    assert (joined.decision, joined.changed is not None, books.expensed) == (None, True, (80, 80))
    books = till()
    books.advise()
    made = resolved(event_of("authorization.requested.v1", card_payment()), {"food": "L1", "travel": "L2"})
    outcome = books.give(made).outcome
    assert isinstance(outcome, Applied)
    assert (outcome.decision, outcome.changed is not None, books.expensed) == (None, True, (80, 80))


def test_a_processor_that_repeats_everything_changes_nothing_twice() -> None:
    books = till()
    made = [
        resolved(event_of("authorization.requested.v1", card_payment(account="wallet"), number=9_001), {"food": "L1"}),
        event_of(
            "authorization.captured.v1",
            {"provider": "visa", "external_id": "x1", "event_id": "v", "amount": 80},
            number=9_002,
        ),
    ]
    for event in made:
        books.give(event)
        assert books.repeats(event) + books.repeats(event) == 2
    assert (books.line().expensed_credits, books.balance()) == (80, (-920, 0))


def test_a_line_that_was_reset_is_given_nothing_back_of_before() -> None:
    books = till()
    books.request()
    books.code("line_of_credit.reset.v1", line_of_credit_id="L1", credits_limit=100, expensed_credits=0)
    books.later("released", reason="cancelled")
    assert books.expensed == (0, 0)


@pytest.mark.parametrize("what", ["adjusted", "captured"])
def test_more_than_a_line_can_count_is_refused_and_nothing_moves(what: str) -> None:
    books = till()
    books.request(account="wallet")
    books.code("line_of_credit.reset.v1", line_of_credit_id="L1", credits_limit=0, expensed_credits=2**63 - 2)
    data = {"provider": "visa", "external_id": "x1", "event_id": "v", "amount": 90}
    assert books.code(f"authorization.{what}.v1", **data) == "amount_out_of_range"
    assert (books.balance(), books.line("L2").expensed_credits) == ((-1_000, 80), 80)


def test_more_than_an_account_can_count_is_refused_as_a_capture() -> None:
    books = till()
    books.request(account="wallet")
    data = {"provider": "visa", "external_id": "x1", "event_id": "v", "amount": 2**63 - 1}
    assert books.code("authorization.captured.v1", **data, final=False) == "applied"
    assert books.code("authorization.captured.v1", **data | {"event_id": "w"}) == "amount_out_of_range"
