"""Payments waiting in Kafka: the load of every run."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence

from aiokafka import AIOKafkaProducer
from rich.progress import Progress

from infra.kafka.partitioner import partition_of
from infra.settings import Settings


def payments(
    count: int, *, accounts: int, tenants: Sequence[str], seed: int, burst: str = ""
) -> Iterator[tuple[str, bytes]]:
    """(tenant, value) of `count` payments by so many customers, all tenants in turn; ids are random, as UUIDs are."""
    random_source = random.Random(f"{seed}{burst}")
    for number in range(count):
        tenant = tenants[number % len(tenants)]
        name = f"{random_source.getrandbits(96):024x}"
        event = {
            "specversion": "1.0",
            "id": f"evt_{name}",
            "source": "bench",
            "type": "payment.captured.v1",
            "time": "2026-11-20T10:00:00Z",
            "tenantid": tenant,
            "data": {
                "payment_id": f"pay_{name}",
                "amount": random_source.randint(100, 100_000),
                "currency": "EUR",
                "customer_id": f"cus_{random_source.randrange(accounts):08d}",
                "fees": 30,
            },
        }
        yield tenant, json.dumps(event, separators=(",", ":")).encode()


def tenants_of_all_shards(shards: int) -> list[str]:
    """One tenant for each shard, by the hash that puts it there."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < shards:
        name = f"tenant-{number}"
        found.setdefault(partition_of(name.encode(), shards), name)
        number += 1
    return [found[shard] for shard in range(shards)]


async def fill(settings: Settings, load: Iterator[tuple[str, bytes]], count: int, what: str) -> None:
    """Put a load on the topic of payments, keyed by tenant."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.need_kafka_bootstrap(), acks="all", linger_ms=20, max_batch_size=256 * 1024
    )
    await producer.start()
    try:
        with Progress(transient=True) as progress:
            task = progress.add_task(f"{what}: {count:,} payments into Kafka", total=count)
            sent: list[asyncio.Future[object]] = []
            for tenant, value in load:
                partition = partition_of(tenant.encode(), settings.shards)
                sent.append(
                    await producer.send(settings.topic("payments"), value, key=tenant.encode(), partition=partition)
                )
                if len(sent) == 5_000:
                    await asyncio.gather(*sent)
                    progress.advance(task, len(sent))
                    sent = []
            await asyncio.gather(*sent)
    finally:
        await producer.stop()
