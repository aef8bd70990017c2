"""The relay: publishes each shard's outbox, in order, each output once to every read_committed subscriber."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import asyncpg
from aiokafka.errors import KafkaError

from infra.kafka.connection import check_libraries
from infra.kafka.hanging import end_hanging
from infra.kafka.outbox_reader import OutboxReader
from infra.kafka.producer import TransactionalProducer
from infra.kafka.relay_cursor import RelayedHints, cursor_of
from infra.kafka.relay_lease import POSTGRES_FAULTS, RelayLease
from infra.kafka.seals import Seal, read_last_seal
from infra.kafka.transactions import ShardStoppedError
from infra.kafka.wakeups import RelayWakeups
from infra.patience import Patience, any_of, sleep_unless
from infra.settings import Settings

log = logging.getLogger(__name__)

# How often a relay looks whether its share of the shards has changed.
SHARE_SECONDS = 1.0
# How often a stopped shard looks whether it was mended.
STOPPED_SECONDS = 30.0
# How long a relay waits at most before it looks whether Kafka or Postgres is back.
AWAY_SECONDS = 2.0
POOL_MAX = 4
# How long a query may take that nobody wants any more.
ABANDONED_SECONDS = 1.0


async def run_relay(
    settings: Settings,
    *,
    pool: asyncpg.Pool | None = None,
    wakeups: RelayWakeups | None = None,
    shards: Iterable[int] | None = None,
    stop: asyncio.Event,
) -> None:
    """Relay our share of these shards (all of the ledger's by default) until `stop` is set.

    Without a pool it makes a small one of its own. The topics must be there: `ensure_topics`.
    Survives the loss of Kafka and Postgres; a shard whose stream and books don't fit stops alone.
    """
    check_libraries()
    wanted = sorted(range(settings.shards) if shards is None else set(shards))
    wakeups = wakeups or RelayWakeups()
    patience = Patience("the relay", seconds_most=AWAY_SECONDS)
    while not stop.is_set():
        try:
            async with _pool_of(settings, pool) as reading:
                lease = await RelayLease.connect(settings, wanted, wakeups)
                patience.over()
                try:
                    await _Shift(settings, reading, wakeups, lease).run(stop)
                finally:
                    await lease.close()
        except POSTGRES_FAULTS as fault:
            await patience.wait(f"Postgres is away ({fault!r})", stop)


@asynccontextmanager
async def _pool_of(settings: Settings, pool: asyncpg.Pool | None) -> AsyncIterator[asyncpg.Pool]:
    if pool is not None:
        yield pool
        return

    async def keep_as_it_is(_connection: asyncpg.Connection) -> None:
        """Nothing that we do leaves anything behind; asyncpg's own reset takes a round trip after each query."""

    own = await asyncpg.create_pool(
        settings.asyncpg_dsn,
        min_size=1,
        max_size=POOL_MAX,
        reset=keep_as_it_is,
        server_settings={"application_name": "ledgerstream relay"},
    )
    try:
        yield own
    finally:
        own.terminate()


class _Shift:
    """One session's work: its share of the shards, a task for each."""

    def __init__(self, settings: Settings, pool: asyncpg.Pool, wakeups: RelayWakeups, lease: RelayLease) -> None:
        self._settings = settings
        self._pool = pool
        self._wakeups = wakeups
        self._lease = lease
        self._hints = RelayedHints(pool)
        self._relays: dict[int, tuple[ShardRelay, asyncio.Task[None]]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, or until the session and with it our locks are lost. Raises: asyncpg's errors."""
        hints = asyncio.create_task(self._hints.run())
        try:
            while not stop.is_set() and not self._lease.lost.is_set():
                await self._balance()
                await any_of(stop, self._lease.lost, seconds=SHARE_SECONDS)
            if self._lease.lost.is_set():
                raise ConnectionError("the relay's session has ended")
        finally:
            await asyncio.gather(*(self._end(shard) for shard in list(self._relays)), return_exceptions=True)
            hints.cancel()
            await asyncio.gather(hints, return_exceptions=True)
            with suppress(*POSTGRES_FAULTS):
                await self._hints.write()

    async def _balance(self) -> None:
        share = await self._lease.share()
        for shard in sorted(self._lease.held, reverse=True)[: max(0, len(self._lease.held) - share)]:
            await self._end(shard)
            await self._lease.give_back(shard)
        for shard in await self._lease.take(share):
            relay = ShardRelay(self._settings, self._pool, self._wakeups, self._hints, self._lease.ledger_id, shard)
            self._relays[shard] = relay, asyncio.create_task(relay.run(), name=f"relay of shard {shard}")
        for shard, (_, task) in self._relays.items():
            if task.done():
                raise RuntimeError(f"the relay of shard {shard} ended by itself") from task.exception()

    async def _end(self, shard: int) -> None:
        """Let the transaction under way end; cut it off if it doesn't."""
        relay, task = self._relays.pop(shard)
        relay.leave.set()
        self._wakeups.notify(shard)
        await asyncio.wait({task}, timeout=2.0)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("the relay of shard %d failed", shard, exc_info=fault)


class ShardRelay:
    """Publishes one shard's outbox from its last seal on."""

    def __init__(
        self,
        settings: Settings,
        pool: asyncpg.Pool,
        wakeups: RelayWakeups,
        hints: RelayedHints,
        ledger_id: UUID,
        shard: int,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._wakeup = wakeups.of(shard)
        self._elsewhere = wakeups.elsewhere(shard)
        self._handed = wakeups.handed(shard)
        self._hints = hints
        self._shard = shard
        self._transactional_id = f"{ledger_id}.{shard}"
        self._patience = Patience(f"the relay of shard {shard}", seconds_most=AWAY_SECONDS)
        self._step = ""
        self.leave = asyncio.Event()

    async def run(self) -> None:
        """Until `leave` is set. After any doubt: a new producer, and the seal read again."""
        stopped: str | None = None
        while not self.leave.is_set():
            try:
                await self._relay_until_doubt()
            except ShardStoppedError as fault:
                log.log(logging.DEBUG if str(fault) == stopped else logging.ERROR, "%s", fault)
                stopped = str(fault)
                await sleep_unless(self.leave, STOPPED_SECONDS)
            except Exception as fault:
                # Whatever it was, the way on is the same, and no other shard has to stop for it.
                unforeseen = None if isinstance(fault, (*POSTGRES_FAULTS, KafkaError)) else fault
                reason = f"no answer in time {self._step}" if isinstance(fault, TimeoutError) else repr(fault)
                if isinstance(fault, TimeoutError) and str(fault):
                    reason += f": {fault}"
                said = f"in doubt ({reason}), starts again from its last seal"
                await self._patience.wait(said, self.leave, unforeseen=unforeseen)

    async def _relay_until_doubt(self) -> None:
        producer = TransactionalProducer(self._settings, self._transactional_id)
        # After any doubt Postgres alone is asked what there is: it may have gone back to what it had before.
        self._handed.clear()
        try:
            # It fences the producer before it: only then the last seal stays the last.
            self._step = "to the start of a producer"
            await producer.start()
            self._step = "to a look for transactions left open"
            await end_hanging(self._settings, producer, self._shard)
            self._step = "to the reading of its last seal, which an open transaction holds up"
            seal = await self._last_seal()
            self._step = "from Postgres"
            cursor = await cursor_of(self._settings, self._pool, self._shard, seal)
            if seal is not None:
                self._hints.set(self._shard, cursor)
            await self._publish_from(producer, cursor)
        finally:
            await producer.discard()

    async def _last_seal(self) -> Seal | None:
        try:
            return await read_last_seal(self._settings, self._shard)
        except ValueError as fault:
            raise ShardStoppedError(
                f"shard {self._shard}: {self._settings.topic('seals')}[{self._shard}] has a record that is {fault}; "
                "nobody but the relay may write there: run `ledgerstream recover`"
            ) from fault

    async def _publish_from(self, producer: TransactionalProducer, cursor: int) -> None:
        reader = OutboxReader(
            self._settings,
            self._pool,
            shard=self._shard,
            cursor=cursor,
            wakeup=self._wakeup,
            elsewhere=self._elsewhere,
            leave=self.leave,
            handed=self._handed,
        )
        upcoming = asyncio.create_task(reader.next())
        try:
            await asyncio.wait({upcoming}, timeout=self._settings.relay_poll_seconds)
            if not upcoming.done():
                self._patience.over()
            while (transaction := await producer.unless_lost(upcoming)) is not None:
                # The next one is read and packed while this one is under way.
                reader.publishing()
                upcoming = asyncio.create_task(reader.next())
                self._step = "to a transaction"
                await producer.publish(transaction.batches)
                self._hints.set(self._shard, transaction.seq_last)
                self._step = "to the request for a new epoch"
                await producer.next_epoch()
                reader.published()
                self._step = "from Postgres"
                self._patience.over()
        finally:
            # A query that is cut off leaves a task of the pool's behind.
            reader.abandon()
            await asyncio.wait({upcoming}, timeout=ABANDONED_SECONDS)
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
