"""The imperative shell: load, decide, save. Nothing writes to the ledger but through here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg

from domain.accounts import Account
from domain.administration import TenantCreate
from domain.books import Books, Claim
from domain.decide import Decided, decide_batch, expire, resume
from domain.events import Applied, Event, Parked, Rejected
from domain.ids import AccountId
from domain.keys import Key, conflict_key, dead_letter_key
from domain.needs import Needs
from domain.rejections import RejectionCode
from domain.reservations import ExpenseCategory, LineOfCredit
from infra import outbox
from infra.faultpoints import reached
from infra.kafka.partitioner import partition_of
from infra.outputs import OutputWriter
from infra.postgres import load, save
from infra.postgres.errors import UndecidableError, UnstorableError, ours
from infra.postgres.load import Connection, FirstLook, ReadCommand, ShardState
from infra.postgres.load_cards import load_expired
from infra.postgres.load_credit import credit_reader
from infra.postgres.save_cards import save_cards
from infra.postgres.transaction import shard_locked
from infra.records import DeadLetter, OffsetSwap, Origin
from infra.resolvers.resolving import Resolvers
from schemas.fingerprint import differing_fields
from schemas.wire import printable

log = logging.getLogger(__name__)

EXPIRED_MAX = 1_000
"""How many holds one database transaction ends: an authorization must not wait long for it."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class BatchResult:
    """How the events of a batch ended. `unstorable` are records that could not be saved: dead letters to be."""

    applied: int = 0
    rejected: int = 0
    parked: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    unstorable: list[DeadLetter] = field(default_factory=list)

    def add(self, other: BatchResult) -> None:
        self.applied += other.applied
        self.rejected += other.rejected
        self.parked += other.parked
        self.duplicates += other.duplicates
        self.dead_letters += other.dead_letters
        self.unstorable += other.unstorable


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRules:
    """What was settled when the process started.

    `partitions` and `value_bytes_max` are by the short name of the output topic; `group` stands in dead letters.
    """

    shards: int
    partitions: Mapping[str, int]
    value_bytes_max: Mapping[str, int]
    registered_only: bool = False
    patience_seconds: float = 86_400.0
    accounts_cached_max: int = 100_000
    hold_expiry_seconds: float = 7 * 86_400.0
    group: str = "ledgerstream"


@dataclass(slots=True)
class _Memory:
    """What was in memory after the last commit of a shard: true exactly if the shard's row still stands there."""

    epoch: int
    next_seq: int
    head: bytes
    accounts: dict[tuple[str, str], Account]
    accounts_by_id: dict[AccountId, Account]
    lines: dict[Key, LineOfCredit]
    categories: dict[Key, ExpenseCategory]

    def fits(self, state: ShardState) -> bool:
        return (self.epoch, self.next_seq, self.head) == (state.epoch, state.next_seq, state.head)


class DefectBudget:
    """How many events a minute may become dead letters because of a defect of ours.

    One event that we failed to foresee must not stop its partition for ever; a bad release, which fails on every
    event, must not empty the topics into dead letters either: after so many it waits, and says so.
    """

    def __init__(self, per_minute: int = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._spent: deque[float] = deque()

    def spend(self, defect: UndecidableError) -> None:
        """Take one from the budget. Raises: RuntimeError when there is none left, which is no event's fault."""
        now = self._clock()
        while self._spent and now - self._spent[0] >= 60:
            self._spent.popleft()
        if len(self._spent) >= self._per_minute:
            raise RuntimeError(
                f"this program fails on one event after another ({defect}); it waits instead of making dead letters "
                "of them all: mend it, or go back to the release before"
            ) from defect
        self._spent.append(now)


Chooser = Callable[[Connection, Books, FirstLook], Awaitable[Decided]]
"""Loads what is to be decided, and decides it."""


Resolve = Callable[[Sequence[Event], int], Awaitable[None]]
"""Gives the card payments among the events of a shard what the resolvers answer. Raises: TransientError."""


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
        committed: Callable[[int], None] = lambda shard: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        resolve: Resolve | None = None,
    ) -> None:
        """`committed(shard)` is called after each commit that has outputs; `resolve`: by default as the data say."""
        self._pool = pool
        self._rules = rules
        self._read_command = read_command
        self._committed = committed
        self._clock = clock
        self._resolve = resolve or Resolvers(credit_reader(pool)).resolve
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._memories: dict[int, _Memory] = {}
        self._tenant_shards: dict[str, int] = {}
        self._defects = DefectBudget()

    async def shards_of(self, events: Sequence[Event]) -> list[int]:
        """The shard of each event's tenant. Raises: TransientError.

        A tenant that isn't registered goes where its first event says, by default where its hash does.
        """
        unknown = {event.tenant_id for event in events} - self._tenant_shards.keys()
        found: dict[str, int] = {}
        if unknown:
            self._tenant_shards |= await self._fetch_tenants(unknown)
        shards = []
        for event in events:
            shard = self._tenant_shards.get(event.tenant_id)
            if shard is None:
                shard = found.get(event.tenant_id)
            if shard is None:
                shard = self._first_shard(event)
                # Where tenants are registered, what comes before `tenant.create` is refused and settles nothing.
                if not self._rules.registered_only or isinstance(event.command, TenantCreate):
                    found[event.tenant_id] = shard
            shards.append(shard)
        return shards

    async def _fetch_tenants(self, tenants: set[str]) -> dict[str, int]:
        try:
            rows = await self._pool.fetch(
                "SELECT tenant_id, shard FROM tenants WHERE tenant_id = ANY($1::text[])", list(tenants)
            )
        except Exception as error:
            raise ours(error) from error
        return {row["tenant_id"]: row["shard"] for row in rows}

    def _first_shard(self, event: Event) -> int:
        command = event.command
        # A shard that isn't there has no row to lock; the domain refuses it on the shard of the tenant's hash.
        if isinstance(command, TenantCreate) and command.shard is not None and command.shard < self._rules.shards:
            return command.shard
        return partition_of(event.tenant_id.encode(), self._rules.shards)

    async def apply(
        self,
        events: Sequence[Event],
        *,
        shard: int,
        dead_letters: Sequence[DeadLetter] = (),
        offsets: OffsetSwap | None = None,
    ) -> BatchResult:
        """Apply one shard's events in order, each at most once, and move the read position; committed on return.

        What can't be stored is found by halving the batch and handed back in `unstorable`; with `offsets` it
        becomes a dead letter in the same database transaction as the read position.
        Writes: every table but `relayed`, in one database transaction (more only after something was unstorable).
        Raises: TransientError (try the whole batch again), OffsetMovedError, TenantMovedError.
        """
        # Before anything is locked: custom code may be asked.
        await self._resolve(events, shard)
        async with self._turns[shard]:
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
        async with self._turns[shard]:
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

        async def choose(connection: Connection, books: Books, look: FirstLook) -> Decided:
            load.keep_claims(books, look.claims)
            again = [
                conflict_key(event.tenant_id, event.source, event.event_id, event.fingerprint)
                for event in events
                if (claim := books.claims.get(event.delivery)) and claim.fingerprint != event.fingerprint
            ]
            if again:
                await load.load_claims(connection, books, again)
            await self._load(connection, books, needs, look)
            try:
                return decide_batch(events, books)
            except Exception as error:
                log.exception("shard %s: a batch of %s can't be decided", shard, len(events))
                raise UndecidableError(f"{type(error).__name__}: {error}") from error

        return await self._in_transaction(shard, _keys_of(events, dead_letters), needs, choose, dead_letters, offsets)

    async def _load(self, connection: Connection, books: Books, needs: Needs, look: FirstLook | None) -> None:
        if not needs.tenants:
            return
        unknown = needs.tenants - self._tenant_shards.keys()
        if unknown:
            rows = await connection.fetch(
                "SELECT tenant_id, shard FROM tenants WHERE tenant_id = ANY($1::text[])", list(unknown)
            )
            self._tenant_shards |= {row["tenant_id"]: row["shard"] for row in rows}
        for tenant_id in needs.tenants:
            lives_on = self._tenant_shards.get(tenant_id)
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
    ) -> BatchResult:
        """Lock, load, decide, save, commit; what is in memory is kept only if the commit was acknowledged."""
        memory = self._memories.pop(shard, None)
        try:
            async with self._connection() as connection, shard_locked(connection, shard):
                look = await load.look_first(
                    connection, shard, keys=keys, tenants=needs.tenants, arrivals=needs.arrivals
                )
                state = look.state
                books = self._open_books(shard, state, memory)
                decided = await choose(connection, books, look)
                reached("ledger.decided")
                result, head = await self._save(connection, books, state, decided, dead_letters, offsets)
                reached("ledger.saved")
        except Exception as error:
            mine = ours(error)
            if mine is error:
                raise
            raise mine from error
        reached("ledger.committed")
        self._remember(books, head)
        if books.next_seq != state.next_seq:
            self._committed(shard)
        return result

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool; after anything that may have left it in the middle of something, it is closed."""
        async with self._pool.acquire() as connection:
            try:
                yield connection
            except BaseException as error:
                whole = isinstance(error, UnstorableError | save.OffsetMovedError | save.TenantMovedError)
                if not whole and not (isinstance(error, Exception) and isinstance(ours(error), UnstorableError)):
                    with suppress(asyncpg.InterfaceError):
                        connection.terminate()
                raise

    def _open_books(self, shard: int, state: ShardState, memory: _Memory | None) -> Books:
        books = Books(
            shard=shard,
            epoch=state.epoch,
            next_seq=state.next_seq,
            recorded_at=max(self._clock(), state.last_recorded_at or BEGINNING),
            registered_only=self._rules.registered_only,
            hold_expiry=timedelta(seconds=self._rules.hold_expiry_seconds),
        )
        if memory is not None and memory.fits(state):
            books.accounts, books.accounts_by_id = memory.accounts, memory.accounts_by_id
            books.lines, books.categories = memory.lines, memory.categories
        return books

    def _remember(self, books: Books, head: bytes) -> None:
        most = self._rules.accounts_cached_max // self._rules.shards
        if len(books.accounts) > most:
            for place in list(books.accounts)[: len(books.accounts) - most * 3 // 4]:
                del books.accounts_by_id[books.accounts.pop(place).account_id]
        if len(books.lines) + len(books.categories) > most:
            books.lines, books.categories = {}, {}
        self._memories[books.shard] = _Memory(
            books.epoch, books.next_seq, head, books.accounts, books.accounts_by_id, books.lines, books.categories
        )
        for tenant_id in books.new_tenants:
            self._tenant_shards[tenant_id] = books.shard

    async def _save(
        self,
        connection: Connection,
        books: Books,
        state: ShardState,
        decided: Decided,
        dead_letters: Sequence[DeadLetter],
        offsets: OffsetSwap | None,
    ) -> tuple[BatchResult, bytes]:
        result = _count(decided)
        letters = _fresh_letters(books, dead_letters)
        writes = save.Writes(connection)
        if not decided.handled and not letters:
            await save.finish(writes, (), offsets)
            return result, state.head
        writer = await self._write_outputs(connection, books, state, decided, letters)
        result.dead_letters = len(letters)
        await save.save_tenants(connection, books)
        await save.save_accounts(writes, books, decided)
        await save.save_journal(writes, books, decided)
        await save.save_flows(writes, books)
        await save_cards(writes, books, decided)
        expires_at = books.recorded_at + timedelta(seconds=self._rules.patience_seconds)
        await save.save_waiting(writes, books, decided, expires_at, decided.left_waiting)
        await save.save_dead_letters(writes, books, letters)
        body = outbox.pack(writer.frames)
        await save.save_outbox(writes, books, writer, first=state.next_seq, body=body)
        await save.finish(writes, [save.advance_shard(books, writer)], offsets)
        return result, writer.head

    async def _write_outputs(
        self,
        connection: Connection,
        books: Books,
        state: ShardState,
        decided: Decided,
        letters: Sequence[tuple[int, DeadLetter]],
    ) -> OutputWriter:
        differs = await _differences(connection, books.shard, decided)
        writer = OutputWriter(
            epoch=books.epoch,
            shard=books.shard,
            next_seq=state.next_seq,
            head=state.head,
            recorded_at=books.recorded_at,
            partitions=self._rules.partitions,
            value_bytes_max=self._rules.value_bytes_max,
        )
        try:
            for handled in decided.handled:
                writer.handled(handled, differs.get(handled.seq, ()))
            for _, letter in letters:
                writer.dead_letter(letter, self._rules.group)
        except Exception as error:
            log.exception("shard %s: the outputs of a batch can't be written", books.shard)
            raise UndecidableError(f"{type(error).__name__}: {error}") from error
        return writer


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
    keys += [_letter_key(letter) for letter in dead_letters]
    return keys


def _letter_key(letter: DeadLetter) -> Key:
    record = letter.record
    return dead_letter_key(record.topic_id.bytes, record.partition, record.offset)


def _fresh_letters(books: Books, dead_letters: Sequence[DeadLetter]) -> list[tuple[int, DeadLetter]]:
    """Give dead letters that aren't in the books yet their seqs and claim their keys."""
    letters = []
    for letter in dead_letters:
        key = _letter_key(letter)
        if key in books.claims:
            continue
        books.claims[key] = books.new_claims[key] = Claim(books.next_seq, 0)
        letters.append((books.next_seq, letter))
        books.next_seq += 1
    return letters


async def _differences(connection: Connection, shard: int, decided: Decided) -> dict[int, list[str]]:
    """In which fields each conflicting event differs from the one that has its key, by its seq."""
    conflicts = [
        (handled, handled.outcome.conflicts_with)
        for handled in decided.handled
        if isinstance(handled.outcome, Rejected) and handled.outcome.conflicts_with is not None
    ]
    if not conflicts:
        return {}
    firsts = {handled.seq: (handled.event.type, handled.event.carried.data) for handled in decided.handled}
    missing = [seq for _, seq in conflicts if seq not in firsts]
    if missing:
        firsts |= await load.load_conflicting(connection, shard, missing)
    return {
        handled.seq: differing_fields(*firsts[first], handled.event.type, handled.event.carried.data)
        for handled, first in conflicts
        if first in firsts
    }


def _count(decided: Decided) -> BatchResult:
    result = BatchResult(duplicates=decided.duplicates)
    for handled in decided.handled:
        match handled.outcome:
            case Applied():
                result.applied += 1
            case Rejected():
                result.rejected += 1
            case Parked():
                result.parked += 1
    return result
