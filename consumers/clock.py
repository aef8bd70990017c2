"""The clock process: what falls due without a message, and room for what comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from infra.kafka.connection import client_arguments
from infra.kafka.topics import describe_topics
from infra.ledger import Ledger
from infra.patience import Patience, sleep_unless
from infra.postgres.errors import TransientError, ours
from infra.postgres.migrate import sqlalchemy_url
from infra.postgres.partitions import make_partitions
from infra.postgres.retention import drop_relayed_outbox
from infra.settings import Settings
from schemas.topics import READ_TOPICS

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
ROOM_SECONDS = 60.0
LAG_SECONDS_MAX = 60.0
"""Nothing expires while input lags by more: what it waits for may stand unread."""
MEASURED_SECONDS_MAX = 10.0
"""A measurement of the lag that is older says nothing."""

_FORESEEN = (
    TransientError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    KafkaError,
)


async def run_clock(settings: Settings, ledger: Ledger, pool: asyncpg.Pool, stop: asyncio.Event) -> None:
    """Until `stop`: resume whose turn has come, end what is over, make room for what comes."""
    broker = BrokerReach(settings)
    lag = InputLag(pool, broker.look)
    try:
        # Side by side: a shard or a server that fails keeps nothing else waiting.
        await asyncio.gather(
            _again_and_again("the clock, making room", lambda: make_room(settings), ROOM_SECONDS, stop),
            _again_and_again("the clock, looking at the input's lag", lag.measure, TICK_SECONDS, stop),
            *(
                _again_and_again(
                    f"the clock of shard {shard}",
                    lambda shard=shard: _tick(ledger, shard, lag, stop),  # type: ignore[misc]
                    TICK_SECONDS,
                    stop,
                )
                for shard in range(settings.shards)
            ),
        )
    finally:
        await broker.close()


async def _again_and_again(
    thing: str, work: Callable[[], Awaitable[None]], seconds: float, stop: asyncio.Event
) -> None:
    """Do the work every so many seconds until `stop`; no fault of it ends this."""
    patience = Patience(thing)
    while not stop.is_set():
        try:
            await work()
        except _FORESEEN as fault:
            await patience.wait(f"can't work ({fault})", stop)
        except Exception as fault:
            await patience.wait(f"can't work ({fault!r})", stop, unforeseen=fault)
        else:
            patience.over()
            await sleep_unless(stop, seconds)


async def _tick(ledger: Ledger, shard: int, lag: InputLag, stop: asyncio.Event) -> None:
    # Mostly there is nothing, and no batch should have to wait behind three looks under the shard's lock.
    if not await ledger.has_work(shard):
        return
    while not stop.is_set() and await ledger.resume_arrived(shard):
        pass
    while not stop.is_set() and lag.is_short() and await ledger.expire_parked(shard):
        pass
    # A capture that stands unread has come in time.
    while not stop.is_set() and lag.is_short() and await ledger.expire_holds(shard):
        pass


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


class Standing(NamedTuple):
    """Where a partition of an input topic begins and ends at the broker, and the topic's id."""

    topic_id: UUID
    beginning: int
    end: int


Standings = dict[TopicPartition, Standing]


class InputLag:
    """Whether every input partition was read, at some time in the last minute, as far as it then went."""

    def __init__(
        self, pool: asyncpg.Pool, look: Callable[[], Awaitable[Standings]], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = pool
        self._look = look
        self._now = now
        self._marks: dict[TopicPartition, tuple[int, float]] = {}
        """To where a partition has yet to be read, and since when that is asked of it."""
        self._short = False
        self._measured_at = -MEASURED_SECONDS_MAX

    def is_short(self) -> bool:
        """What the last measurement said; false if there was none of late."""
        return self._short and self._now() - self._measured_at <= MEASURED_SECONDS_MAX

    async def measure(self) -> None:
        """Look again. Raises: KafkaError, OSError, what asyncpg raises."""
        standings = await self._look()
        rows = await self._pool.fetch("SELECT topic, topic_id, partition, next_offset FROM input_offsets")
        read = {
            (TopicPartition(topic, partition), topic_id): next_offset
            for topic, topic_id, partition, next_offset in rows
        }
        self._measured_at = self._now()
        # Each must be looked at, whatever the others say; one that was never read is begun at its first record.
        looks = [
            self._is_read(partition, standing.end, read.get((partition, standing.topic_id), standing.beginning))
            for partition, standing in standings.items()
        ]
        self._short = all(looks)

    def _is_read(self, partition: TopicPartition, end: int, next_offset: int) -> bool:
        now = self._measured_at
        # How long it has lagged when the clock starts is not known: take it for long.
        wanted, since = self._marks.setdefault(partition, (end, now - 2 * LAG_SECONDS_MAX))
        if next_offset >= wanted:
            self._marks[partition] = (end, now)
            return True
        return now - since <= LAG_SECONDS_MAX


class BrokerReach:
    """Asks the broker where the input topics begin and end, over one connection that is kept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None

    async def look(self) -> Standings:
        """Where each partition stands. Raises: KafkaError, OSError."""
        is_new = self._consumer is None
        consumer = self._consumer = self._consumer or AIOKafkaConsumer(
            **client_arguments(self._settings), enable_auto_commit=False, isolation_level="read_committed"
        )
        try:
            async with asyncio.timeout(MEASURED_SECONDS_MAX):
                if is_new:
                    await consumer.start()
                states = await describe_topics(self._settings, [self._settings.topic(name) for name in READ_TOPICS])
                partitions = [
                    TopicPartition(name, number) for name, state in states.items() for number in range(state.partitions)
                ]
                beginnings = await consumer.beginning_offsets(partitions)
                ends = await consumer.end_offsets(partitions)
        except (KafkaError, OSError):
            await self.close()
            raise
        return {place: Standing(states[place.topic].topic_id, beginnings[place], ends[place]) for place in partitions}

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
