"""What only holds, authorizations and what they are judged by have on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.wire_samples import CARD_PAYMENT, LEAST, LINE, event, malformed, read_data

REQUESTED, ADVISED, CAPTURED = "authorization.requested.v1", "authorization.advised.v1", "authorization.captured.v1"


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("mcc", bad) for bad in ("581", "58122", "five", "5812-5814", " 5812", "５８１２", 5812, None)),
        *(("country", bad) for bad in ("FR", "fra", "FRAN", "F1A", "", 250, None)),
        *((name, bad) for name in ("merchant_id", "acquirer_id", "name", "city") for bad in ("", "x" * 201, "a\nb", 1)),
        ("tip", 5),
    ],
)
def test_a_merchant_is_described_as_card_schemes_do(name: str, bad: Any) -> None:
    data = CARD_PAYMENT | {"merchant": CARD_PAYMENT["merchant"] | {name: bad}}
    assert f"data.merchant.{name}" in malformed(read_data(data, REQUESTED))


@pytest.mark.parametrize("name", CARD_PAYMENT["merchant"])
def test_a_merchant_is_told_whole(name: str) -> None:
    merchant = {field: value for field, value in CARD_PAYMENT["merchant"].items() if field != name}
    assert f"data.merchant.{name}" in malformed(read_data(CARD_PAYMENT | {"merchant": merchant}, REQUESTED))


@pytest.mark.parametrize(("name", "value"), [("partial_approval", True), ("respond_by", "2026-03-01T09:30:02Z")])
def test_an_advice_has_nothing_to_answer(name: str, value: Any) -> None:
    event(read_data(CARD_PAYMENT | {name: value}, REQUESTED))
    assert f"data.{name}" in malformed(read_data(CARD_PAYMENT | {name: value}, ADVISED))


def test_what_the_resolvers_answered_is_not_taken_from_the_wire() -> None:
    for event_type in (REQUESTED, ADVISED):
        assert "data.resolution" in malformed(read_data(CARD_PAYMENT | {"resolution": {}}, event_type))


def test_until_when_an_answer_counts_is_no_part_of_what_was_asked() -> None:
    in_time = event(read_data(CARD_PAYMENT | {"respond_by": "2026-03-01T09:30:02Z"}, REQUESTED))
    assert in_time.fingerprint == event(read_data(CARD_PAYMENT, REQUESTED)).fingerprint


def test_a_capture_that_is_not_the_last_is_told_apart() -> None:
    hold = LEAST["hold.captured.v1"]
    assert "capture_id" in malformed(read_data(hold | {"final": False}, "hold.captured.v1"))
    event(read_data(hold | {"final": False, "capture_id": "1"}, "hold.captured.v1"))


def test_a_forced_capture_says_its_currency() -> None:
    forced = LEAST[CAPTURED] | {"force_post": True}
    assert "currency" in malformed(read_data(forced, CAPTURED))
    event(read_data(forced | {"currency": "EUR"}, CAPTURED))


CATEGORY = LEAST["expense_category.create.v1"]


@pytest.mark.parametrize(
    "rule",
    [
        {"mccs": ["5811", "5811-5814", "0000-9999", "5811-5811"]},
        {"countries": ["FRA"]},
        {"merchants": [{"merchant_id": "m", "acquirer_id": "a"}]},
        {},
    ],
)
def test_a_rule_is_any_of_its_criteria(rule: dict[str, Any]) -> None:
    event(read_data(CATEGORY | {"match": [rule, rule]}, "expense_category.create.v1"))


@pytest.mark.parametrize(
    "rule",
    [
        {"mccs": []},
        {"mccs": ["581"]},
        {"mccs": ["5814-5811"]},
        {"mccs": ["5811-"]},
        {"mccs": [5811]},
        {"mccs": ["5811"] * 501},
        {"mccs": None},
        {"countries": ["FR"]},
        {"countries": "FRA"},
        {"merchants": [{"merchant_id": "m"}]},
        {"weekdays": ["Monday"]},
        "5811",
    ],
)
def test_a_rule_that_can_not_be_read_is_malformed(rule: Any) -> None:
    assert "data.match.0" in malformed(read_data(CATEGORY | {"match": [rule]}, "expense_category.create.v1"))


def test_a_category_has_a_hundred_rules_at_most() -> None:
    event(read_data(CATEGORY | {"match": [{}] * 100}, "expense_category.create.v1"))
    assert "data.match" in malformed(read_data(CATEGORY | {"match": [{}] * 101}, "expense_category.create.v1"))


@pytest.mark.parametrize(
    "bad", ["", "42", "3f0c6f1e8f6f4c399a3e5d1f7c1b2a44", "3f0c6f1e-8f6f-4c39-9a3e-5d1f7c1b2a4g", 1]
)
def test_an_owner_is_named_by_a_uuid(bad: Any) -> None:
    for event_type in ("line_of_credit.create.v1", "card.assign.v1", "card.unassign.v1"):
        assert "data.owner_ref" in malformed(read_data(LEAST[event_type] | {"owner_ref": bad}, event_type))


def test_a_reset_says_both_figures() -> None:
    assert "expensed_credits" in malformed(read_data(LINE | {"credits_limit": 1}, "line_of_credit.reset.v1"))
