"""Sending again what was refused or was no event, changed or as it was, as a delivery of its own.

What is sent can be followed for ever in the journal: its `source` names who did it (`redrive:ada`), its `id` the row
that it comes from and a digest of what it says (`redrive-2-1044-9f…`). So the same redrive twice is one delivery, and
the difference is that of the two rows' data. Attributes for whoever reads the topic say it once more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from consumers.translate import to_event
from domain.events import Event
from domain.keys import Key
from infra.kafka.publisher import Message
from infra.outputs import rfc3339
from infra.records import Headers
from schemas import canonical
from schemas.registry import EVENT_TYPES
from schemas.wire import Malformed, read

Document = dict[str, Any]
Edit = Callable[[Document], Document]

HEADER = "ledger-redrive-"
NOT_TO_BE_CHANGED = ("specversion", "id", "source", "tenantid")


class CannotRedriveError(Exception):
    """It can't be sent again like this; the message says why, and what would help."""


class Difference(NamedTuple):
    """One value that was changed; None where there was none, or is none any more."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Redrive:
    """One record that is about to be sent again. `of` is where it stands, as the lists print it."""

    of: str
    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()
    differences: Sequence[Difference] = field(default_factory=list)
    event: Event | None = None

    def message(self, number: int) -> Message:
        return Message(number, self.topic, self.key, self.value, self.headers)


# --- events ---------------------------------------------------------------------------------------------------------


def redrive_event(told: Mapping[str, Any], *, tenant: str, edit: Edit, who: str, now: datetime) -> Redrive:
    """An event of a rejection, or one that is parked, as a new delivery. Raises: CannotRedriveError."""
    event = told["event"]
    before: Document = {"type": event["type"], "time": rfc3339(told["occurred_at"])}
    if event["idempotency_key"] is not None:
        before["idempotencykey"] = event["idempotency_key"]
    if told.get("traceparent") is not None:
        before["traceparent"] = told["traceparent"]
    before["data"] = told["data"]
    after = edit(json.loads(json.dumps(before)))
    if fixed := [name for name in NOT_TO_BE_CHANGED if name in after]:
        raise CannotRedriveError(f"{told['id']}: {fixed[0]} can't be set; a redrive makes its own, for the same tenant")
    differences = differences_of(before, after)
    digest = blake2b(canonical.dump(after), digest_size=6).hexdigest()
    envelope = {
        "specversion": "1.0",
        "id": f"redrive-{told['id']}-{digest}",
        "source": f"redrive:{who}",
        "tenantid": tenant,
        **after,
        **_trail(told["id"], who, now, differences),
    }
    known = EVENT_TYPES.get(after["type"]) if isinstance(after.get("type"), str) else None
    topic = known.topic if known else EVENT_TYPES[event["type"]].topic
    value = canonical.dump(envelope)
    wire = read(value, (), topic)
    if isinstance(wire, Malformed):
        raise CannotRedriveError(f"{told['id']}: {wire.code}: {wire.message}")
    made = to_event(wire, None)
    return Redrive(told["id"], topic, tenant.encode(), value, (), differences, made)


def _trail(of: str, who: str, now: datetime, differences: Sequence[Difference]) -> dict[str, str]:
    """Attributes that the ledger ignores, for whoever reads the topic."""
    told = json.dumps([each._asdict() for each in differences], ensure_ascii=False)
    return {"redriveof": of, "redriveby": who, "redriveat": rfc3339(now), "redrivechanges": told}


def refuse_held(redrive: Redrive, held: Mapping[bytes, int], *, shard: int, freed: int | None = None) -> str | None:
    """What makes a redrive pointless: it was sent before. Raises: CannotRedriveError, where a key of it is taken.

    `held`: the seqs by key; `freed`: a seq whose keys, its delivery's apart, will be free by then.
    """
    event = redrive.event
    assert event is not None
    if event.delivery in held:
        return f"was sent before, as {event.event_id}"
    taken = {key: seq for key, seq in held.items() if seq != freed}
    if event.publisher is not None and event.publisher in taken:
        raise CannotRedriveError(
            f"{redrive.of}: its idempotencykey {event.idempotency_key!r} is taken for ever by {shard}-"
            f"{taken[event.publisher]}; give it another: --set idempotencykey=…"
        )
    if event.natural is not None and event.natural in taken:
        parts = EVENT_TYPES[event.type].natural_key
        raise CannotRedriveError(
            f"{redrive.of}: what makes it this one and no other ({parts}) is taken for ever by {shard}-"
            f"{taken[event.natural]}; it can only be sent as another one"
        )
    return None


def keys_of(redrive: Redrive) -> list[Key]:
    """The keys that decide whether it would be judged at all."""
    event = redrive.event
    assert event is not None
    return [key for key in (event.delivery, event.natural, event.publisher) if key is not None]


# --- dead letters ---------------------------------------------------------------------------------------------------


def redrive_letter(letter: Mapping[str, Any], *, topic: str, value: bytes | None, who: str, now: datetime) -> Redrive:
    """A dead letter's record with this value, on a topic (short name). Raises: CannotRedriveError."""
    headers: list[tuple[str, bytes | None]] = [
        (name, None if content is None else bytes.fromhex(content))
        for name, content in json.loads(letter["headers"] or b"[]")
    ]
    wire = read(value, headers, topic)
    if isinstance(wire, Malformed) or value is None:
        fault = f"{wire.code}: {wire.message}" if isinstance(wire, Malformed) else "it has no value"
        raise CannotRedriveError(f"{letter['id']}: it would be a dead letter again ({fault}); change it")
    differences = bytes_differ(letter["value"], value)
    trail = _trail(letter["id"], who, now, differences)
    headers += [(HEADER + name.removeprefix("redrive"), text.encode()) for name, text in trail.items()]
    return Redrive(letter["id"], topic, letter["key"], value, headers, differences)


def bytes_differ(before: bytes | None, after: bytes) -> list[Difference]:
    """What was changed of a value: by field where both are JSON objects, else as a whole, by its hash."""
    if before == after:
        return []
    try:
        was, becomes = json.loads(before or b""), json.loads(after)
    except ValueError:
        was = becomes = None
    if isinstance(was, dict) and isinstance(becomes, dict) and (found := differences_of(was, becomes)):
        return found
    old = None if before is None else f"blake2b:{blake2b(before, digest_size=16).hexdigest()}"
    return [Difference("", old, f"blake2b:{blake2b(after, digest_size=16).hexdigest()}")]


# --- changes --------------------------------------------------------------------------------------------------------


def differences_of(before: Any, after: Any, path: str = "") -> list[Difference]:
    """The values by which two documents differ, by path: `data.postings.0.amount`."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*before, *(name for name in after if name not in before)]
        return [
            each
            for name in names
            for each in differences_of(before.get(name), after.get(name), f"{path}.{name}" if path else name)
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [each for at, (old, new) in pairs for each in differences_of(old, new, f"{path}.{at}")]
    # As they stand in JSON: to Python 1 equals true.
    return [] if canonical.dump(before) == canonical.dump(after) else [Difference(path, before, after)]


def with_values(document: Document, values: Iterable[tuple[str, Any]]) -> Document:
    """The document with each path set to its value; `...` takes what stands there away. Raises: CannotRedriveError."""
    for path, value in values:
        *outer, last = path.split(".")
        holder: Any = document
        for name in outer:
            holder = _member(holder, name, path)
        if isinstance(holder, list):
            _member(holder, last, path)
            holder[int(last) : int(last) + 1] = [] if value is ... else [value]
        elif not isinstance(holder, dict):
            raise CannotRedriveError(f"--set {path}: there is nothing that has a {last!r}")
        elif value is ...:
            holder.pop(last, None)
        else:
            holder[last] = value
    return document


def _member(holder: Any, name: str, path: str) -> Any:
    try:
        return holder[int(name)] if isinstance(holder, list) else holder[name]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise CannotRedriveError(f"--set {path}: there is no {name!r}") from error
