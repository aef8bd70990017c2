"""One partition's reader: from the position that Postgres has, batch by batch, each committed before the next.

Kafka's own committed offsets are never asked where to begin. Whatever goes wrong, the way out is the same: stop,
drop what was fetched, read the position again, seek there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from domain.events import Event
from infra.faultpoints import reached
from infra.kafka.batches import BatchQueue, Prepared
from infra.ledger import Ledger
from infra.patience import Outage, Patience, sleep_unless
from infra.postgres.errors import TransientError
from infra.postgres.save import OffsetMovedError, TenantMovedError
from infra.records import Late, OffsetSwap
from infra.results import BatchResult

log = logging.getLogger(__name__)

REFUSED_SECONDS = 30.0
FAULTS = (KafkaError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class _BeginAgainError(Exception):
    """Something doesn't fit what Postgres says: find the position again."""


class PositionRefusedError(Exception):
    """Reading on would lose records, or read them twice: an operator must say what to do."""


class PartitionReader:
    """Reads one assigned partition into the ledger until it is revoked."""

    def __init__(
        self,
        *,
        partition: TopicPartition,
        consumer: AIOKafkaConsumer,
        ledger: Ledger,
        pool: asyncpg.Pool,
        topic_id_of: Callable[[str], Awaitable[UUID]],
        home_shard: int,
        applied: Callable[[BatchResult], None],
        outage: Outage,
        rows_max: int,
        urgent: bool,
    ) -> None:
        """`topic_id_of(topic)` asks the broker; the topic may have been made again.

        `rows_max`: of a batch. `urgent`: somebody waits for what becomes of these events.
        """
        self.partition = partition
        self.topic_id = UUID(int=0)
        self.generation = 0
        self.cursor: int | None = None
        """Where Postgres says that reading goes on; None: never read."""
        self.next_offset = 0
        self.reading = asyncio.Event()
        self._consumer = consumer
        self._ledger = ledger
        self._pool = pool
        self._topic_id_of = topic_id_of
        self._home_shard = home_shard
        self._applied = applied
        self._urgent = urgent
        self._queue = BatchQueue(rows_max)
        self._batch = Prepared(0, 0, 0, (), ())
        self._again = asyncio.Event()
        self._leaving = asyncio.Event()
        self._busy = asyncio.Lock()
        self._name = f"{partition.topic}[{partition.partition}]"
        self._outage = outage
        self._patience = Patience(self._name, outage=outage)
        self._refused = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Pause the partition at once, so that nothing is fetched from a position of Kafka's, and go to work."""
        self._consumer.pause(self.partition)
        self._task = asyncio.create_task(self._run(), name=f"reader of {self.partition}")

    async def leave(self, seconds: float) -> None:
        """Stop: let a commit under way end, for so long at most. What was not committed is read again by the next."""
        self._leaving.set()
        self.reading.clear()
        self.generation += 1
        try:
            async with asyncio.timeout(seconds), self._busy:
                pass
        except TimeoutError:
            log.warning("%s: its last batch didn't end in %g s and is dropped", self._name, seconds)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._outage.ends(self._name)
        self._queue.drop()

    def begin_again(self) -> None:
        """Drop what was fetched and find the position again."""
        self.reading.clear()
        self.generation += 1
        self._again.set()
        self._queue.drop()

    async def offer(self, prepared: Prepared) -> None:
        """Take a batch when there is room for it; one that was polled before reading began anew is dropped."""
        if prepared.generation != self.generation or not self.reading.is_set():
            return
        if prepared.first_offset < self.next_offset:
            log.warning("%s: Kafka went back from %s to %s", self._name, self.next_offset, prepared.first_offset)
            self.begin_again()
            return
        if prepared.first_offset > self.next_offset and await self._is_gone(prepared):
            # Deleted before we came to it: aiokafka goes on from the first record that is left, and says nothing.
            self.begin_again()
            return
        self.next_offset = prepared.next_offset
        await self._queue.put(prepared)

    async def _is_gone(self, prepared: Prepared) -> bool:
        """Whether what was not polled is deleted; else there were only markers of transactions."""
        first = (await self._consumer.beginning_offsets([self.partition]))[self.partition]
        return prepared.generation != self.generation or first > self.next_offset

    @property
    def has_room(self) -> bool:
        """Whether a batch can be offered without waiting, and is wanted yet."""
        most = self.read_ahead_most
        return self._queue.has_room and (most is None or self._queue.rows < most)

    @property
    def read_ahead_most(self) -> int | None:
        """How many records a poll may give where somebody waits for decisions; None: as many as there are.

        A thousand that are parsed one after the other keep the event loop busy for longer than a decision may take.
        """
        return None if self._urgent else self._ledger.events_most()

    async def _run(self) -> None:
        while not self._leaving.is_set():
            try:
                await self._find_position()
                self._patience.over()
                self._refused = ""
                await self._read_on()
            except _BeginAgainError as reason:
                log.warning("%s: %s; reading begins again at what Postgres has", self._name, reason)
            except PositionRefusedError as refused:
                log.log(logging.DEBUG if str(refused) == self._refused else logging.ERROR, "%s", refused)
                self._refused = str(refused)
                await sleep_unless(self._leaving, REFUSED_SECONDS)
            except FAULTS as fault:
                await self._patience.wait(f"its position can't be read ({fault!r})", self._leaving)
            except Exception as fault:
                # A reader that dies would leave its partition unread without a word.
                await self._patience.wait(f"unforeseen ({fault!r})", self._leaving, unforeseen=fault)

    async def _find_position(self) -> None:
        """Seek to what Postgres has. Raises: PositionRefusedError, FAULTS."""
        self.reading.clear()
        self._consumer.pause(self.partition)
        topic, number = self.partition.topic, self.partition.partition
        self.topic_id = await self._topic_id_of(topic)
        self.cursor = await self._pool.fetchval(
            "SELECT next_offset FROM input_offsets WHERE topic = $1 AND topic_id = $2 AND partition = $3",
            topic,
            self.topic_id,
            number,
        )
        first = (await self._consumer.beginning_offsets([self.partition]))[self.partition]
        end = (await self._consumer.end_offsets([self.partition]))[self.partition]
        if self.cursor is not None and self.cursor < first:
            raise PositionRefusedError(
                f"{topic}[{number}]: records {self.cursor} to {first - 1} are gone from Kafka and were never read; "
                "publish them again from their source, then set input_offsets by hand (docs/operating.md, Lost input)"
            )
        if self.cursor is not None and self.cursor > end:
            raise PositionRefusedError(
                f"{topic}[{number}]: Postgres has read up to {self.cursor}, but Kafka ends at {end}: Kafka has lost "
                "records, or this is another cluster (docs/operating.md, Kafka went back)"
            )
        self._again.clear()
        self.generation += 1
        self._queue.drop()
        self.next_offset = first if self.cursor is None else self.cursor
        self._consumer.seek(self.partition, self.next_offset)
        self.reading.set()
        self._consumer.resume(self.partition)

    async def _read_on(self) -> None:
        while not self._again.is_set():
            if (prepared := await self._queue.get()) is not None:
                await self._apply_in_turns(prepared)
        raise _BeginAgainError("what was fetched doesn't follow on what was read")

    async def _apply_in_turns(self, prepared: Prepared) -> None:
        """Apply a batch, in parts where somebody waits for decisions: each moves the read position by itself."""
        rest: Prepared | None = prepared
        while rest is not None and rest.generation == self.generation:
            part, rest = rest.cut(None if self._urgent else self._ledger.events_most())
            self._batch = part
            async with self._busy:
                await self._apply_with_patience()

    async def _apply_with_patience(self) -> None:
        """Apply the batch, however long its database is away. A batch is never skipped."""
        while not self._leaving.is_set():
            try:
                await self._apply(self._batch)
            except TenantMovedError:
                continue
            except TransientError as fault:
                await self._patience.wait(f"a batch can't be committed ({fault})", self._leaving)
            except OffsetMovedError as moved:
                self.begin_again()
                raise _BeginAgainError(str(moved)) from moved
            except Exception as fault:
                await self._patience.wait(
                    f"a batch met a defect of this program and waits ({fault!r})", self._leaving, unforeseen=fault
                )
            else:
                self._patience.over()
                return

    async def _apply(self, prepared: Prepared) -> None:
        """One database transaction a shard; the last is the partition's own, with dead letters and the position."""
        by_shard: defaultdict[int, list[Event]] = defaultdict(list)
        if prepared.events:
            for event, shard in zip(prepared.events, await self._ledger.shards_of(prepared.events), strict=True):
                by_shard[shard].append(event)
        result = BatchResult()
        at_home = by_shard.pop(self._home_shard, [])
        for shard, events in by_shard.items():
            result.add(await self._ledger.apply(events, shard=shard, urgent=self._urgent))
        letters = [*prepared.letters, *result.unstorable]
        result.unstorable = []
        result.add(
            await self._ledger.apply(
                at_home,
                shard=self._home_shard,
                dead_letters=letters,
                offsets=self._move_to(prepared.next_offset),
                urgent=self._urgent,
                late=self._late if self._urgent else None,
            )
        )
        self.cursor = self._batch.next_offset
        reached("reader.applied")
        self._applied(result)

    def _late(self) -> Late:
        """What came while the batch waited for its turn: it is of the batch now, and needn't wait for another turn."""
        before = self._batch
        # After reading began anew what is queued doesn't follow on this batch.
        if before.generation == self.generation:
            self._batch = self._queue.added_to(before, self._is_at_home)
        return Late(
            self._batch.events[len(before.events) :],
            self._batch.letters[len(before.letters) :],
            self._move_to(self._batch.next_offset),
        )

    def _is_at_home(self, prepared: Prepared) -> bool:
        return all(self._ledger.lives_on(event.tenant_id) == self._home_shard for event in prepared.events)

    def _move_to(self, next_offset: int) -> OffsetSwap:
        return OffsetSwap(self.partition.topic, self.topic_id, self.partition.partition, self.cursor, next_offset)
