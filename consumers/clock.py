"""The clock process: what falls due without a message, and room for what comes."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from infra.kafka.connection import client_arguments
from infra.kafka.topics import topic_ids
from infra.ledger import Ledger
from infra.patience import Patience, sleep_unless
from infra.postgres.errors import TransientError, ours
from infra.postgres.migrate import sqlalchemy_url
from infra.postgres.partitions import make_partitions
from infra.postgres.retention import drop_relayed_outbox
from infra.settings import Settings
from schemas.topics import INPUT_TOPICS

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
ROOM_SECONDS = 60.0
LAG_SECONDS_MAX = 60.0
"""Nothing expires while input lags by more: what it waits for may stand unread."""


async def run_clock(settings: Settings, ledger: Ledger, pool: asyncpg.Pool, stop: asyncio.Event) -> None:
    """Until `stop`: resume whose turn has come, reject whose patience is over, make room for what comes."""
    patience = Patience("the clock")
    lag = InputLag(settings, pool)
    room_at = 0.0
    try:
        while not stop.is_set():
            try:
                if time.monotonic() >= room_at:
                    await make_room(settings)
                    room_at = time.monotonic() + ROOM_SECONDS
                for shard in range(settings.shards):
                    while await ledger.resume_arrived(shard) and not stop.is_set():
                        pass
                if await lag.is_short():
                    for shard in range(settings.shards):
                        while await ledger.expire_parked(shard) and not stop.is_set():
                            pass
                patience.over()
                await sleep_unless(stop, TICK_SECONDS)
            except (TransientError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, KafkaError) as fault:
                await patience.wait(f"can't do its work ({fault})", stop)
    finally:
        await lag.close()


async def make_room(settings: Settings) -> None:
    """Make partitions ahead and drop what was relayed long ago. Raises: TransientError."""
    engine = create_async_engine(sqlalchemy_url(settings), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            made = await make_partitions(connection, settings.partition_rows)
        async with engine.begin() as connection:
            dropped = await drop_relayed_outbox(connection, settings)
    except Exception as error:
        cause = getattr(error, "orig", None)
        known = ours(getattr(cause, "__cause__", None) or error)
        raise known from error
    finally:
        await engine.dispose()
    if made or dropped:
        log.info("made %s partitions, dropped %s of the outbox", made, dropped)


@dataclass(slots=True)
class _Mark:
    """How far a partition went when it was looked at, and when."""

    end: int
    at: float


class InputLag:
    """Whether every input partition was read, at some time in the last minute, as far as it then went."""

    def __init__(self, settings: Settings, pool: asyncpg.Pool) -> None:
        self._settings = settings
        self._pool = pool
        self._consumer: AIOKafkaConsumer | None = None
        self._marks: dict[TopicPartition, _Mark] = {}

    async def is_short(self) -> bool:
        """Look again. Raises: KafkaError, OSError, what asyncpg raises."""
        ends = await self._ends()
        ids = await topic_ids(self._settings, [self._settings.topic(name) for name in INPUT_TOPICS])
        rows = await self._pool.fetch("SELECT topic, topic_id, partition, next_offset FROM input_offsets")
        read = {
            TopicPartition(topic, partition): next_offset
            for topic, topic_id, partition, next_offset in rows
            if ids.get(topic) == topic_id
        }
        now = time.monotonic()
        # Each must be looked at, whatever the others say.
        looks = [self._look(partition, end, read.get(partition, 0), now) for partition, end in ends.items()]
        return all(looks)

    def _look(self, partition: TopicPartition, end: int, next_offset: int, now: float) -> bool:
        mark = self._marks.get(partition)
        if mark is None:
            # How long it has lagged when the clock starts is not known: take it for long.
            mark = self._marks[partition] = _Mark(end, now - 2 * LAG_SECONDS_MAX)
        if next_offset >= mark.end:
            self._marks[partition] = _Mark(end, now)
            return True
        return now - mark.at <= LAG_SECONDS_MAX

    async def _ends(self) -> dict[TopicPartition, int]:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(**client_arguments(self._settings), enable_auto_commit=False)
            await consumer.start()
            self._consumer = consumer
        try:
            partitions = [
                TopicPartition(topic, number)
                for topic in (self._settings.topic(name) for name in INPUT_TOPICS)
                for number in range(await self._partitions(topic))
            ]
            ends: dict[TopicPartition, int] = await self._consumer.end_offsets(partitions)
        except (KafkaError, OSError):
            await self.close()
            raise
        return ends

    async def _partitions(self, topic: str) -> int:
        count = await self._pool.fetchval("SELECT partitions FROM topics WHERE topic = $1", topic)
        return count or 0

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
