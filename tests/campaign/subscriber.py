"""A read_committed subscriber in a process of its own, which lives through the whole campaign.

`python -m tests.campaign.subscriber FILE`: on SIGTERM it reads to the end, writes what it saw to FILE and ends.
"""

from __future__ import annotations

import asyncio
import pickle
import signal
import sys
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from infra.kafka.connection import client_arguments, quiet_aiokafka
from infra.kafka.seals import decode_seal
from infra.settings import Settings, read_settings
from schemas.topics import INPUT_TOPICS, OUTPUT_TOPICS
from tests.campaign.seen import Seen, digest

FAULTS_MAX = 50


class Notes:
    """What is written to the file in the end. `records`: by input topic and partition, each offset's packed name."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.seen = Seen()
        self.faults: list[str] = []
        self.records: dict[tuple[str, int], array[int]] = {}
        self.seals: dict[tuple[int, int], list[tuple[int, int, dict[str, int]]]] = {}
        self.balances: dict[bytes, tuple[int, int, int]] = {}
        self.last: dict[tuple[str, int, int], tuple[int, int]] = {}
        self.counts: Counter[str] = Counter()

    def fault(self, text: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(text)

    def take(self, record: ConsumerRecord) -> None:
        topic = record.topic.removeprefix(self.prefix)
        self.counts[topic] += 1
        if topic in INPUT_TOPICS:
            self._input(topic, record)
        elif topic == "seals":
            seal = decode_seal(record.value)
            counts = {name.removeprefix(self.prefix): count for name, count in seal.counts.items()}
            self.seals.setdefault((seal.epoch, seal.shard), []).append((seal.seq_first, seal.seq_last, counts))
        else:
            self._output(topic, record)

    def _input(self, topic: str, record: ConsumerRecord) -> None:
        names = self.records.setdefault((topic, record.partition), array("q"))
        # Offsets without a record are markers of transactions.
        names.extend([-1] * (record.offset - len(names)))
        if record.offset < len(names):
            self.fault(f"{topic}[{record.partition}] gave offset {record.offset} twice")
            return
        names.append(int(dict(record.headers)["campaign"]))

    def _output(self, topic: str, record: ConsumerRecord) -> None:
        headers = dict(record.headers)
        epoch, shard, seq = (int(headers[f"ledger-{name}"]) for name in ("epoch", "shard", "seq"))
        if self.seen.add((epoch, shard, seq), digest(topic, record.key, record.value)):
            self.fault(f"output {epoch}-{shard}-{seq} came twice, the second time on {topic}")
        where = topic, record.partition, shard
        if self.last.get(where, (0, 0)) >= (epoch, seq):
            self.fault(f"output {epoch}-{shard}-{seq} on {topic}[{record.partition}] came after {self.last[where]}")
        self.last[where] = epoch, seq
        if topic == "balances":
            self._balance(record.key, epoch, orjson.loads(record.value)["data"])

    def _balance(self, key: bytes, epoch: int, data: dict[str, Any]) -> None:
        epoch_before, version, posted = self.balances.get(key, (epoch, 0, 0))
        follows = data["version"] == version + 1 and data["posted"] == posted + data["change"]["posted"]
        # After a recovery the books may have gone back.
        if not follows and not (epoch > epoch_before and data["version"] <= version + 1):
            self.fault(f"balance {key!r} went from version {version}, {posted} to {data['version']}, {data['posted']}")
        self.balances[key] = epoch, data["version"], data["posted"]


async def subscribe(settings: Settings, file: Path) -> None:
    """Listen until SIGTERM, and write down what came."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    write(await listen(settings, stop), file)


def write(notes: Notes, file: Path) -> None:
    """All of it or nothing."""
    partial = file.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(notes))
    partial.rename(file)


async def listen(settings: Settings, stop: asyncio.Event) -> Notes:
    """What comes on all topics, up to their ends once `stop` is set."""
    quiet_aiokafka(settings)
    notes = Notes(settings.topic_prefix)
    positions = {
        TopicPartition(settings.topic(name), number): 0
        for name in (*INPUT_TOPICS, *OUTPUT_TOPICS)
        for number in range(settings.shards)
    }
    while True:
        consumer = AIOKafkaConsumer(
            **client_arguments(settings), isolation_level="read_committed", enable_auto_commit=False,
            fetch_max_wait_ms=100, auto_offset_reset="none", max_partition_fetch_bytes=1 << 20,
        )  # fmt: skip
        try:
            await consumer.start()
            if await _read(consumer, positions, notes, stop):
                return notes
        except (KafkaError, OSError) as fault:
            print(f"subscriber: {fault!r}", flush=True)
            await asyncio.sleep(0.5)
        finally:
            await consumer.stop()


async def _read(
    consumer: AIOKafkaConsumer, positions: dict[TopicPartition, int], notes: Notes, stop: asyncio.Event
) -> bool:
    """Read on; true once the end was reached after `stop`."""
    consumer.assign(list(positions))
    for place, position in positions.items():
        consumer.seek(place, position)
    ends: dict[TopicPartition, int] | None = None
    while True:
        for place, records in (await consumer.getmany(timeout_ms=200, max_records=5_000)).items():
            for record in records:
                notes.take(record)
            positions[place] = records[-1].offset + 1
        if stop.is_set() and ends is None:
            ends = await consumer.end_offsets(list(positions))
        if ends is not None and all([await consumer.position(place) >= end for place, end in ends.items()]):
            return True


if __name__ == "__main__":
    # What is pickled has to be found under its own name.
    from tests.campaign import subscriber

    uvloop.run(subscriber.subscribe(read_settings(), Path(sys.argv[1])))
