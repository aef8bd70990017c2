"""From the bytes of a record to an event, or to the reason why it is none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import jiter
from pydantic import ValidationError

from schemas import canonical
from schemas.envelope import ATTRIBUTES, CONTENT_TYPE, TRACEPARENT_PATTERN, Envelope, OutputEnvelope
from schemas.fields import Wire
from schemas.fingerprint import Fingerprinter
from schemas.registry import EVENT_TYPES, OUTPUT_TYPES, RESOLUTION, EventType

VALUE_BYTES_MAX = 1024 * 1024
NESTING_MAX = 64
MESSAGE_LENGTH_MAX = 500

Headers = Sequence[tuple[str, bytes | None]]
MalformedCode = Literal["malformed", "unknown_type", "wrong_topic", "too_large"]


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record that is no event, for a dead letter. `message` is for people: printable, at most 500 characters."""

    code: MalformedCode
    message: str


@dataclass(slots=True)
class WireEvent:
    """An event as it was published, checked for everything that can be checked without the books.

    Shape: `data_json` is the canonical JSON of `data` as given, without defaults. Units: `time` in UTC;
    `fingerprint` is a signed integer of 64 bits.
    """

    type: str
    tenant_id: str
    source: str
    event_id: str
    time: datetime
    idempotency_key: str | None
    traceparent: str | None
    data: Wire
    data_json: bytes
    fingerprint: int


class _UnreadableError(Exception):
    def __init__(self, message: str, code: MalformedCode = "malformed") -> None:
        super().__init__(message)
        self.code: MalformedCode = code


def read(value: bytes | None, headers: Headers, topic: str) -> WireEvent | Malformed:
    """Read one record of a topic, given by its short name; never raises, whatever the bytes and headers.

    Source: order of checks in CONTRACT 1: too large, JSON and envelope, type, topic, data.
    """
    try:
        return _read(value, headers, topic)
    except _UnreadableError as error:
        return Malformed(error.code, printable(str(error)))
    except ValidationError as error:
        return Malformed("malformed", printable(_first_fault(error)))
    except Exception as error:
        # One record that we failed to foresee must not stop its partition for ever: it becomes a dead letter.
        return Malformed("malformed", printable(f"can't be read: {type(error).__name__}: {error}"))


def read_journal(event_type: str, data_json: bytes) -> Wire:
    """Rebuild the data of an event from what the journal kept of it. Raises: KeyError, ValidationError.

    What the resolvers answered comes along where it was kept; on the wire it would be an unknown field.
    """
    known, data = EVENT_TYPES[event_type], jiter.from_json(data_json)
    model = known.resolved if known.resolved is not None and RESOLUTION in data else known.model
    validated: Wire = model.__pydantic_validator__.validate_python(data)
    return validated


def with_resolution(data_json: bytes, resolution: dict[str, Any]) -> bytes:
    """Put what the resolvers answered into the data of an event, for the journal; its fingerprint stays the same."""
    return canonical.dump(jiter.from_json(data_json) | {RESOLUTION: resolution})


def read_output(value: bytes) -> tuple[OutputEnvelope, Wire]:
    """Read one of our own outputs, as a subscriber that trusts nothing. Raises: ValueError, KeyError for its type."""
    document = jiter.from_json(value, allow_inf_nan=False, catch_duplicate_keys=True)
    envelope = OutputEnvelope.model_validate(document)
    return envelope, OUTPUT_TYPES[envelope.type].model.model_validate(envelope.data)


def _read(value: bytes | None, headers: Headers, topic: str) -> WireEvent:
    if value is None:
        raise _UnreadableError("the value is null; events on this topic are never deleted by a tombstone")
    if len(value) > VALUE_BYTES_MAX:
        raise _UnreadableError(f"the value has {len(value)} bytes; at most {VALUE_BYTES_MAX} are read", "too_large")
    document = _parse(value)
    binary = _attributes_in_headers(headers)
    envelope = Envelope.__pydantic_validator__.validate_python(
        document if binary is None else binary | {"data": document}
    )
    known = _KNOWN.get(envelope.type)
    if known is None:
        raise _UnreadableError(f"no type {envelope.type!r} is known here", "unknown_type")
    event_type, fingerprinter = known
    if event_type.topic != topic:
        raise _UnreadableError(
            f"{event_type.name} belongs on the topic of {event_type.topic}, not {topic}", "wrong_topic"
        )
    return _event(envelope, event_type, fingerprinter)


def _event(envelope: Envelope, event_type: EventType, fingerprinter: Fingerprinter) -> WireEvent:
    data = envelope.data
    if not isinstance(data, dict):
        raise _UnreadableError("data: is not a JSON object")
    if envelope.idempotencykey is None and event_type.needs_key:
        raise _UnreadableError(f"idempotencykey: is missing; {event_type.name} needs one, it has no other key")
    try:
        model = event_type.model.__pydantic_validator__.validate_python(data)
    except ValidationError as error:
        raise _UnreadableError(_first_fault(error, "data")) from error
    data_json = canonical.dump(data)
    return WireEvent(
        type=envelope.type,
        tenant_id=envelope.tenantid,
        source=envelope.source,
        event_id=envelope.id,
        time=envelope.time,
        idempotency_key=envelope.idempotencykey,
        traceparent=None if envelope.traceparent is None else _well_formed(envelope.traceparent),
        data=model,
        data_json=data_json,
        fingerprint=fingerprinter.take(data, data_json),
    )


_KNOWN: dict[str, tuple[EventType, Fingerprinter]] = {
    name: (event_type, Fingerprinter(name)) for name, event_type in EVENT_TYPES.items()
}


# --- the value ------------------------------------------------------------------------------------------------------


def _parse(value: bytes) -> dict[str, Any]:
    """Parse the JSON object in `value`; a key twice, deep nesting and U+0000 are refused anywhere in it."""
    try:
        document = jiter.from_json(value, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as error:
        raise _UnreadableError(f"the value is not JSON that can be read: {error}") from error
    if not isinstance(document, dict):
        raise _UnreadableError("the value is not a JSON object")
    # Counting brackets and escapes is cheap, and tells for nearly every record that no walk is needed.
    if value.count(b"{") + value.count(b"[") > NESTING_MAX:
        _check_nesting(document)
    if b"\\u0000" in value:
        _check_texts(document)
    return document


def _check_nesting(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(NESTING_MAX):
        level = [child for parent in level for child in _children(parent) if isinstance(child, (dict, list))]
        if not level:
            return
    raise _UnreadableError(f"more than {NESTING_MAX} objects and arrays are inside each other")


def _check_texts(document: dict[str, Any]) -> None:
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "\x00" in value:
                raise _UnreadableError("a text has the character U+0000")
        else:
            waiting.extend(_children(value))
            waiting.extend(value if isinstance(value, dict) else ())


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


# --- the headers ----------------------------------------------------------------------------------------------------


def _attributes_in_headers(headers: Headers) -> dict[str, Any] | None:
    """Give the envelope of an event in binary mode, from its `ce_` headers; None if the event is structured."""
    if not headers:
        return None
    names = [name for name, _ in headers]
    if "ce_specversion" not in names or _is_structured(headers):
        return None
    attributes: dict[str, Any] = {}
    for name, value in headers:
        attribute = name[3:] if isinstance(name, str) and name.startswith("ce_") else ""
        if attribute not in ATTRIBUTES:
            continue
        if attribute in attributes:
            raise _UnreadableError(f"header {name}: is given twice")
        attributes[attribute] = _header_text(name, value)
    return attributes


def _is_structured(headers: Headers) -> bool:
    return any(
        name == "content-type" and isinstance(value, bytes) and value.lower().startswith(CONTENT_TYPE.encode())
        for name, value in headers
    )


def _header_text(name: str, value: bytes | None) -> str:
    if value is None:
        raise _UnreadableError(f"header {name}: is null")
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"header {name}: is not UTF-8") from error
    if "\x00" in text:
        raise _UnreadableError(f"header {name}: has the character U+0000")
    return text


_is_traceparent = re.compile(TRACEPARENT_PATTERN.replace("$", r"\Z")).match


def _well_formed(traceparent: Any) -> str | None:
    """Give back a W3C trace context that can be handed on, or None: a broken trace is no reason to refuse money."""
    if not isinstance(traceparent, str) or not _is_traceparent(traceparent):
        return None
    version, trace_id, parent_id, _ = traceparent.split("-")
    return None if version == "ff" or not trace_id.strip("0") or not parent_id.strip("0") else traceparent


# --- messages -------------------------------------------------------------------------------------------------------


def _first_fault(error: ValidationError, within: str = "") -> str:
    """Say which field is wrong and how; the first fault is enough for a person to go on with."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in (within, *fault["loc"]) if part != "")
    return f"{path}: {fault['msg'].removeprefix('Value error, ')}" if path else fault["msg"]


def printable(message: str) -> str:
    """Make a message fit for a log, a header and a database: one short line without anything invisible."""
    short = message if len(message) <= MESSAGE_LENGTH_MAX else message[: MESSAGE_LENGTH_MAX - 1] + "…"
    return short if short.isprintable() else "".join(c if c.isprintable() else "�" for c in short)
