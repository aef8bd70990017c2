"""The imperative shell: load, decide, save. Nothing writes to the ledger but through here."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta

import asyncpg

from domain.books import Books
from domain.decide import Decided, decide_batch, expire, resume
from domain.events import Event
from domain.keys import Key, conflict_key
from domain.needs import Needs
from domain.rejections import RejectionCode
from infra.ahead import Ahead
from infra.defect_budget import DefectBudget
from infra.faultpoints import reached
from infra.memory import Memory, memory_of
from infra.outbox import OutboxRow
from infra.postgres import load, save
from infra.postgres.errors import UndecidableError, UnstorableError, ours
from infra.postgres.load import Connection, FirstLook, ReadCommand, ShardState
from infra.postgres.load_cards import load_expired
from infra.postgres.load_credit import credit_reader
from infra.postgres.load_due import anything_due
from infra.postgres.transaction import shard_locked
from infra.postgres.writes import MovedError, NeedsLockError, TooManyRowsError
from infra.records import DeadLetter, Late, OffsetSwap, Origin
from infra.resolvers.resolving import Resolvers
from infra.results import BatchResult
from infra.rules import LedgerRules
from infra.saving import letter_key, save_batch
from infra.tenants import TenantShards
from infra.turns import Turns
from schemas.wire import printable

log = logging.getLogger(__name__)

EXPIRED_MAX = 1_000
"""How many holds one database transaction ends: an authorization must not wait long for it."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


Chooser = Callable[[Connection, Books, FirstLook], Awaitable[Decided]]
"""Loads what is to be decided, and decides it."""


class Ledger:
    """Applies events to the books of its shards, each at most once.

    One object a process: a shard's batches wait for each other here, in memory, instead of in the database.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        rules: LedgerRules,
        read_command: ReadCommand,
        *,
        committed: Callable[[int, OutboxRow], None] = lambda shard, row: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        resolvers: Resolvers | None = None,
    ) -> None:
        """`committed(shard, row)` is called after each commit that has outputs, with them.

        `resolvers`: by default as the data say.
        """
        self._pool = pool
        self._rules = rules
        self._read_command = read_command
        self._committed = committed
        self._clock = clock
        self._resolvers = resolvers or Resolvers(credit_reader(pool))
        self._turns = Turns(rules.batch_seconds_max)
        self._memories: dict[int, Memory] = {}
        self._ahead = Ahead()
        self._tenants = TenantShards(pool, rules)
        self._defects = DefectBudget()

    async def shards_of(self, events: Sequence[Event]) -> list[int]:
        """The shard of each event's tenant. Raises: TransientError."""
        return await self._tenants.of(events)

    def lives_on(self, tenant_id: str) -> int | None:
        """The shard of a tenant, as far as this process has asked."""
        return self._tenants.get(tenant_id)

    def events_most(self) -> int | None:
        """How many events a batch that doesn't hurry should have now; None: as many as it likes."""
        return self._turns.events_most()

    async def apply(
        self,
        events: Sequence[Event],
        *,
        shard: int,
        dead_letters: Sequence[DeadLetter] = (),
        offsets: OffsetSwap | None = None,
        urgent: bool = False,
        late: Callable[[], Late] | None = None,
    ) -> BatchResult:
        """Apply one shard's events in order, each at most once, and move the read position; committed on return.

        What is `urgent` goes before what waits for the shard in this process and isn't. `late` is asked once, when the
        batch has its turn, for events of the shard that are applied with it; never where more than the data resolves.
        What can't be stored is found by halving the batch and handed back in `unstorable`; with `offsets` it
        becomes a dead letter in the same database transaction as the read position.
        Writes: every table but `relayed`, in one database transaction (more only after something was unstorable).
        Raises: TransientError (try the whole batch again), OffsetMovedError, TenantMovedError.
        """
        # Before anything is locked, where custom code may be asked.
        if not self._resolvers.by_data(events):
            await self._resolvers.resolve(events, shard)
        counted = len(events) if late is None else 0
        async with self._turns.take(shard, events=counted, urgent=urgent):
            if late is not None and self._resolvers.by_data_alone:
                came = late()
                events, dead_letters = [*events, *came.events], [*dead_letters, *came.dead_letters]
                offsets = came.offsets
            result = BatchResult()
            try:
                result.add(await self._transact(shard, events, dead_letters, offsets))
                return result
            except UnstorableError as error:
                if not events:
                    raise
                log.error("shard %s: a batch of %s can't be stored, halving it: %s", shard, len(events), error)
            for half in _halves(events):
                result.add(await self._apply_or_hand_back(shard, half))
            if offsets is not None or dead_letters:
                letters = [*dead_letters, *result.unstorable]
                result.unstorable = []
                result.add(await self._transact(shard, (), letters, offsets))
            return result

    async def _apply_or_hand_back(self, shard: int, events: Sequence[Event]) -> BatchResult:
        result = BatchResult()
        if not events:
            return result
        try:
            return await self._transact(shard, events, (), None)
        except UnstorableError as error:
            if len(events) > 1:
                for half in _halves(events):
                    result.add(await self._apply_or_hand_back(shard, half))
                return result
            origin: Origin = events[0].carried
            if origin.record is None:
                raise
            if isinstance(error, UndecidableError):
                self._defects.spend(error)
            log.error("shard %s: event %s can't be stored: %s", shard, events[0].event_id, error)
            result.unstorable.append(DeadLetter(origin.record, "unstorable", printable(str(error))))
            return result

    async def has_work(self, shard: int) -> bool:
        """Whether the clock has anything to do on a shard, as far as can be seen without its lock."""
        async with self._pool.acquire() as connection:
            return await anything_due(connection, shard, self._clock())

    async def resume_arrived(self, shard: int, limit: int = load.PARKED_MAX) -> int:
        """Go on with parked events whose turn has come but for which a transaction had no room; say how many."""

        async def choose(connection: Connection, books: Books, _: FirstLook) -> Decided:
            events = [event for event, _ in await load.load_arrived(connection, shard, limit, self._read_command)]
            await self._load(connection, books, _needs_of(events), None)
            return resume(events, books)

        return await self._clockwork(shard, choose)

    async def expire_parked(self, shard: int, limit: int = load.PARKED_MAX) -> int:
        """Reject parked events whose patience is over; say how many."""

        async def choose(connection: Connection, books: Books, _: FirstLook) -> Decided:
            overdue = await load.load_overdue(connection, shard, books.recorded_at, limit, self._read_command)
            books.known_tenants |= {event.tenant_id for event, _ in overdue}
            return expire([(event, RejectionCode(code)) for event, code in overdue], books)

        return await self._clockwork(shard, choose)

    async def give_up(self, shard: int, seqs: Sequence[int], *, reason: str) -> int:
        """Reject events parked at these seqs before their patience is over; say how many of them still waited."""

        async def choose(connection: Connection, books: Books, _: FirstLook) -> Decided:
            waiting = await load.load_parked(connection, shard, seqs, self._read_command)
            books.known_tenants |= {event.tenant_id for event, _ in waiting}
            return expire([(event, RejectionCode(code)) for event, code in waiting], books, reason=reason)

        return await self._clockwork(shard, choose)

    async def expire_holds(self, shard: int, limit: int = EXPIRED_MAX) -> int:
        """End holds and authorizations that nobody captured in time; say how many."""

        async def choose(connection: Connection, books: Books, _: FirstLook) -> Decided:
            events = await load_expired(connection, shard, books.recorded_at, limit)
            if not events:
                return Decided()
            await load.load_claims(connection, books, _keys_of(events, ()))
            await self._load(connection, books, _needs_of(events), None)
            return decide_batch(events, books)

        return await self._clockwork(shard, choose)

    async def _clockwork(self, shard: int, choose: Chooser) -> int:
        async with self._turns.take(shard):
            result = await self._in_transaction(shard, (), Needs(), choose, (), None)
            return result.applied + result.rejected + result.parked

    async def _transact(
        self,
        shard: int,
        events: Sequence[Event],
        dead_letters: Sequence[DeadLetter],
        offsets: OffsetSwap | None,
    ) -> BatchResult:
        needs = _needs_of(events)
        asked = self._resolvers.by_data(events)
        ahead = self._ahead.suits(shard, len(events), offsets)

        async def choose(connection: Connection, books: Books, look: FirstLook) -> Decided:
            with _deciding(shard, events, ahead=ahead):
                self._resolvers.answer(asked, look.credit)
            for event in asked:
                load.name_needs(event, needs)
            load.keep_claims(books, look.claims)
            again = [
                conflict_key(event.tenant_id, event.source, event.event_id, event.fingerprint)
                for event in events
                if (claim := books.claims.get(event.delivery)) and claim.fingerprint != event.fingerprint
            ]
            if again:
                await load.load_claims(connection, books, again)
            await self._load(connection, books, needs, look)
            with _deciding(shard, events, ahead=ahead):
                return decide_batch(events, books)

        keys, cards = _keys_of(events, dead_letters), self._resolvers.cards_of(asked)
        if ahead:
            try:
                return await self._in_transaction(
                    shard, keys, needs, choose, dead_letters, offsets, cards=cards, ahead=True
                )
            except (MovedError, TooManyRowsError):
                self._ahead.in_vain(shard)
            except (NeedsLockError, UnstorableError) as error:
                # What failed may have been read at different times.
                log.debug("shard %s: decided again under its lock: %r", shard, error)
            ahead = False
        return await self._in_transaction(shard, keys, needs, choose, dead_letters, offsets, cards=cards)

    async def _load(self, connection: Connection, books: Books, needs: Needs, look: FirstLook | None) -> None:
        if not needs.tenants:
            return
        await self._tenants.ask(needs.tenants, connection)
        for tenant_id in needs.tenants:
            lives_on = self._tenants.get(tenant_id)
            if lives_on is not None and lives_on != books.shard:
                raise save.TenantMovedError(f"{tenant_id} lives on shard {lives_on}, not {books.shard}")
            if lives_on is not None:
                books.known_tenants.add(tenant_id)
        await load.load_books(connection, books, needs, self._read_command, look)

    async def _in_transaction(
        self,
        shard: int,
        keys: Sequence[Key],
        needs: Needs,
        choose: Chooser,
        dead_letters: Sequence[DeadLetter],
        offsets: OffsetSwap | None,
        *,
        cards: Collection[tuple[str, str]] = (),
        ahead: bool = False,
    ) -> BatchResult:
        """Lock, load, decide, save, commit; what is in memory is kept only if the commit was acknowledged.

        `ahead`: without the lock; what is decided is written only if all is still so, in one statement that commits.
        """
        memory = self._memories.pop(shard, None)
        try:
            async with self._connection() as connection, nullcontext() if ahead else shard_locked(connection, shard):
                look = await load.look_first(connection, shard, keys=keys, needs=needs, cards=cards)
                state = look.state
                books = self._open_books(shard, state, memory)
                decided = await choose(connection, books, look)
                reached("ledger.decided")
                result, row = await save_batch(
                    connection,
                    self._rules,
                    books,
                    state,
                    decided,
                    dead_letters=dead_letters,
                    offsets=offsets,
                    ahead=ahead,
                )
                if not ahead:
                    reached("ledger.saved")
        except Exception as error:
            mine = ours(error)
            if mine is error:
                raise
            raise mine from error
        reached("ledger.committed")
        if not ahead or row is not None or offsets is not None:
            # Else nothing was written, and nobody looked whether what was read was of one moment.
            self._remember(books, state.head if row is None else row.head_hash)
        if row is not None:
            self._committed(shard, row)
        return result

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool; after anything that may have left it in the middle of something, it is closed."""
        async with self._pool.acquire() as connection:
            try:
                yield connection
            except BaseException as error:
                whole = isinstance(
                    error, UnstorableError | save.OffsetMovedError | save.TenantMovedError | NeedsLockError
                )
                if not whole and not (isinstance(error, Exception) and isinstance(ours(error), UnstorableError)):
                    with suppress(asyncpg.InterfaceError):
                        connection.terminate()
                raise

    def _open_books(self, shard: int, state: ShardState, memory: Memory | None) -> Books:
        books = Books(
            shard=shard,
            epoch=state.epoch,
            next_seq=state.next_seq,
            recorded_at=max(self._clock(), state.last_recorded_at or BEGINNING),
            registered_only=self._rules.registered_only,
            hold_expiry=timedelta(seconds=self._rules.hold_expiry_seconds),
        )
        if memory is not None:
            memory.lend(books, state)
        return books

    def _remember(self, books: Books, head: bytes) -> None:
        most = self._rules.accounts_cached_max // self._rules.shards
        self._memories[books.shard] = memory_of(books, head, accounts_most=most)
        self._tenants.settle(books.new_tenants, books.shard)


@contextmanager
def _deciding(shard: int, events: Sequence[Event], *, ahead: bool) -> Iterator[None]:
    """Raises: UndecidableError, for whatever this program fails with on one of these events."""
    try:
        yield
    except Exception as error:
        if not ahead:
            log.exception("shard %s: a batch of %s can't be decided", shard, len(events))
        raise UndecidableError(f"{type(error).__name__}: {error}") from error


def _halves(events: Sequence[Event]) -> tuple[Sequence[Event], Sequence[Event]]:
    middle = (len(events) + 1) // 2
    return events[:middle], events[middle:]


def _needs_of(events: Iterable[Event]) -> Needs:
    needs = Needs()
    for event in events:
        load.name_needs(event, needs)
    return needs


def _keys_of(events: Sequence[Event], dead_letters: Sequence[DeadLetter]) -> list[Key]:
    keys = [event.delivery for event in events]
    keys += [event.natural for event in events if event.natural is not None]
    keys += [event.publisher for event in events if event.publisher is not None]
    keys += [letter_key(letter) for letter in dead_letters]
    return keys


__all__ = ["BatchResult", "Ledger", "LedgerRules"]
