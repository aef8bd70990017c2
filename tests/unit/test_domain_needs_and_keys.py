"""By which keys each event is known for ever, what it brings into being, and what must be loaded to decide it."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.expiry import HoldExpired
from domain.keys import conflict_key, dead_letter_key, delivery_key, natural_key, publisher_key
from domain.needs import Needs
from domain.reservations import Resolution
from schemas.registry import EVENT_TYPES
from tests.fixtures.desk import envelope, event_of
from tests.unit.wire_samples import LEAST, OWNER

T = "acme"
CASH, FEES, HELD = "platform:cash", "platform:fees", "platform:disputes_held"
DISPUTE_FEES, LOSSES = "platform:dispute_fees", "platform:dispute_losses"
PAYER, MERCHANT = "customer_balance:cus_1", "merchant_settlement:mer_1"
CARD_PAYMENT = ("authorization", "issuer", "au_1")
LINE, ENTRY = ("line_of_credit", "line_1"), "00010000-0000-8000-8000-001400000000"
SHOP = {"provider": "psp", "cash_account": "bank"}

Parts = tuple[str | None, ...]
Case = tuple[str, dict[str, Any], Parts | None, Parts | None, dict[str, Any]]


def _payment(provider: str | None = None) -> Parts:
    return ("payment", provider, "pay_1")


def _later(what: str, more: dict[str, Any] | None = None, accounts: tuple[str, ...] = ()) -> Case:
    key = ("authorization", "issuer", "au_1", "ev_1")
    needs: dict[str, Any] = {"authorizations": [CARD_PAYMENT]} | ({"accounts": accounts} if accounts else {})
    forced = CARD_PAYMENT if (more or {}).get("force_post") else None
    return f"authorization.{what}.v1", more or {}, key, forced, needs


# Type and data beside the least, natural key, what others may wait for, and what is asked for.
CASES: list[Case] = [
    ("payment.captured.v1", {}, ("payment", None, "pay_1", None), _payment(), {"accounts": [CASH, PAYER]}),
    ("payment.captured.v1", SHOP | {"capture_id": "2", "fees": 3}, ("payment", "psp", "pay_1", "2"), _payment("psp"),
     {"accounts": ["bank", PAYER, FEES]}),
    ("refund.succeeded.v1", SHOP, ("refund", "psp", "re_1"), ("refund", "psp", "re_1"), {"accounts": ["bank", PAYER]}),
    ("refund.succeeded.v1", {"payment_id": "pay_1"}, ("refund", None, "re_1"), ("refund", None, "re_1"),
     {"accounts": [PAYER], "payments": [_payment()]}),
    ("refund.failed.v1", {}, ("refund_failed", None, "re_1"), None, {"refunds": [("refund", None, "re_1")]}),
    ("transfer.created.v1", {}, ("transfer", None, "tr_1"), ("transfer", None, "tr_1"),
     {"accounts": [PAYER, MERCHANT]}),
    ("transfer.reversed.v1", {"reversal_id": "a"}, ("transfer_reversed", None, "tr_1", "a"), None,
     {"transfers": [("transfer", None, "tr_1")]}),
    ("payout.paid.v1", {}, ("payout", None, "po_1"), ("payout", None, "po_1"), {"accounts": [CASH, MERCHANT]}),
    ("payout.failed.v1", {}, ("payout_failed", None, "po_1"), None, {"payouts": [("payout", None, "po_1")]}),
    ("dispute.opened.v1", SHOP, ("dispute", "psp", "dp_1"), ("dispute", "psp", "dp_1"),
     {"accounts": [HELD, DISPUTE_FEES, PAYER, "bank"]}),
    ("dispute.opened.v1", {"payment_id": "pay_1"}, ("dispute", None, "dp_1"), ("dispute", None, "dp_1"),
     {"accounts": [HELD, DISPUTE_FEES, PAYER], "payments": [_payment()]}),
    ("dispute.won.v1", {"outcome_id": "a"}, ("dispute_won", None, "dp_1", "a"), None,
     {"accounts": [HELD, LOSSES], "disputes": [("dispute", None, "dp_1")]}),
    ("dispute.lost.v1", {}, ("dispute_lost", None, "dp_1", None), None,
     {"accounts": [HELD, LOSSES], "disputes": [("dispute", None, "dp_1")]}),
    ("dispute.reopened.v1", {}, ("dispute_reopened", None, "dp_1", "ro_1"), None,
     {"accounts": [HELD, DISPUTE_FEES], "disputes": [("dispute", None, "dp_1")]}),
    ("account.create.v1", {}, ("account", "wallet:1"), None, {"accounts": ["wallet:1"]}),
    ("account.create.v1", {"parent": "top"}, ("account", "wallet:1"), None,
     {"accounts": ["wallet:1", "top"], "ancestors_of": ["top"]}),
    ("account.update.v1", {}, None, None, {"accounts": ["wallet:1"]}),
    ("account.update.v1", {"parent": "top"}, None, None, {"accounts": ["wallet:1", "top"], "ancestors_of": ["top"]}),
    ("account.update.v1", {"parent": None}, None, None, {"accounts": ["wallet:1"]}),
    ("account.close.v1", {}, None, None, {"accounts": ["wallet:1"]}),
    ("entry.post.v1", {"postings": [{"account": name, "amount": 1, "currency": "EUR"} for name in ("a", "b")]}, None,
     None, {"accounts": ["a", "b"]}),
    ("entry.reverse.v1", {"entry_id": ENTRY.upper()}, ("reverse", ENTRY), None, {"entries": [ENTRY]}),
    ("entry.reverse.v1", {"entry_id": "none"}, ("reverse", "none"), None, {}),
    ("period.close.v1", {}, None, None, {}),
    ("tenant.create.v1", {}, ("tenant",), None, {}),
    ("hold.created.v1", {}, ("hold", "ho_1"), ("hold", "ho_1"), {"accounts": ["wallet:1", CASH]}),
    ("hold.adjusted.v1", {}, ("adjust", "ho_1", "ad_1"), None, {"holds": [("hold", "ho_1")]}),
    ("hold.captured.v1", {"capture_id": "2"}, ("capture", "ho_1", "2"), None,
     {"holds": [("hold", "ho_1")], "accounts": [CASH]}),
    ("hold.voided.v1", {}, ("void", "ho_1"), None, {"holds": [("hold", "ho_1")]}),
    ("authorization.requested.v1", {}, CARD_PAYMENT, CARD_PAYMENT,
     {"authorizations": [CARD_PAYMENT]}),
    ("authorization.advised.v1", {"account": "wallet:1"}, ("authorization_advice", "issuer", "au_1"), CARD_PAYMENT,
     {"authorizations": [CARD_PAYMENT], "accounts": ["wallet:1"]}),
    _later("confirmed"),
    _later("adjusted"),
    _later("captured", accounts=(CASH,)),
    _later("captured", {"account": "wallet:1"}, (CASH, "wallet:1")),
    _later("captured", {"force_post": True, "currency": "EUR"}, (CASH,)),
    _later("refunded", accounts=(CASH,)),
    _later("released"),
    ("expense_category.create.v1", {}, ("expense_category", "meals"), None, {}),
    ("line_of_credit.create.v1", {}, LINE, None,
     {"categories": [("expense_category", "meals")],
      "line_owners": [("line_owner", "employee", OWNER["owner_ref"], "meals")]}),
    ("line_of_credit.create.v1", {"owner_ref": OWNER["owner_ref"].upper()}, LINE, None,
     {"categories": [("expense_category", "meals")],
      "line_owners": [("line_owner", "employee", OWNER["owner_ref"], "meals")]}),
    ("line_of_credit.set_limit.v1", {}, None, None, {"lines": [LINE]}),
    ("line_of_credit.reset.v1", {}, None, None, {"lines": [LINE]}),
    ("line_of_credit.terminate.v1", {}, None, None, {"lines": [LINE]}),
    ("card.assign.v1", {}, None, None, {"cards": [("card", "card_1")]}),
    ("card.unassign.v1", {}, None, None, {"cards": [("card", "card_1")]}),
]  # fmt: skip


def _asked(needs: Needs) -> dict[str, set[Any]]:
    return {field.name: asked for field in fields(needs) if (asked := getattr(needs, field.name))}


def _expected(needs: dict[str, Any]) -> dict[str, set[Any]]:
    found: dict[str, set[Any]] = {}
    for name, asked in needs.items():
        match name:
            case "accounts" | "ancestors_of":
                found[name] = {(T, account) for account in asked}
            case "entries":
                found[name] = {str(entry) for entry in asked}
            case _:
                found[name] = {natural_key(T, *parts) for parts in asked}
    return found


@pytest.mark.parametrize(("type_name", "more", "natural", "arrives", "needs"), CASES)
def test_an_event_is_known_by_its_key_and_asks_for_what_it_is_decided_on(
    type_name: str, more: dict[str, Any], natural: Parts | None, arrives: Parts | None, needs: dict[str, Any]
) -> None:
    event = event_of(envelope(type_name, **(LEAST[type_name] | more)))
    assert event.natural == (None if natural is None else natural_key(T, *natural))
    assert event.arrives == (None if arrives is None else natural_key(T, *arrives))
    asked = Needs()
    event.command.needs(T, asked)
    found = _asked(asked)
    if "entries" in found:
        found["entries"] = {str(entry) for entry in found["entries"]}
    assert found == _expected(needs)


def test_a_card_payment_asks_for_the_categories_and_lines_that_the_resolvers_named() -> None:
    event = event_of(envelope("authorization.requested.v1", **LEAST["authorization.requested.v1"]))
    event.command.resolution = Resolution(frozenset({"food", "fuel"}), {"food": "L1"})  # type: ignore[attr-defined]
    asked = Needs()
    event.command.needs(T, asked)
    expected = {"categories": [("expense_category", "food"), ("expense_category", "fuel")]}
    assert _asked(asked) == _expected(
        expected | {"lines": [("line_of_credit", "L1")], "authorizations": [CARD_PAYMENT]}
    )


def test_every_type_has_a_case() -> None:
    assert {case[0] for case in CASES} == EVENT_TYPES.keys()


def test_an_expiry_is_known_by_what_ends_and_when() -> None:
    ends = datetime(2026, 3, 9, 12, tzinfo=UTC)
    told = "2026-03-09T12:00:00+00:00"
    for command, key, text, needs in (
        (HoldExpired(ends, "h1"), ("expire", "h1", None, None, told), f"expire:h1:{told}", {"holds": [("hold", "h1")]}),
        (
            HoldExpired(ends, None, "visa", "x1"),
            ("expire", None, "visa", "x1", told),
            f"expire:visa:x1:{told}",
            {"authorizations": [("authorization", "visa", "x1")]},
        ),
    ):
        assert command.natural_key(T) == natural_key(T, *key)
        assert command.key_text == text
        asked = Needs()
        command.needs(T, asked)
        assert _asked(asked) == _expected(needs)


# As they stand in databases: with others every event that was ever known would be new.
KEYS = {
    "natural": (natural_key(T, "refund", None, "re_1"), "d4674cc217c36d43872863bfe670fc67"),
    "publisher": (publisher_key(T, "k"), "e3ac419d8d1f4eeeb59cb9d8ecd1ccde"),
    "delivery": (delivery_key(T, "s", "e"), "1c855c14ed833b7ae3d42d4fb76347df"),
    "conflict": (conflict_key(T, "s", "e", -7), "5574c233ff01bf2ebc14c0947aeb4301"),
    "dead letter": (dead_letter_key(bytes(range(16)), 3, 2**40), "3fc1f869d4b6334dd5ec3e6d2a2700ff"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_that_are_stored_stay_what_they_are(kind: str) -> None:
    key, stored = KEYS[kind]
    assert key.hex() == stored
