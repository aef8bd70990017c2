"""One event at a time: from publishing it to reading its entry as a `read_committed` subscriber."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from infra.devstack import RunningStack
from infra.settings import Settings
from tests.benchmarks.payments import payments, tenants_of_all_shards
from tests.benchmarks.pipe import fresh_ledger
from tests.benchmarks.processes import role

WARM_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds that so many parts of a hundred took at most."""

    per_second: int
    events: int
    p50: float
    p95: float
    p99: float


async def measure_latency(stack: RunningStack, *, per_second: int, seconds: int, log: Path) -> Latency:
    """Publish at a steady rate to one process with all roles."""
    settings = await fresh_ledger(stack, f"latency{per_second}")
    with role("run", settings, log):
        consumer = AIOKafkaConsumer(
            settings.topic("entries"),
            bootstrap_servers=settings.need_kafka_bootstrap(),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            return await _measure(settings, consumer, per_second, seconds)
        finally:
            await consumer.stop()


async def _measure(settings: Settings, consumer: AIOKafkaConsumer, per_second: int, seconds: int) -> Latency:
    producer = AIOKafkaProducer(bootstrap_servers=settings.need_kafka_bootstrap(), acks="all", linger_ms=0)
    await producer.start()
    try:
        # The first wait for the process to start; the broker's code for this way is compiled by and by.
        async with asyncio.timeout(60 + WARM_SECONDS):
            await _round(
                settings, consumer, producer, count=per_second * WARM_SECONDS, per_second=per_second, name="warm"
            )
        async with asyncio.timeout(60 + seconds):
            took = await _round(
                settings, consumer, producer, count=per_second * seconds, per_second=per_second, name="hot"
            )
    finally:
        await producer.stop()
    took.sort()
    return Latency(per_second, len(took), *(_part(took, part) for part in (50, 95, 99)))


async def _round(
    settings: Settings,
    consumer: AIOKafkaConsumer,
    producer: AIOKafkaProducer,
    *,
    count: int,
    per_second: int,
    name: str,
) -> list[float]:
    sent: dict[str, float] = {}
    reading = asyncio.create_task(_read(consumer, sent, count))
    begin = time.perf_counter()
    load = payments(count, accounts=1_000, tenants=tenants_of_all_shards(settings.shards), seed=3, burst=name)
    for number, (tenant, value) in enumerate(load):
        await asyncio.sleep(max(0.0, begin + number / per_second - time.perf_counter()))
        sent[json.loads(value)["id"]] = time.perf_counter()
        await producer.send(settings.topic("payments"), value, key=tenant.encode())
    return await reading


async def _read(consumer: AIOKafkaConsumer, sent: dict[str, float], count: int) -> list[float]:
    took: list[float] = []
    async for record in consumer:
        event_id = json.loads(record.value)["data"]["cause"]["id"]
        took.append((time.perf_counter() - sent[event_id]) * 1_000)
        if len(took) == count:
            break
    return took


def _part(ordered: list[float], part: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * part // 100)]
