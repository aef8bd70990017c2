from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.wire import VALUE_BYTES_MAX, Malformed, WireEvent, read
from tests.unit.wire_samples import LEAST, PAYMENT, envelope, event, malformed, read_envelope, record, topic_of

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("event_type", LEAST)
def test_each_type_is_read_from_the_least_it_needs(event_type: str) -> None:
    read_event = event(read(record(event_type), (), topic_of(event_type)))
    assert read_event.type == event_type
    assert json.loads(read_event.data_json) == LEAST[event_type]


def test_all_attributes_arrive() -> None:
    read_event = event(read_envelope(traceparent=TRACEPARENT, time="2026-03-01T10:30:00.25+01:00"))
    assert read_event.tenant_id == "acme"
    assert read_event.source == "https://psp.example"
    assert read_event.event_id == "evt-1"
    assert read_event.idempotency_key == "key-1"
    assert read_event.traceparent == TRACEPARENT
    assert read_event.time == datetime(2026, 3, 1, 9, 30, 0, 250_000, tzinfo=UTC)
    assert read_event.time.tzinfo is UTC


@pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type", "time", "tenantid", "data"])
@pytest.mark.parametrize("given", [..., None], ids=["missing", "null"])
def test_required_attributes_are_required(attribute: str, given: Any) -> None:
    assert attribute in malformed(read_envelope(**{attribute: given}))


BAD_ATTRIBUTES: list[tuple[str, Any]] = [
    ("specversion", "0.3"),
    ("specversion", "1.0.2"),
    ("specversion", 1.0),
    *(
        (name, bad)
        for name in ("id", "source", "idempotencykey")
        for bad in ("", "x" * 201, "a\nb", "a\x7fb", "a\x85b")
    ),
    *((name, bad) for name in ("id", "source", "idempotencykey", "tenantid", "type") for bad in (1, True, ["a"], {})),
    *(("tenantid", bad) for bad in ("", "x" * 65, "a b", "a/b", "é", "acme\n")),
    ("type", ""),
    *(("data", bad) for bad in ([], "text", 1, True)),
]


@pytest.mark.parametrize(("attribute", "value"), BAD_ATTRIBUTES)
def test_a_bad_attribute_is_malformed_and_named(attribute: str, value: Any) -> None:
    assert attribute in malformed(read_envelope(**{attribute: value}))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("id", "é" * 200), ("source", "x" * 200), ("tenantid", "A-z.0_9" + "x" * 57), ("idempotencykey", "k" * 200)],
)
def test_the_longest_attributes_are_taken(attribute: str, value: str) -> None:
    event(read_envelope(**{attribute: value}))


GOOD_TIMES = {
    "1970-01-01T00:00:00Z": datetime(1970, 1, 1, tzinfo=UTC),
    "2199-12-31T23:59:59.999999Z": datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    "2200-01-01T00:00:00+00:01": datetime(2199, 12, 31, 23, 59, tzinfo=UTC),
    "1969-12-31T23:00:00-01:00": datetime(1970, 1, 1, tzinfo=UTC),
    "2024-02-29t12:00:00z": datetime(2024, 2, 29, 12, tzinfo=UTC),
    "2026-03-01T09:30:00.123456789Z": datetime(2026, 3, 1, 9, 30, 0, 123_456, tzinfo=UTC),
    "2026-03-01T09:30:00-00:00": datetime(2026, 3, 1, 9, 30, tzinfo=UTC),
}
BAD_TIMES: list[Any] = [
    "2026-03-01T09:30:00",
    "2026-03-01 09:30:00Z",
    "2026-03-01",
    "2026-03-01T09:30Z",
    "20260301T093000Z",
    "2026-W09-7T09:30:00Z",
    "2026-03-01T09:30:00+01",
    "2026-03-01T09:30:00+0100",
    "2026-03-01T09:30:00+24:00",
    "2026-03-01T09:30:00.Z",
    "2026-03-01T09:30:00,5Z",
    "2026-02-30T00:00:00Z",
    "2023-02-29T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-00-01T00:00:00Z",
    "2026-03-01T24:00:00Z",
    "2026-03-01T09:60:00Z",
    "2016-12-31T23:59:60Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "1969-12-31T23:59:59Z",
    "1970-01-01T00:00:00+00:01",
    "2200-01-01T00:00:00Z",
    "10000-01-01T00:00:00Z",
    "-2026-03-01T09:30:00Z",
    "٢٠٢٦-03-01T09:30:00Z",
    "2026-03-01T09:30:00Z\n",
    " 2026-03-01T09:30:00Z",
    "1704067200",
    1704067200,
    1704067200.5,
    "now",
    "",
    True,
    ["2026-03-01T09:30:00Z"],
]


@pytest.mark.parametrize("time", GOOD_TIMES)
def test_a_time_with_an_offset_is_read_as_utc(time: str) -> None:
    assert event(read_envelope(time=time)).time == GOOD_TIMES[time]


@pytest.mark.parametrize("time", BAD_TIMES)
def test_what_is_no_rfc_3339_time_is_malformed(time: Any) -> None:
    assert "time" in malformed(read_envelope(time=time))


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "hello",
        TRACEPARENT.upper(),
        TRACEPARENT + "-00",
        TRACEPARENT + "\n",
        "ff" + TRACEPARENT[2:],
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        12,
        None,
        {"a": 1},
    ],
)
def test_a_malformed_traceparent_is_ignored(traceparent: Any) -> None:
    assert event(read_envelope(traceparent=traceparent)).traceparent is None


def test_unknown_attributes_are_ignored() -> None:
    event(read_envelope(subject="x", datacontenttype="application/json", dataschema=None, extension={"deep": [1]}))


NEED_A_KEY = {
    "account.update.v1",
    "account.close.v1",
    "entry.post.v1",
    "period.close.v1",
    "line_of_credit.set_limit.v1",
    "line_of_credit.reset.v1",
    "line_of_credit.terminate.v1",
    "card.assign.v1",
    "card.unassign.v1",
}


@pytest.mark.parametrize("event_type", sorted(NEED_A_KEY))
@pytest.mark.parametrize("given", [..., None], ids=["missing", "null"])
def test_a_command_without_a_natural_key_needs_an_idempotency_key(event_type: str, given: Any) -> None:
    assert "idempotencykey" in malformed(read(record(event_type, idempotencykey=given), (), "commands"))


@pytest.mark.parametrize("event_type", sorted(LEAST.keys() - NEED_A_KEY))
def test_what_has_a_natural_key_needs_no_other(event_type: str) -> None:
    assert event(read(record(event_type, idempotencykey=...), (), topic_of(event_type))).idempotency_key is None


# --- which fault is told first --------------------------------------------------------------------------------------


def code(value: bytes | None, topic: str = "payments") -> str:
    result = read(value, (), topic)
    assert isinstance(result, Malformed)
    return result.code


def test_a_value_over_one_mebibyte_is_too_large_whatever_it_holds() -> None:
    assert code(b"x" * (VALUE_BYTES_MAX + 1)) == "too_large"
    assert code(b"x" * VALUE_BYTES_MAX) == "malformed"


def test_a_value_of_one_mebibyte_is_read() -> None:
    padded = record() + b" " * (VALUE_BYTES_MAX - len(record()))
    event(read(padded, (), "payments"))


@pytest.mark.parametrize(
    ("attributes", "topic", "expected"),
    [
        ({"type": "nope.v1", "time": "x"}, "refunds", "malformed"),
        ({"type": "nope.v1", "data": {}}, "refunds", "unknown_type"),
        ({"type": "payment.captured.v2"}, "payments", "unknown_type"),
        ({"type": "payment.captured"}, "payments", "unknown_type"),
        ({"type": "Payment.Captured.v1"}, "payments", "unknown_type"),
        ({"type": "hold.imagined.v1"}, "authorizations", "unknown_type"),
        ({"data": {}}, "refunds", "wrong_topic"),
        ({}, "commands", "wrong_topic"),
        ({"data": {}}, "payments", "malformed"),
    ],
)
def test_faults_are_told_in_order(attributes: dict[str, Any], topic: str, expected: str) -> None:
    assert code(json.dumps(envelope(**attributes)).encode(), topic) == expected


# --- binary mode ----------------------------------------------------------------------------------------------------


def headers(**changes: Any) -> list[tuple[str, bytes | None]]:
    attributes = {name: value.encode() for name, value in envelope(data=...).items()} | changes
    return [(f"ce_{name}", value) for name, value in attributes.items() if value is not ...]


DATA = json.dumps(PAYMENT).encode()


def test_both_modes_give_the_same_event() -> None:
    structured = event(read(record(), [("content-type", b"application/cloudevents+json")], "payments"))
    binary = event(read(DATA, [*headers(), ("content-type", b"application/json")], "payments"))
    assert binary == structured
    assert event(read(record(), (), "payments")) == structured
    assert event(read(DATA, headers(), "payments")) == structured


def test_a_structured_event_may_carry_ce_headers_too() -> None:
    mixed = [*headers(id=b"other"), ("content-type", b"application/cloudevents+json; charset=utf-8")]
    assert event(read(record(), mixed, "payments")).event_id == "evt-1"


@pytest.mark.parametrize(
    "name", ["specversion", "id", "source", "type", "time", "tenantid", "idempotencykey", "traceparent"]
)
@pytest.mark.parametrize(
    "value", [None, b"\xff\xfe", b"a\x00b", b"\xed\xa0\x80"], ids=["null", "latin", "nul", "surrogate"]
)
def test_a_null_or_unreadable_ce_header_is_malformed(name: str, value: bytes | None) -> None:
    assert f"ce_{name}" in malformed(read(DATA, headers(**{name: value}), "payments"))


@pytest.mark.parametrize("name", ["id", "source", "type", "time", "tenantid"])
def test_a_missing_ce_header_is_malformed(name: str) -> None:
    assert name in malformed(read(DATA, headers(**{name: ...}), "payments"))


def test_a_ce_header_given_twice_is_malformed() -> None:
    assert "twice" in malformed(read(DATA, [*headers(), ("ce_id", b"evt-2")], "payments"))


@pytest.mark.parametrize("value", [None, b"\xff\xfe", b"", b"\x00"])
def test_headers_of_strangers_are_none_of_our_business(value: bytes | None) -> None:
    strange: list[Any] = [("uber-trace", value), ("", value), (None, value), (b"\xff", value), ("ce_stranger", value)]
    event(read(DATA, [*headers(), *strange], "payments"))
    event(read(record(), [*strange, ("content-type", value)], "payments"))


@pytest.mark.parametrize("strange", [[None], [()], [("a",)], [("a", b"b", b"c")], 5, "ab", [("ce_specversion", 5)]])
def test_headers_that_are_none_do_not_raise(strange: Any) -> None:
    assert isinstance(read(DATA, strange, "payments"), WireEvent | Malformed)


def test_data_in_the_value_can_not_replace_the_headers() -> None:
    assert "type" in malformed(read(record(), headers(type=...), "payments"))
