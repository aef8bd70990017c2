"""Everything that can be wrong with a record, through a real Kafka, between events that are right."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import zstandard
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import MessageSizeTooLargeError

from infra.kafka.connection import client_arguments
from infra.postgres import queries
from infra.postgres.reading import reading
from infra.postgres.verify import verify
from tests.fixtures.bad_records import Bad, bad_records, envelope
from tests.fixtures.ledger import Raw, RunningLedger

STRANGE_HEADERS = (("trace", None), ("note", b"caf\xe9"), ("ce_id", b"\xff"), ("", b""))


def _good(number: int) -> Raw:
    """A payment of 1.00; every other one has headers that are no text, which are nobody's business."""
    value = orjson.dumps(envelope(f"good-{number}", {"amount": 100, "customer_id": "good"}))
    return Raw("payments", value, b"acme", STRANGE_HEADERS if number % 2 else ())


async def test_each_bad_record_gets_its_code_and_every_good_one_is_applied(running_ledger: RunningLedger) -> None:
    bad = bad_records()
    assert len({each.name for each in bad}) == len(bad)
    records = [record for number, each in enumerate(bad) for record in (each.record, _good(number))]
    places = (await running_ledger.publish_raw(records))[::2]
    await running_ledger.wait_until_drained()

    letters = {_origin(letter): letter for letter in await running_ledger.outputs("dead-letters")}
    outcomes = await running_ledger.said("outcomes")
    rejected = {outcome["data"]["event"]["id"]: outcome["data"]["code"] for outcome in outcomes}
    faults = []
    for each, place in zip(bad, places, strict=True):
        letter = letters.pop((place.topic, place.partition, place.offset), None)
        if each.rejected:
            got = rejected.pop(f"bad-{each.name}", None) if letter is None else "a dead letter"
            faults += [] if got == each.code else [f"{each.name}: {got}, not {each.code}"]
        else:
            faults += _faults_of_letter(each, letter)
    assert faults == []
    assert (letters, rejected) == ({}, {})
    await _good_ones_are_in_the_books(running_ledger, count=len(bad))


def _origin(letter: ConsumerRecord) -> tuple[str, int, int]:
    headers = dict(letter.headers)
    return headers["dlq-topic"].decode(), int(headers["dlq-partition"]), int(headers["dlq-offset"])


def _faults_of_letter(each: Bad, letter: ConsumerRecord | None) -> list[str]:
    """What is wrong with a dead letter: its code, or that it isn't the record that was sent, byte for byte."""
    if letter is None:
        return [f"{each.name}: no dead letter"]
    faults = []
    code = dict(letter.headers)["dlq-code"].decode()
    if code != each.code:
        faults.append(f"{each.name}: {code}, not {each.code}: {dict(letter.headers)['dlq-message'].decode()}")
    if (letter.key, letter.value) != (each.record.key, each.record.value):
        faults.append(f"{each.name}: its bytes have changed")
    if list(letter.headers[: len(each.record.headers)]) != [tuple(header) for header in each.record.headers]:
        faults.append(f"{each.name}: its headers have changed")
    return faults


async def _good_ones_are_in_the_books(ledger: RunningLedger, *, count: int) -> None:
    async with reading(ledger.settings) as books:
        (line,) = await queries.balance(books, "acme", "customer_balance:good")
        assert (line["posted"], line["version"]) == (-100 * count, count)
        lines, _ = await queries.trial_balance(books, "acme")
        assert {each["account"] for each in lines} == {"customer_balance:good", "platform:cash"}
        assert [check async for check in verify(books, deep=True) if not check["ok"]] == []


async def test_a_time_far_in_the_future_counts_when_it_is_recorded(running_ledger: RunningLedger) -> None:
    times = ("1970-01-01T00:00:00Z", "2199-12-31T23:59:59.999999Z", "2026-03-02T12:00:00.123456789+05:30")
    data: dict[str, Any] = {"amount": 100, "currency": "EUR", "customer_id": "ada"}
    events = [
        running_ledger.event("payment.captured.v1", data | {"payment_id": f"pay-{number}"}, time=time)
        for number, time in enumerate(times)
    ]
    await running_ledger.publish(*events)
    await running_ledger.wait_until_drained()
    entries = {
        entry["data"]["references"]["payment_id"]: entry["data"] for entry in await running_ledger.said("entries")
    }
    assert entries["pay-0"]["effective_at"] == "1970-01-01T00:00:00.000000Z"
    assert entries["pay-1"]["effective_at"] == entries["pay-1"]["recorded_at"]
    assert entries["pay-1"]["occurred_at"] == "2199-12-31T23:59:59.999999Z"
    assert entries["pay-2"]["effective_at"] == "2026-03-02T06:30:00.123456Z"


async def test_the_broker_refuses_a_record_that_unpacks_to_256_mebibytes(running_ledger: RunningLedger) -> None:
    value = b" " * (256 * 1024 * 1024)
    assert len(zstandard.compress(value)) < 100_000
    producer = AIOKafkaProducer(
        **client_arguments(running_ledger.settings), compression_type="zstd", max_request_size=len(value) + 4096
    )
    await producer.start()
    try:
        # Kafka 4 says that the batch is too large, which is so only once it is unpacked.
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(running_ledger.settings.topic("payments"), value, key=b"acme")
    finally:
        await producer.stop()

    # And the stream goes on as if nothing had been.
    await running_ledger.publish_raw([_good(0)])
    await running_ledger.wait_until_drained()
    assert len(await running_ledger.outputs("entries")) == 1
    assert await running_ledger.outputs("dead-letters") == []
