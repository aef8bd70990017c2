from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.commands import AccountUpdateV1, EntryPostV1, PeriodCloseV1
from schemas.wire import read, read_journal
from tests.unit.wire_samples import LEAST, PAYMENT, event, malformed, read_data, record, topic_of

REQUIRED = [(event_type, name) for event_type, data in LEAST.items() for name in data]
CARD_PAYMENTS = ("authorization.requested.v1", "authorization.advised.v1")
INTEGERS = [
    ("payment.captured.v1", "amount"),
    ("payment.captured.v1", "fees"),
    ("refund.succeeded.v1", "amount"),
    ("transfer.created.v1", "amount"),
    ("transfer.reversed.v1", "amount"),
    ("payout.paid.v1", "amount"),
    ("dispute.opened.v1", "amount"),
    ("dispute.opened.v1", "fees"),
    ("dispute.won.v1", "amount"),
    ("dispute.lost.v1", "amount"),
    ("dispute.reopened.v1", "amount"),
    ("dispute.reopened.v1", "fees"),
    ("hold.created.v1", "amount"),
    ("hold.adjusted.v1", "amount"),
    ("hold.captured.v1", "amount"),
    *((kind, name) for kind in CARD_PAYMENTS for name in ("amount", "hold_amount", "merchant_amount")),
    ("authorization.adjusted.v1", "amount"),
    ("authorization.captured.v1", "amount"),
    ("authorization.refunded.v1", "amount"),
    ("authorization.released.v1", "amount"),
    ("line_of_credit.create.v1", "credits_limit"),
    ("line_of_credit.create.v1", "expensed_credits"),
    ("line_of_credit.set_limit.v1", "credits_limit"),
    ("line_of_credit.reset.v1", "expensed_credits"),
]


@pytest.mark.parametrize(("event_type", "name"), REQUIRED)
def test_a_missing_field_is_malformed_and_named(event_type: str, name: str) -> None:
    data = {field: value for field, value in LEAST[event_type].items() if field != name}
    assert f"data.{name}" in malformed(read_data(data, event_type))


@pytest.mark.parametrize("event_type", LEAST)
def test_an_unknown_field_is_malformed_and_named(event_type: str) -> None:
    assert "data.ammount" in malformed(read_data(LEAST[event_type] | {"ammount": 1}, event_type))


@pytest.mark.parametrize("event_type", LEAST)
def test_null_is_no_value(event_type: str) -> None:
    model = type(event(read_data(LEAST[event_type], event_type)).data)
    removable = {"parent", "floor", "ceiling"} if event_type == "account.update.v1" else set()
    for name in model.model_fields.keys() - removable:
        assert f"data.{name}" in malformed(read_data(LEAST[event_type] | {name: None}, event_type))


# --- amounts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("event_type", "name"), INTEGERS)
@pytest.mark.parametrize(
    "text", ["19.99", "1.0", "1e2", "1E2", "0.0", '"100"', "true", "false", "null", "[1]", "{}", '""']
)
def test_what_is_no_json_integer_is_no_amount(event_type: str, name: str, text: str) -> None:
    value = record(event_type, data=LEAST[event_type] | {name: "HERE"}).replace(b'"HERE"', text.encode())
    assert f"data.{name}" in malformed(read(value, (), topic_of(event_type)))


@pytest.mark.parametrize(("event_type", "name"), INTEGERS)
@pytest.mark.parametrize("amount", [-(10**40) + 1, -(2**63), -1, 0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**40 - 1])
def test_integers_of_forty_digits_arrive_whole_and_are_left_to_the_domain(
    event_type: str, name: str, amount: int
) -> None:
    read_event = event(read_data(LEAST[event_type] | {name: amount}, event_type))
    assert getattr(read_event.data, name) == amount
    assert json.loads(read_event.data_json)[name] == amount
    assert getattr(read_journal(event_type, read_event.data_json), name) == amount


@pytest.mark.parametrize("amount", [10**40, -(10**40), 10**4000])
def test_more_than_forty_digits_are_malformed(amount: int) -> None:
    assert "data.amount" in malformed(read_data(PAYMENT | {"amount": amount}))


# --- texts ----------------------------------------------------------------------------------------------------------

IDS = [
    ("payment.captured.v1", ["payment_id", "capture_id", "customer_id", "provider"]),
    ("refund.succeeded.v1", ["refund_id", "customer_id", "payment_id", "provider"]),
    ("refund.failed.v1", ["refund_id", "failure_code"]),
    ("transfer.created.v1", ["transfer_id", "customer_id", "merchant_id"]),
    ("transfer.reversed.v1", ["transfer_id", "reversal_id"]),
    ("payout.paid.v1", ["payout_id", "merchant_id"]),
    ("payout.failed.v1", ["payout_id", "failure_code"]),
    ("dispute.opened.v1", ["dispute_id", "customer_id", "payment_id"]),
    ("dispute.won.v1", ["dispute_id", "outcome_id"]),
    ("dispute.lost.v1", ["dispute_id", "outcome_id"]),
    ("dispute.reopened.v1", ["dispute_id", "reopening_id"]),
    ("entry.post.v1", ["payment_id", "refund_id", "transfer_id", "payout_id", "dispute_id"]),
    ("entry.reverse.v1", ["entry_id"]),
    ("hold.created.v1", ["hold_id", "payment_id"]),
    ("hold.adjusted.v1", ["hold_id", "adjustment_id"]),
    ("hold.captured.v1", ["hold_id", "capture_id"]),
    ("hold.voided.v1", ["hold_id"]),
    *((kind, ["provider", "external_id", "card_id"]) for kind in CARD_PAYMENTS),
    ("authorization.confirmed.v1", ["provider", "external_id", "event_id"]),
    ("expense_category.create.v1", ["code", "name", "reference"]),
    ("line_of_credit.create.v1", ["line_of_credit_id", "owner_type", "expense_category"]),
    ("card.assign.v1", ["card_id", "owner_type"]),
]
NAMES = [
    ("payment.captured.v1", ["cash_account"]),
    ("account.create.v1", ["name", "parent"]),
    ("account.update.v1", ["name", "parent"]),
    ("account.close.v1", ["name"]),
    ("hold.created.v1", ["account"]),
    ("authorization.requested.v1", ["account"]),
    ("authorization.captured.v1", ["account"]),
]
TEXTS = [
    *((event_type, name, 200) for event_type, names in IDS for name in names),
    *((event_type, name, 255) for event_type, names in NAMES for name in names),
    ("payment.captured.v1", "currency", 64),
]


@pytest.mark.parametrize(("event_type", "name", "longest"), TEXTS)
def test_ids_and_names_have_a_length_and_no_control_characters(event_type: str, name: str, longest: int) -> None:
    for bad in ("", "x" * (longest + 1), "a\nb", "a\n", "\ta", "a\x1f", "a\x7f", "a\x85", 7, True, ["a"], {"a": 1}):
        assert f"data.{name}" in malformed(read_data(LEAST[event_type] | {name: bad}, event_type)), bad
    for good in ("x", "é" * longest, "a b", "日本", "' OR 1=1 --", "a:b/c", "\\", '"'):
        assert getattr(event(read_data(LEAST[event_type] | {name: good}, event_type)).data, name) == good


def test_a_description_is_free_text_of_1024_characters() -> None:
    event(read_data(PAYMENT | {"description": "line\nline\t" + "é" * 1014}))
    event(read_data(PAYMENT | {"description": ""}))
    malformed(read_data(PAYMENT | {"description": "x" * 1025}))


@pytest.mark.parametrize("currency", ["XXX", "eur", "EURO", "€", "EUR "])
def test_an_unknown_currency_is_left_to_the_domain(currency: str) -> None:
    event(read_data(PAYMENT | {"currency": currency}))


@pytest.mark.parametrize(
    ("event_type", "name"),
    [
        ("dispute.lost.v1", "charge_to"),
        ("account.create.v1", "type"),
        ("account.update.v1", "status"),
        ("hold.created.v1", "direction"),
        ("authorization.released.v1", "reason"),
    ],
)
@pytest.mark.parametrize("value", ["", "nobody", "closed", "Asset", 1])
def test_a_choice_has_no_other_values(event_type: str, name: str, value: Any) -> None:
    assert f"data.{name}" in malformed(read_data(LEAST[event_type] | {name: value}, event_type))


# --- metadata -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"a": None, "b": [1, 2.5, True, "x"], "c": {"d": {}}},
        {"k" * 1024: "v" * 1024},
        {str(n): n for n in range(64)},
        {"large": 2**70, "small": -1.5e-300, "most": 1.7976931348623157e308},
        {str(n): "x" * 1000 for n in range(16)},
    ],
)
def test_metadata_is_the_publishers_own(metadata: dict[str, Any]) -> None:
    read_event = event(read_data(PAYMENT | {"metadata": metadata}))
    assert read_event.data.metadata == metadata  # type: ignore[attr-defined]
    assert json.loads(read_event.data_json)["metadata"] == metadata


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        "text",
        1,
        {str(n): n for n in range(65)},
        {"a": {str(n): n for n in range(65)}},
        {"k" * 1025: 1},
        {"a": "v" * 1025},
        {"a": ["v" * 1025]},
        {str(n): "x" * 1000 for n in range(17)},
        {str(n): "€" * 1000 for n in range(6)},
        {"a": 10**400},
    ],
)
def test_metadata_has_bounds(metadata: Any) -> None:
    assert "data.metadata" in malformed(read_data(PAYMENT | {"metadata": metadata}))


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e99999999999", "1" + "0" * 309, "9" * 4000])
@pytest.mark.parametrize("where", ['{"a": %s}', '{"a": [[%s]]}', '{"a": {"b": %s}}'])
def test_a_number_in_metadata_that_no_double_holds_is_malformed(number: str, where: str) -> None:
    value = record(data=PAYMENT | {"metadata": "HERE"}).replace(b'"HERE"', (where % number).encode())
    assert "data.metadata" in malformed(read(value, (), "payments"))


# --- commands -------------------------------------------------------------------------------------------------------

LEG = {"account": "wallet:1", "amount": -5, "currency": "EUR"}


@pytest.mark.parametrize("legs", [0, 1, 2, 100])
def test_up_to_a_hundred_legs_are_read(legs: int) -> None:
    data = event(read_data({"postings": [LEG] * legs}, "entry.post.v1")).data
    assert isinstance(data, EntryPostV1)
    assert len(data.postings) == legs


@pytest.mark.parametrize(
    "postings",
    [
        [LEG] * 101,
        None,
        {},
        LEG,
        [[]],
        [None],
        *([LEG, {k: v for k, v in LEG.items() if k != name}] for name in LEG),
        *(
            [LEG | bad]
            for bad in ({"amount": 1.0}, {"amount": "1"}, {"amount": 10**40}, {"account": ""}, {"memo": "x"})
        ),
        *([LEG | {"expect_version": bad}] for bad in (-1, 2**63, 1.0, "1", None, True)),
    ],
)
def test_bad_legs_are_malformed(postings: Any) -> None:
    assert "data.postings" in malformed(read_data({"postings": postings}, "entry.post.v1"))


def test_a_leg_of_zero_or_of_forty_digits_is_left_to_the_domain() -> None:
    event(
        read_data(
            {"postings": [LEG | {"amount": 0}, LEG | {"amount": 10**40 - 1, "expect_version": 0}]}, "entry.post.v1"
        )
    )


@pytest.mark.parametrize(
    "effective_at", ["1704067200", 1704067200, "2026-01-01", "2026-01-01T00:00:00", "2200-01-01T00:00:00Z"]
)
def test_effective_at_is_a_time_like_any_other(effective_at: Any) -> None:
    assert "data.effective_at" in malformed(read_data({"postings": [], "effective_at": effective_at}, "entry.post.v1"))


def test_effective_at_is_read_as_utc_and_kept_as_given() -> None:
    read_event = event(read_data({"postings": [], "effective_at": "2026-01-01T01:00:00+01:00"}, "entry.post.v1"))
    assert isinstance(read_event.data, EntryPostV1)
    assert read_event.data.effective_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert json.loads(read_event.data_json)["effective_at"] == "2026-01-01T01:00:00+01:00"
    assert read_journal("entry.post.v1", read_event.data_json) == read_event.data


@pytest.mark.parametrize(
    "through",
    ["2026-02-30", "2026-2-3", "20260203", "2026-W06-2", "2026-02-03T00:00:00Z", "1969-12-31", "2200-01-01", 20260203],
)
def test_a_period_is_closed_through_a_date(through: Any) -> None:
    assert "data.through" in malformed(read_data({"through": through}, "period.close.v1"))
    data = event(read_data({"through": "2024-02-29"}, "period.close.v1")).data
    assert isinstance(data, PeriodCloseV1)
    assert data.through == date(2024, 2, 29)


MANY = {str(n): n for n in range(257)}


@pytest.mark.parametrize("name", ["floor", "ceiling"])
def test_a_limit_is_an_object_or_an_integer_for_each_currency(name: str) -> None:
    least = LEAST["account.create.v1"]
    for good in ({}, {"EUR": 0}, {"EUR": -(10**39), "JPY": 5}):
        assert getattr(event(read_data(least | {name: good}, "account.create.v1")).data, name) == good
    assert getattr(event(read_data(least | {name: -5, "currency": "EUR"}, "account.create.v1")).data, name) == -5
    assert getattr(event(read_data(least | {name: -5}, "account.create.v1")).data, name) == -5
    for bad in (
        1.0,
        "5",
        True,
        [],
        {"EUR": 1.0},
        {"EUR": "1"},
        {"EUR": None},
        {"": 1},
        {"E\n": 1},
        10**40,
        {"EUR": 10**40},
        MANY,
    ):
        assert f"data.{name}" in malformed(read_data(least | {name: bad, "currency": "EUR"}, "account.create.v1")), bad


def test_an_update_tells_null_from_left_out() -> None:
    data = event(read_data({"name": "a", "floor": None, "parent": None}, "account.update.v1")).data
    assert isinstance(data, AccountUpdateV1)
    assert data.model_fields_set == {"name", "floor", "parent"}
    rebuilt = read_journal("account.update.v1", b'{"floor":null,"name":"a","parent":null}')
    assert rebuilt.model_fields_set == data.model_fields_set


@pytest.mark.parametrize("shard", [-1, 32768, "1", 1.0, True])
def test_a_tenants_shard_is_a_small_integer(shard: Any) -> None:
    assert "data.shard" in malformed(read_data({"shard": shard}, "tenant.create.v1"))


def test_models_can_not_be_changed() -> None:
    data = event(read_data(PAYMENT)).data
    with pytest.raises(ValidationError, match="frozen"):
        data.amount = 1  # type: ignore[attr-defined]
