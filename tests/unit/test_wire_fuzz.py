"""Whatever comes, it is an event or it is malformed; it is never an exception."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

import jiter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.registry import EVENT_TYPES
from schemas.wire import Malformed, WireEvent, read, read_journal
from tests.unit.wire_samples import LEAST, envelope, topic_of

TYPES = sorted(EVENT_TYPES)
TOPICS = st.sampled_from(["payments", "refunds", "transfers", "payouts", "disputes", "commands", "authorizations"])
TEXT = st.text(max_size=30) | st.sampled_from(["", "\x00", "\ud800", "a" * 201, "EUR", "2026-01-01T00:00:00Z"])
NUMBERS = st.integers() | st.sampled_from([2**63, 10**39, 10**40, -(10**40), 10**400]) | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
HEADERS: Any = st.lists(
    st.tuples(
        st.sampled_from([f"ce_{name}" for name in envelope(traceparent="")])
        | st.just("content-type")
        | st.text()
        | st.none(),
        st.none() | st.binary(max_size=40) | st.sampled_from([b"1.0", b"acme", b"application/cloudevents+json"]),
    ),
    max_size=10,
)


def check(value: bytes | None, headers: Any, topic: str) -> None:
    result = read(value, headers, topic)
    if isinstance(result, Malformed):
        assert result.code in ("malformed", "unknown_type", "wrong_topic", "too_large")
        assert "can't be read" not in result.message
        assert result.message.isprintable()
        assert 0 < len(result.message) <= 500
        return
    assert isinstance(result, WireEvent)
    assert result.time.tzinfo is UTC
    assert -(2**63) <= result.fingerprint < 2**63
    assert read_journal(result.type, result.data_json) == result.data
    texts = [result.data_json.decode(), result.tenant_id, result.event_id, result.source, result.idempotency_key or ""]
    assert not any("\x00" in text or "\\u0000" in text for text in texts if "\\\\u0000" not in text)


@settings(max_examples=300, deadline=None)
@given(st.none() | st.binary(max_size=200), HEADERS, TOPICS)
def test_any_bytes(value: bytes | None, headers: Any, topic: str) -> None:
    check(value, headers, topic)


@settings(max_examples=300, deadline=None)
@given(JSON, HEADERS, TOPICS)
def test_any_json(document: Any, headers: Any, topic: str) -> None:
    check(json.dumps(document).encode(), headers, topic)


PLAUSIBLE: Any = st.sampled_from(
    ["1", "2", "EUR", "JPY", "XXX", "a", "b", "platform:cash", "liability", "2026-01-01T00:00:00Z"]
)
LEGS: Any = st.lists(
    st.fixed_dictionaries(
        {
            "account": st.sampled_from("ab"),
            "amount": st.integers(-2, 2) | NUMBERS,
            "currency": st.sampled_from(["EUR", "JPY"]),
        }
    ),
    max_size=3,
)
FIELDS: Any = PLAUSIBLE | st.integers(-(2**63) - 1, 2**63) | LEGS | st.dictionaries(PLAUSIBLE, NUMBERS | PLAUSIBLE)


@st.composite
def nearly_right(draw: st.DrawFn) -> tuple[bytes, str]:
    """A good event with a few of its attributes and fields replaced, and now and then a few of its bytes."""
    event_type = draw(st.sampled_from(TYPES))
    model_fields = sorted(EVENT_TYPES[event_type].model.model_fields)
    data = LEAST[event_type] | draw(st.dictionaries(st.sampled_from(model_fields), FIELDS | JSON, max_size=3))
    attributes = draw(st.just({}) | st.dictionaries(st.sampled_from(sorted(envelope())), FIELDS | JSON, max_size=1))
    value = json.dumps(envelope(event_type, data=data) | attributes).encode()
    if draw(st.integers(0, 19)) == 19:
        start = draw(st.integers(0, len(value)))
        value = value[:start] + draw(st.binary(max_size=6)) + value[start + draw(st.integers(0, 6)) :]
    return value, topic_of(event_type)


@settings(max_examples=1_000, deadline=None)
@given(nearly_right(), HEADERS)
@example((b"[" * 100_000, "payments"), [])
def test_events_that_are_nearly_right(near: tuple[bytes, str], headers: Any) -> None:
    check(near[0], headers, near[1])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_what_is_journaled_is_what_came(metadata: dict[str, Any]) -> None:
    value = json.dumps(envelope(data=LEAST["payment.captured.v1"] | {"metadata": metadata})).encode()
    result = read(value, (), "payments")
    if isinstance(result, WireEvent):
        assert jiter.from_json(result.data_json) == jiter.from_json(value)["data"]
