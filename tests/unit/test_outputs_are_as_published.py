"""Every byte that the ledger says is what the published schemas promise."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.translate import read_command, to_event
from domain.books import Books
from domain.decide import decide_batch
from infra import outbox
from infra.outputs import OutputWriter
from schemas.examples import example
from schemas.registry import EVENT_TYPES, OUTPUT_TYPES
from schemas.topics import OUTPUT_TOPICS, TOPICS
from schemas.wire import WireEvent, read, read_output
from tests.unit.test_documents import VALIDATORS
from tests.unit.test_wire_fuzz import nearly_right
from tests.unit.wire_samples import PAYMENT, envelope, event, topic_of

RECORDED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = 'a"b\\c\u2028 </script> 😀'


def written(documents: Iterable[dict[str, Any]]) -> list[outbox.Output]:
    """Decide events on empty books, and give what the ledger says of them."""
    books = Books(shard=2, epoch=1, next_seq=41, recorded_at=RECORDED_AT)
    events = [event(read(json.dumps(document).encode(), (), topic_of(document["type"]))) for document in documents]
    writer = OutputWriter(
        epoch=1,
        shard=2,
        next_seq=41,
        head=bytes(32),
        recorded_at=RECORDED_AT,
        partitions=dict.fromkeys(OUTPUT_TOPICS, 4),
        value_bytes_max={name: TOPICS[name].max_message_bytes for name in OUTPUT_TOPICS},
    )
    for handled in decide_batch([to_event(wire, None) for wire in events], books).handled:
        writer.handled(handled)
    return list(outbox.unpack(outbox.pack(writer.frames)))


def check(outputs: list[outbox.Output]) -> dict[str, list[Any]]:
    """Hold outputs against the models and the schemas; gives the documents by type."""
    by_type: dict[str, list[Any]] = {}
    for seq, output in enumerate(outputs, start=41):
        assert output.value is not None
        said, data = read_output(output.value)
        document = json.loads(output.value)
        VALIDATORS[said.type].validate(document)
        assert document["data"].keys() == data.model_fields_set
        assert said.id == f"1-2-{seq}"
        assert outbox.TYPES[output.type] == said.type
        assert outbox.TOPICS[output.topic] == OUTPUT_TYPES[said.type].topic
        assert output.key == OUTPUT_TYPES[said.type].key.format_map(document | document["data"]).encode()
        by_type.setdefault(said.type, []).append(document)
    return by_type


def test_what_comes_of_the_examples_is_as_published() -> None:
    by_type = check(written(example(event_type) for event_type in EVENT_TYPES))
    assert by_type.keys() == {
        "balance.changed.v1",
        "entry.recorded.v1",
        "authorization.decided.v1",
        "authorization.changed.v1",
        "event.parked.v1",
        "event.rejected.v1",
        "command.applied.v1",
    }


def test_texts_that_need_escaping_arrive_as_they_were() -> None:
    data = PAYMENT | {
        "payment_id": HOSTILE,
        "customer_id": HOSTILE,
        "provider": HOSTILE,
        "description": HOSTILE + "\n\x01",
    }
    hostile = envelope(id=HOSTILE, source=HOSTILE, data=data | {"metadata": {HOSTILE: [HOSTILE, 2**80, 1e-7, None]}})
    by_type = check(written([hostile]))
    entry = by_type["entry.recorded.v1"][0]["data"]
    assert entry["description"] == data["description"]
    assert entry["metadata"] == {HOSTILE: [HOSTILE, 2**80, 1e-7, None]}
    assert entry["references"] == {"payment_id": HOSTILE}
    assert entry["cause"] == {"type": "payment.captured.v1", "id": HOSTILE, "source": HOSTILE}
    assert f"customer_balance:{HOSTILE}" in {posting["account"] for posting in entry["postings"]}


@pytest.mark.parametrize(
    "late",
    [
        envelope("refund.succeeded.v1", data=example("refund.succeeded.v1")["data"]),
        envelope("refund.failed.v1"),
        envelope("dispute.lost.v1"),
    ],
)
def test_a_parked_event_is_told_as_published(late: dict[str, Any]) -> None:
    parked = check(written([late | {"id": HOSTILE}]))["event.parked.v1"][0]["data"]
    assert parked["event"]["id"] == HOSTILE
    assert parked["event"]["idempotency_key"] == "key-1"


def test_a_conflict_is_told_as_published() -> None:
    rejected = check(written([envelope(), envelope(id="evt-2", data=PAYMENT | {"amount": 2**63 - 1})]))[
        "event.rejected.v1"
    ]
    assert [document["data"]["code"] for document in rejected] == ["idempotency_conflict"]


def test_the_smallest_amounts_and_the_largest_are_told_exactly() -> None:
    by_type = check(written([envelope(data=PAYMENT | {"amount": 2**63 - 1})]))
    assert {abs(document["data"]["posted"]) for document in by_type["balance.changed.v1"]} == {2**63 - 1}


def test_an_event_rebuilt_from_its_journal_is_the_same_event() -> None:
    metadata = {"z": {"b": 1, "a": 2**80}, "a": [1e-7, 1.5, HOSTILE]}
    wire = event(read(json.dumps(envelope(data=PAYMENT | {"metadata": metadata})).encode(), (), "payments"))
    assert read_command(wire.type, wire.data_json) == to_event(wire, None).command


@pytest.mark.parametrize("amount", [2**63, -(2**63) - 1, 10**39, -(10**39), 0, -1])
@pytest.mark.parametrize(
    "event_type", [name for name in EVENT_TYPES if "amount" in EVENT_TYPES[name].model.model_fields]
)
def test_an_amount_out_of_bounds_is_rejected_or_parked_and_breaks_nothing(event_type: str, amount: int) -> None:
    by_type = check(written([envelope(event_type, data=example(event_type)["data"] | {"amount": amount})]))
    # A card payment of 0 asks whether the card is good.
    asks = amount == 0 and event_type in ("authorization.requested.v1", "authorization.advised.v1")
    assert by_type.keys() <= {"event.rejected.v1", "event.parked.v1"} or asks


@pytest.mark.parametrize("amount", [2**63, -(2**63) - 1, 10**39, -(10**39)])
def test_limits_fees_and_legs_out_of_bounds_are_rejected_and_break_nothing(amount: int) -> None:
    account = {"name": "a", "type": "asset"}
    leg = {"account": "platform:cash", "currency": "EUR"}
    postings = [leg | {"amount": amount}, leg | {"amount": -amount}]
    for document in (
        envelope(data=PAYMENT | {"fees": amount}),
        envelope("account.create.v1", data=account | {"floor": {"EUR": amount}}),
        envelope("account.create.v1", data=account | {"ceiling": amount, "currency": "EUR"}),
        envelope("entry.post.v1", data={"postings": postings}),
    ):
        by_type = check(written([document]))
        assert by_type.keys() == {"event.rejected.v1"}, document["type"]


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_each_command_is_rebuilt_from_the_journal(event_type: str) -> None:
    wire = event(read(json.dumps(example(event_type)).encode(), (), topic_of(event_type)))
    assert read_command(wire.type, wire.data_json) == to_event(wire, None).command


@settings(max_examples=400, deadline=None)
@given(st.lists(nearly_right(), min_size=1, max_size=4))
def test_nothing_that_is_read_breaks_the_core_or_is_told_wrongly(near: list[tuple[bytes, str]]) -> None:
    results = [read(value, (), topic) for value, topic in near]
    told = written(
        [json.loads(value) for (value, _), result in zip(near, results, strict=True) if isinstance(result, WireEvent)]
    )
    check(told)
