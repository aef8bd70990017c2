"""`ledgerstream publish` and `lag`: what goes onto the topics, and what is still to be read there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from click.testing import CliRunner, Result

from consumers.cli import cli
from infra.kafka.partitioner import partition_of
from infra.kafka.topics import ensure_topics
from infra.settings import Settings

Run = Callable[..., Result]


@pytest.fixture
def run(settings: Settings) -> Run:
    environment = {
        "LEDGER_DATABASE_URL": settings.database_url,
        "LEDGER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "LEDGER_TOPIC_PREFIX": settings.topic_prefix,
    }

    def invoke(*arguments: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, input=stdin, env=environment)

    return invoke


@pytest.fixture
async def topics(settings: Settings) -> None:
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    await ensure_topics(settings, connection)
    await connection.close()


Records = Callable[[str], list[tuple[int, bytes | None, bytes | None]]]


@pytest.fixture
async def consumer(settings: Settings, topics: None) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await consumer.start()
    yield consumer
    await consumer.stop()


async def _records(consumer: AIOKafkaConsumer, settings: Settings, topic: str) -> list[tuple[int, Any, Any]]:
    """(partition, key, value) of every record of a topic."""
    places = [TopicPartition(settings.topic(topic), number) for number in range(settings.shards)]
    ends = await consumer.end_offsets(places)
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    found = []
    while len(found) < sum(ends.values()):
        for batch in (await consumer.getmany(timeout_ms=5_000)).values():
            found += [(record.partition, record.key, record.value) for record in batch]
    return found


def _payment(number: int, tenant: str = "acme", **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": f"evt-{number}",
        "source": "test",
        "type": "payment.captured.v1",
        "time": "2026-03-02T12:00:00Z",
        "tenantid": tenant,
        "data": {"payment_id": f"p{number}", "amount": 100, "currency": "EUR", "customer_id": "c1", **data},
    }


def _transfer(number: int) -> dict[str, Any]:
    data = {"transfer_id": f"t{number}", "amount": 5, "currency": "EUR", "customer_id": "c1", "merchant_id": "m1"}
    return {**_payment(number), "type": "transfer.created.v1", "data": data}


def _file(path: Path, *events: dict[str, Any] | str) -> str:
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


async def _invoke(run: Run, *arguments: str, stdin: bytes | None = None) -> Result:
    """In a thread: the command has a loop of its own."""
    import asyncio

    return await asyncio.to_thread(lambda: run(*arguments, stdin=stdin))


async def test_events_go_to_the_topics_of_their_types_keyed_by_tenant(
    run: Run, settings: Settings, consumer: AIOKafkaConsumer, tmp_path: Path
) -> None:
    events = [_payment(1), _payment(2, "other"), _transfer(3)]
    result = await _invoke(run, "publish", _file(tmp_path / "events.jsonl", *events, ""), "--json")
    assert result.exit_code == 0, result.stderr
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"topic": settings.topic("payments"), "published": 2},
        {"topic": settings.topic("transfers"), "published": 1},
    ]
    sent = sorted(await _records(consumer, settings, "payments"), key=lambda record: record[1])
    assert sent == [
        (partition_of(key, settings.shards), key, json.dumps(event).encode())
        for key, event in ((b"acme", events[0]), (b"other", events[1]))
    ]


async def test_an_invalid_line_is_named_and_nothing_is_sent(
    run: Run, settings: Settings, consumer: AIOKafkaConsumer, tmp_path: Path
) -> None:
    unknown = {**_payment(3), "type": "payment.guessed.v1"}
    path = _file(tmp_path / "events.jsonl", _payment(1), "{not json", unknown, _payment(4, amount="100"))
    result = await _invoke(run, "publish", path)
    assert result.exit_code == 1
    first, second, third, last = result.stderr.splitlines()
    assert first.startswith("line 2: malformed: the value is not JSON")
    assert second.startswith("line 3: unknown_type: ")
    assert third.startswith("line 4: malformed: data.amount: ")
    assert last == "Error: 3 of the lines can't be sent as they are; nothing was sent"
    assert await _records(consumer, settings, "payments") == []


async def test_without_validation_every_line_is_sent(
    run: Run, settings: Settings, consumer: AIOKafkaConsumer, tmp_path: Path
) -> None:
    path = _file(tmp_path / "events.jsonl", _payment(1, amount="100"), "{not json")
    result = await _invoke(run, "publish", path, "--no-validate", "--topic", "payments")
    assert result.exit_code == 0, result.stderr
    values = {value for _, _, value in await _records(consumer, settings, "payments")}
    assert values == {json.dumps(_payment(1, amount="100")).encode(), b"{not json"}


async def test_a_line_without_a_type_needs_a_topic(run: Run, topics: None, tmp_path: Path) -> None:
    result = await _invoke(run, "publish", _file(tmp_path / "events.jsonl", "{not json"), "--no-validate")
    assert result.exit_code == 1
    assert "line 1: it has no type that is known here; say where to with --topic" in result.stderr


async def test_a_line_for_another_topic_is_refused(run: Run, topics: None, tmp_path: Path) -> None:
    result = await _invoke(run, "publish", _file(tmp_path / "e.jsonl", _payment(1)), "--topic", "refunds")
    assert result.exit_code == 1
    assert "line 1: wrong_topic: " in result.stderr


async def test_a_dash_reads_standard_input(run: Run, settings: Settings, consumer: AIOKafkaConsumer) -> None:
    result = await _invoke(run, "publish", "-", stdin=json.dumps(_payment(1)).encode())
    assert result.exit_code == 0, result.stderr
    assert len(await _records(consumer, settings, "payments")) == 1


async def test_nothing_to_send_is_said(run: Run, topics: None) -> None:
    result = await _invoke(run, "publish", "-", stdin=b"\n\n")
    assert (result.exit_code, result.stderr) == (1, "Error: there is nothing to send\n")


async def test_a_missing_topic_ends_2_and_says_who_makes_it(run: Run, tmp_path: Path) -> None:
    result = await _invoke(run, "publish", _file(tmp_path / "events.jsonl", _payment(1)))
    assert result.exit_code == 2
    assert "payments; start `ledgerstream run`, which makes it" in result.stderr


async def test_a_record_the_broker_refuses_ends_1_and_names_its_line(run: Run, topics: None, tmp_path: Path) -> None:
    large = json.dumps(_payment(2, description="x" * 2_500_000))
    result = await _invoke(run, "publish", _file(tmp_path / "e.jsonl", _payment(1), large), "--no-validate")
    assert result.exit_code == 1
    assert "line 2 was not sent" in result.stderr
    assert "1 lines were" in result.stderr


async def test_lag_counts_what_is_not_read_yet(run: Run, settings: Settings, topics: None, tmp_path: Path) -> None:
    await _invoke(run, "publish", _file(tmp_path / "events.jsonl", _payment(1), _payment(2), _payment(3)))
    partition = partition_of(b"acme", settings.shards)
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    await connection.execute(
        "INSERT INTO input_offsets (topic, topic_id, partition, next_offset) VALUES ($1, gen_random_uuid(), $2, 1)",
        settings.topic("payments"),
        partition,
    )
    await connection.close()
    result = await _invoke(run, "lag", "--json")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"topic": settings.topic("payments"), "partition": partition, "lag": 2} in lines
    assert sum(line.get("lag", 0) for line in lines) == 2
    assert [line for line in lines if "shard" in line] == [
        {"shard": shard, "unrelayed": 0} for shard in range(settings.shards)
    ]
