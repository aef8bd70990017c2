"""`verify --deep` holds the chain, the seals and the topics against the books, and names what differs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest
from aiokafka import ConsumerRecord

from infra.chain import next_head
from infra.outbox import frame, pack, unpack
from infra.postgres.migrate import GENESIS_HEAD
from infra.postgres.reading import reading
from infra.settings import Settings
from infra.verify_streams import stream_checks
from tests.fixtures.ledger import RunningLedger

pytestmark = pytest.mark.shards(2)


@pytest.fixture
async def kept(running_ledger: RunningLedger) -> AsyncIterator[RunningLedger]:
    """A ledger with payments of three tenants, two of them of one account, and a dead letter."""
    for number in range(9):
        data = {"payment_id": f"p{number}", "amount": 100, "currency": "EUR", "customer_id": "ada"}
        await running_ledger.publish(
            running_ledger.event("payment.captured.v1", data, tenant=f"t{number % 3}", description="x")
        )
    await running_ledger.producer.send_and_wait(running_ledger.settings.topic("payments"), b"not json", key=b"t0")
    await running_ledger.wait_until_drained()
    yield running_ledger


async def _faults(settings: Settings, tenant: str | None = None) -> dict[str, str]:
    async with reading(settings) as connection:
        checks = [check async for check in stream_checks(connection, settings, tenant)]
    assert {check["check"] for check in checks} >= {"outputs_chained", "topics_told"}
    return {check["check"]: check["detail"] for check in checks if not check["ok"]}


async def _again(ledger: RunningLedger, record: ConsumerRecord, value: bytes) -> None:
    """Put a record onto an output topic behind the relay's back, in the place of another."""
    await ledger.producer.send_and_wait(
        record.topic, value, key=record.key, partition=record.partition, headers=list(record.headers)
    )


async def test_the_streams_hold_against_the_books_and_each_stranger_is_named(kept: RunningLedger) -> None:
    assert await _faults(kept.settings) == {}
    assert await _faults(kept.settings, "t1") == {}

    first = (await kept.outputs("entries"))[0]
    place = "-".join(dict(first.headers)[f"ledger-{part}"].decode() for part in ("epoch", "shard", "seq"))
    await _again(kept, first, first.value.replace(b'"amount":100', b'"amount":900'))
    told = (await _faults(kept.settings))["topics_told"]
    assert f"the output {place} at {first.topic}[{first.partition}]" in told
    assert "is there twice" in told
    assert "isn't what the books say" in told


async def test_a_changed_output_breaks_the_chain_and_differs_from_its_topic(kept: RunningLedger) -> None:
    connection = await asyncpg.connect(kept.settings.asyncpg_dsn)
    row = await connection.fetchrow("SELECT * FROM outbox ORDER BY shard, seq_last LIMIT 1")
    outputs = list(unpack(row["body"]))
    assert outputs[0].value is not None
    outputs[0] = outputs[0]._replace(value=outputs[0].value.replace(b'"amount":100', b'"amount":101'))
    await connection.execute(
        "UPDATE outbox SET body = $3 WHERE shard = $1 AND seq_last = $2",
        row["shard"],
        row["seq_last"],
        pack([frame(output) for output in outputs]),
    )
    faults = await _faults(kept.settings)
    assert set(faults) == {"outputs_chained", "topics_told"}
    assert (
        f"outbox row {row['shard']}, {row['seq_first']} to {row['seq_last']} ends with the head"
        in faults["outputs_chained"]
    )
    assert f"the output 1-{row['shard']}-{row['seq_first']} at" in faults["topics_told"]

    # All heads falsified to fit: the seals, each of one or more batches, are the anchor outside of Postgres.
    head, heads = GENESIS_HEAD, set[str]()
    batches = await connection.fetch("SELECT * FROM outbox WHERE shard = $1 ORDER BY seq_last", row["shard"])
    for batch in batches:
        for seq, output in enumerate(unpack(batch["body"]), batch["seq_first"]):
            head = next_head(head, output, f"{batch['epoch']}-{batch['shard']}-{seq}")
        heads.add(head.hex())
        await connection.execute(
            "UPDATE outbox SET head_hash = $3 WHERE shard = $1 AND seq_last = $2",
            batch["shard"],
            batch["seq_last"],
            head,
        )
    faults = await _faults(kept.settings)
    assert set(faults) == {"seals_told", "topics_told"}
    assert any(f"the books have {head}" in faults["seals_told"] for head in heads)
    await connection.close()


async def test_an_output_that_is_on_no_topic_is_named(kept: RunningLedger) -> None:
    connection = await asyncpg.connect(kept.settings.asyncpg_dsn)
    row = await connection.fetchrow("SELECT * FROM outbox ORDER BY shard, seq_last LIMIT 1")
    # As if the relay had taken the second batch's place for the first's, and never sent the first.
    await connection.execute(
        "UPDATE outbox SET epoch = 2 WHERE shard = $1 AND seq_last = $2", row["shard"], row["seq_last"]
    )
    await connection.close()
    told = (await _faults(kept.settings))["topics_told"]
    assert f"the output 2-{row['shard']}-{row['seq_first']} is missing from entries" in told


async def test_where_kafka_is_away_the_check_says_that_it_was_not_made(kept: RunningLedger) -> None:
    away = replace(kept.settings, kafka_bootstrap="127.0.0.1:1")
    faults = await _faults(away)
    assert set(faults) == {"topics_told"}
    assert faults["topics_told"].startswith("not checked: Kafka at 127.0.0.1:1 can't be read")
