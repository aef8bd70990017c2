from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.fingerprint import FINGERPRINT_VERSION, differing_fields
from schemas.registry import EVENT_TYPES
from schemas.wire import read, with_resolution
from tests.unit.wire_samples import LEAST, PAYMENT, event, read_data, record

# Kept for ever beside the keys of each event. If one of these changes, a known event would be taken for a conflict:
# raise FINGERPRINT_VERSION, and keep the old way for the old ones.
PINNED = {
    "payment.captured.v1": -8909502029929864503,
    "refund.succeeded.v1": 4200788779528698950,
    "refund.failed.v1": 5171153165905689113,
    "transfer.created.v1": 9086201993858474355,
    "transfer.reversed.v1": 2564624125045933227,
    "payout.paid.v1": 6131996926404638504,
    "payout.failed.v1": 2793652501127869911,
    "dispute.opened.v1": 1965633831917688419,
    "dispute.won.v1": 9106053224287338951,
    "dispute.lost.v1": -1222596683621955001,
    "dispute.reopened.v1": -724990389907739781,
    "account.create.v1": -5169794427829525609,
    "account.update.v1": 1907084359208059127,
    "account.close.v1": -6831967926999188770,
    "entry.post.v1": -1076315699403519852,
    "entry.reverse.v1": -1216792864661330426,
    "period.close.v1": -4046130924673520289,
    "tenant.create.v1": 662701602112861008,
    "hold.created.v1": 4705466783809222594,
    "hold.adjusted.v1": 2708877090061072404,
    "hold.captured.v1": -7849069172087564621,
    "hold.voided.v1": 173728420001797053,
    "authorization.requested.v1": 615510944768806897,
    "authorization.advised.v1": -1987980799444296755,
    "authorization.confirmed.v1": 3365687851675553450,
    "authorization.adjusted.v1": -6823690208404811466,
    "authorization.captured.v1": 6535665328101203103,
    "authorization.refunded.v1": -5112646897220997315,
    "authorization.released.v1": -5030324699586842177,
    "expense_category.create.v1": -3613597070271544625,
    "line_of_credit.create.v1": -279374699315936731,
    "line_of_credit.set_limit.v1": 2854341945806580922,
    "line_of_credit.reset.v1": 9146960090111017402,
    "line_of_credit.terminate.v1": 6670002977914246429,
    "card.assign.v1": -7599928057884985,
    "card.unassign.v1": -3298998403885231682,
}


def fingerprint(data: dict[str, Any], event_type: str = "payment.captured.v1") -> int:
    return event(read_data(data, event_type)).fingerprint


@pytest.mark.parametrize("event_type", PINNED)
def test_fingerprints_never_change(event_type: str) -> None:
    assert FINGERPRINT_VERSION == 1
    assert fingerprint(LEAST[event_type], event_type) == PINNED[event_type]


def test_every_type_is_pinned() -> None:
    assert PINNED.keys() == EVENT_TYPES.keys()


def test_a_fingerprint_fits_a_bigint() -> None:
    taken = [fingerprint(PAYMENT | {"payment_id": str(n)}) for n in range(200)]
    assert all(-(2**63) <= value < 2**63 for value in taken)
    assert min(taken) < 0 < max(taken)
    assert len(set(taken)) == 200


def test_order_spacing_and_escapes_make_no_difference() -> None:
    same = rb'{ "customer_id":"\u0063us_1","currency" : "EUR", "payment_id":"pay\u005f1","amount":1234}'
    value = record(data="HERE").replace(b'"HERE"', same)
    assert event(read(value, (), "payments")).fingerprint == fingerprint(PAYMENT)
    assert event(read(value, (), "payments")).data_json == event(read_data(PAYMENT)).data_json


def test_the_envelope_makes_no_difference() -> None:
    other = record(id="2", source="s", time="2001-01-01T00:00:00Z", tenantid="t", idempotencykey="k", data=PAYMENT)
    assert event(read(other, (), "payments")).fingerprint == fingerprint(PAYMENT)


@pytest.mark.parametrize(
    ("event_type", "extra"),
    [
        ("payment.captured.v1", {"description": "x"}),
        ("payment.captured.v1", {"metadata": {"a": 1.5}}),
        ("payment.captured.v1", {"fees": 0}),
        ("payment.captured.v1", {"cash_account": "platform:cash"}),
        ("payment.captured.v1", {"fees": 0, "metadata": {}, "description": ""}),
        ("refund.failed.v1", {"failure_code": "expired_card"}),
        ("dispute.lost.v1", {"charge_to": "customer"}),
        ("dispute.opened.v1", {"fees": 0}),
    ],
)
def test_words_and_written_out_defaults_make_no_difference(event_type: str, extra: dict[str, Any]) -> None:
    assert fingerprint(LEAST[event_type] | extra, event_type) == fingerprint(LEAST[event_type], event_type)
    assert json.loads(event(read_data(LEAST[event_type] | extra, event_type)).data_json) == LEAST[event_type] | extra


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 1235},
        {"amount": 10**39},
        {"currency": "USD"},
        {"payment_id": "pay_2"},
        {"capture_id": "1"},
        {"customer_id": "cus_2"},
        {"fees": 1},
        {"fees": -1},
        {"provider": "psp"},
        {"cash_account": "bank:1"},
    ],
)
def test_money_and_identity_make_a_difference(change: dict[str, Any]) -> None:
    assert fingerprint(PAYMENT | change) != fingerprint(PAYMENT)


def test_another_family_makes_a_difference() -> None:
    assert fingerprint({"dispute_id": "1"}, "dispute.won.v1") != fingerprint({"dispute_id": "1"}, "dispute.lost.v1")


def test_an_update_to_null_differs_from_no_update() -> None:
    name = {"name": "a"}
    assert fingerprint(name | {"floor": None}, "account.update.v1") != fingerprint(name, "account.update.v1")


def kept(data: dict[str, Any], event_type: str = "payment.captured.v1") -> bytes:
    return event(read_data(data, event_type)).data_json


def test_the_fields_that_differ_are_named() -> None:
    first = kept(PAYMENT | {"fees": 0, "description": "a"})
    other = kept(PAYMENT | {"amount": 1, "provider": "psp", "description": "b", "metadata": {}})
    payment = "payment.captured.v1"
    assert differing_fields(payment, first, payment, other) == ["amount", "provider"]
    assert differing_fields(payment, first, payment, kept(PAYMENT)) == []
    assert differing_fields(payment, kept(PAYMENT), "payment.captured.v2", kept(PAYMENT)) == []


def test_another_type_differs_by_its_type_and_its_fields() -> None:
    won, lost = kept({"dispute_id": "1"}, "dispute.won.v1"), kept({"dispute_id": "2"}, "dispute.lost.v1")
    assert differing_fields("dispute.won.v1", won, "dispute.lost.v1", lost) == ["dispute_id", "type"]
    assert differing_fields("dispute.won.v1", won, "gone.v1", b'{"dispute_id":"1","x":1}') == ["type", "x"]


def test_what_the_resolvers_answered_is_no_part_of_what_was_asked() -> None:
    first = kept(PAYMENT)
    answered = with_resolution(first, {"categories": ["meals"], "lines": {"meals": "line_1"}})
    assert answered != first
    assert differing_fields("payment.captured.v1", first, "payment.captured.v1", answered) == []


def test_a_true_is_not_a_one() -> None:
    assert differing_fields("gone.v1", b'{"a":1}', "gone.v1", b'{"a":true}') == ["a"]
