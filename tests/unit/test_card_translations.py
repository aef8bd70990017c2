"""Holds, card payments and what they are judged by: from the wire's models to the domain's commands."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from pydantic import ValidationError

from consumers import authorizations, credit
from domain.authorizations import AuthorizationAdvised, AuthorizationRequested
from domain.reservations import Resolution
from schemas.authorizations import JournaledAdviceV1, JournaledRequestV1

TRANSLATIONS = authorizations.TRANSLATIONS | credit.TRANSLATIONS
AUTHORIZATION = {"provider": "issuer", "external_id": "au_1"}
MERCHANT = {"merchant_id": "mer_1", "acquirer_id": "acq_1", "mcc": "5812", "name": "Diner", "country": "FRA"}
CARD_PAYMENT = AUTHORIZATION | {"amount": 6000, "currency": "EUR", "card_id": "card_1", "merchant": MERCHANT}
LATER = AUTHORIZATION | {"event_id": "ev_1"}
OWNER = {"owner_type": "employee", "owner_ref": "3F0C6F1E-8f6f-4c39-9a3e-5d1f7c1b2a44"}
LINE = {"line_of_credit_id": "line_1"}
SAMPLES: dict[str, dict[str, Any]] = {
    "hold.created.v1": {"hold_id": "ho_1", "account": "wallet:1", "amount": 500, "currency": "EUR"},
    "hold.adjusted.v1": {"hold_id": "ho_1", "adjustment_id": "ad_1", "amount": 400},
    "hold.captured.v1": {"hold_id": "ho_1"},
    "hold.voided.v1": {"hold_id": "ho_1"},
    "authorization.requested.v1": CARD_PAYMENT,
    "authorization.advised.v1": CARD_PAYMENT,
    "authorization.confirmed.v1": LATER,
    "authorization.adjusted.v1": LATER | {"amount": 7000},
    "authorization.captured.v1": LATER | {"amount": 6000},
    "authorization.refunded.v1": LATER | {"amount": 100},
    "authorization.released.v1": LATER | {"reason": "cancelled"},
    "expense_category.create.v1": {"code": "meals", "name": "Meals"},
    "line_of_credit.create.v1": LINE | OWNER | {"expense_category": "meals", "currency": "EUR"},
    "line_of_credit.set_limit.v1": LINE | {"credits_limit": 500},
    "line_of_credit.reset.v1": LINE | {"credits_limit": 500, "expensed_credits": 7},
    "line_of_credit.terminate.v1": LINE,
    "card.assign.v1": {"card_id": "card_1"} | OWNER,
    "card.unassign.v1": {"card_id": "card_1"} | OWNER,
}
CREATES = {"hold.created.v1", "expense_category.create.v1", "line_of_credit.create.v1"}


def model_of(event_type: str) -> Any:
    return get_type_hints(TRANSLATIONS[event_type])["data"]


def command(event_type: str, **changed: Any) -> Any:
    return TRANSLATIONS[event_type](model_of(event_type).model_validate(SAMPLES[event_type] | changed))


def test_every_translation_has_its_sample() -> None:
    assert SAMPLES.keys() == TRANSLATIONS.keys()


@pytest.mark.parametrize("event_type", SAMPLES)
def test_what_is_said_arrives_whole(event_type: str) -> None:
    made = command(event_type)
    for name, value in SAMPLES[event_type].items():
        if name != "merchant":
            assert getattr(made, name) == value
    assert made.fact == (event_type.startswith("authorization.") and event_type != "authorization.requested.v1")
    has_key = event_type.startswith(("hold.", "authorization.")) or event_type in CREATES
    assert (made.natural_key("acme") is not None) == has_key


@pytest.mark.parametrize("event_type", SAMPLES)
def test_what_is_missing_unknown_or_null_is_refused(event_type: str) -> None:
    model, sample = model_of(event_type), SAMPLES[event_type]
    for name in sample:
        with pytest.raises(ValidationError, match=name):
            model.model_validate({field: value for field, value in sample.items() if field != name})
    for name in {*model.model_fields, "unknown"}:
        with pytest.raises(ValidationError, match=name):
            model.model_validate(sample | {name: None})


@pytest.mark.parametrize(
    ("event_type", "left_out"),
    [
        ("hold.created.v1", {"direction": "in", "payment_id": None, "expires_at": None}),
        ("hold.captured.v1", {"amount": None, "final": True, "capture_id": None}),
        ("authorization.requested.v1", {"partial_approval": False, "hold_amount": None, "respond_by": None}),
        ("authorization.captured.v1", {"final": True, "force_post": False, "account": None}),
        ("line_of_credit.create.v1", {"credits_limit": 0, "expensed_credits": 0}),
        ("expense_category.create.v1", {"match": b"[]"}),
    ],
)
def test_what_is_left_out_has_the_value_of_the_contract(event_type: str, left_out: dict[str, Any]) -> None:
    made = command(event_type)
    assert {name: getattr(made, name) for name in left_out} == left_out


def test_a_merchant_keeps_what_it_was_told_with() -> None:
    made = command("authorization.requested.v1", merchant=MERCHANT | {"city": "Paris"})
    assert made.merchant == MERCHANT | {"city": "Paris", "postal_code": None}


def test_rules_are_kept_as_they_were_given() -> None:
    rule = {"mccs": ["5811-5814"], "countries": ["FRA"]}
    assert command("expense_category.create.v1", match=[rule, {}]).match == (
        b'[{"countries":["FRA"],"mccs":["5811-5814"]},{}]'
    )


@pytest.mark.parametrize(
    ("event_type", "changed", "why"),
    [
        ("hold.captured.v1", {"final": False}, "capture_id"),
        ("authorization.captured.v1", {"force_post": True}, "currency"),
        ("authorization.requested.v1", {"resolution": {}}, "resolution"),
        ("authorization.advised.v1", {"partial_approval": True}, "partial_approval"),
        ("authorization.requested.v1", {"merchant": MERCHANT | {"mcc": "581"}}, "mcc"),
        ("authorization.requested.v1", {"merchant": MERCHANT | {"country": "FR"}}, "country"),
        ("authorization.released.v1", {"reason": "bored"}, "reason"),
        ("expense_category.create.v1", {"match": [{"mccs": ["5814-5811"]}]}, "mccs"),
        ("expense_category.create.v1", {"match": [{"countries": []}]}, "countries"),
        ("expense_category.create.v1", {"match": [{}] * 101}, "match"),
        ("card.assign.v1", {"owner_ref": "42"}, "owner_ref"),
    ],
)
def test_what_can_not_be_meant_is_refused(event_type: str, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        command(event_type, **changed)


def test_what_the_resolvers_answered_comes_out_of_the_journal() -> None:
    kept = {"categories": ["meals"], "lines": {"meals": "line_1"}}
    request = authorizations.authorization_requested(
        JournaledRequestV1.model_validate(CARD_PAYMENT | {"resolution": kept})
    )
    assert isinstance(request, AuthorizationRequested)
    assert request.resolution == Resolution(frozenset({"meals"}), {"meals": "line_1"})
    advice = authorizations.authorization_advised(
        JournaledAdviceV1.model_validate(CARD_PAYMENT | {"resolution": {"failed": True}})
    )
    assert isinstance(advice, AuthorizationAdvised)
    assert advice.resolution == Resolution(failed=True)
