"""A ledger built again from its journal: each handling decided anew by the same core, and held against the record.

What was decided outside of the core is not decided again: when an event was recorded, in which order parked events
came free, whose patience was over, where epochs begin. All of it stands in the journal.

Many batches of then are one database transaction now, as long as all is as recorded. Where something isn't, or only
seems so because they are one, nothing of it stays, and each is gone through by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

import asyncpg

from domain.books import Books
from domain.decide import Decided, _claim, _decide_one, _end
from domain.events import Applied, Event, Parked, Rejected
from domain.keys import Key, conflict_key
from domain.payments import PaymentCaptured
from domain.rejections import RejectionCode
from infra.faultpoints import reached
from infra.journal_rows import difference, event_of, letter_of, row_at
from infra.journal_runs import Epochs, Run, stretches
from infra.ledger import Ledger, LedgerRules, _keys_of, _needs_of
from infra.outbox import unpack
from infra.postgres import load
from infra.postgres.engine import SERVER_SETTINGS
from infra.postgres.errors import TransientError, ours
from infra.postgres.load import Connection, ReadCommand
from infra.postgres.transaction import shard_locked
from infra.records import DeadLetter
from infra.saving import Saving
from infra.settings import SettingsError

log = logging.getLogger(__name__)

_ANYBODY_WAITS = "SELECT EXISTS (SELECT FROM parked WHERE shard = $1)"
_NO_TENANT = str(RejectionCode.TENANT_NOT_FOUND)


class JournalDifferenceError(SettingsError):
    """The journal doesn't give what it says; names the shard, the row and what differs."""


async def open_source(dsn: str) -> asyncpg.Pool:
    """Connections to the ledger whose journal is read: one reads ahead meanwhile."""
    return await asyncpg.create_pool(dsn, min_size=1, max_size=2, timeout=10)


async def open_target(dsn: str) -> asyncpg.Pool:
    """Connections to the database that is rebuilt. A crash of its server costs some progress, never a half batch."""
    settings = SERVER_SETTINGS | {"application_name": "ledgerstream replay", "synchronous_commit": "off"}
    # A page of a large journal may take long where other work goes on.
    settings |= {"transaction_timeout": "300s", "idle_in_transaction_session_timeout": "60s"}
    return await asyncpg.create_pool(dsn, min_size=1, max_size=2, server_settings=settings, command_timeout=300)


@dataclass(slots=True)
class _Batch:
    """What was one batch: its rows, and what they were."""

    run: Run
    events: list[Event]
    letters: list[DeadLetter]


class Rebuilder(Ledger):
    """Rebuilds one shard of a ledger in another database."""

    def __init__(self, target: asyncpg.Pool, rules: LedgerRules, read_command: ReadCommand, shard: int) -> None:
        self._now = datetime(1970, 1, 1, tzinfo=UTC)
        super().__init__(target, rules, read_command, clock=lambda: self._now)
        self._shard = shard
        self._codes: dict[int, str] = {}
        """The codes with which events were parked, by seq, since this rebuild began."""

    async def rebuild(self, source: asyncpg.Pool, until: int) -> None:
        """Go on from where the target stands up to the seq before `until`.

        Raises: JournalDifferenceError at the first row that isn't as recorded; all before its batch is committed.
        """
        epochs = Epochs(await source.fetch("SELECT * FROM recoveries WHERE shard = $1 ORDER BY epoch", self._shard))
        start = await self._pool.fetchval("SELECT next_seq FROM shards WHERE shard = $1", self._shard)
        await self._begin_epochs(epochs, start)
        async for stretch in stretches(source, self._shard, start, until, epochs):
            await self._begin_epochs(epochs, stretch[0].seq)
            try:
                await self._replay(stretch, epochs)
            except (TransientError, OSError):
                raise
            except Exception as fault:
                log.info("shard %s: from seq %s batch by batch: %s", self._shard, stretch[0].seq, fault)
                for run in stretch:
                    await self._replay_alone(source, run, epochs)
            reached("journal.committed")
        await self._begin_epochs(epochs, until)

    async def _begin_epochs(self, epochs: Epochs, seq: int) -> None:
        for row in epochs.rows:
            if row["next_seq"] != seq:
                continue
            names = ", ".join(row.keys())
            places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(
                    f"INSERT INTO recoveries ({names}) VALUES ({places}) ON CONFLICT DO NOTHING", *row.values()
                )
                await connection.execute(
                    "UPDATE shards SET epoch = greatest(epoch, $2) WHERE shard = $1", self._shard, row["epoch"]
                )

    async def _replay_alone(self, source: asyncpg.Pool, run: Run, epochs: Epochs) -> None:
        try:
            await self._replay([run], epochs, source)
        except (JournalDifferenceError, TransientError, OSError):
            raise
        except Exception as fault:
            # Whatever damaged rows raise in the core or in Postgres is their fault, and not the end of the proof.
            what = f"the rows from here to seq {run.next_seq - 1} can't be decided again"
            self._differs(run.seq, f"{what} ({type(fault).__name__}: {fault})", fault)

    async def _replay(self, stretch: Sequence[Run], epochs: Epochs, source: asyncpg.Pool | None = None) -> None:
        """Decide these batches again and write all of them, in one database transaction.

        With a `source` every key is looked up beforehand, and an output that isn't the one published is looked for.
        """
        self._now = stretch[0].recorded_at
        batches = [
            _Batch(run, [self._event(row) for row in run.events], list(map(letter_of, run.letters))) for run in stretch
        ]
        pairs = [pair for batch in batches for pair in zip(batch.run.events, batch.events, strict=True)]
        fresh = [event for row, event in pairs if row["resumes"] is None]
        if source is not None:
            keys = _keys_of(fresh, [letter for batch in batches for letter in batch.letters])
        else:
            # Whatever else claims a key would break the primary key of all that are claimed, were it taken.
            keys = _keys_of([event for row, event in pairs if row["outcome"] == "rejected" or event.command.due], ())
        needs = _needs_of(event for row, event in pairs if row["code"] != _NO_TENANT)
        if source is None:
            needs.payments |= _captured_in_parts(fresh)
        memory = self._memories.pop(self._shard, None)
        try:
            async with self._connection() as connection, shard_locked(connection, self._shard):
                if not await connection.fetchval(_ANYBODY_WAITS, self._shard):
                    needs.arrivals.clear()
                look = await load.look_first(connection, self._shard, keys=keys, needs=needs)
                books = self._open_books(self._shard, look.state, memory)
                load.keep_claims(books, look.claims)
                if again := _known_with_another_body(fresh, books):
                    await load.load_claims(connection, books, again)
                await self._load(connection, books, needs, look)
                saving = Saving(connection, self._rules, books, look.state, staged=True, all_loaded=source is None)
                for batch in batches:
                    await self._tell(connection, batch, books, saving, epochs)
                    reached("journal.run")
                    if source is None:
                        self._check_head(batch.run, saving)
                await saving.finish(None)
                if source is not None:
                    await self._name_what_was_published(connection, source, stretch[-1], saving)
        except Exception as error:
            mine = ours(error)
            if mine is error:
                raise
            raise mine from error
        self._remember(books, saving.head)

    async def _tell(self, connection: Connection, batch: _Batch, books: Books, saving: Saving, epochs: Epochs) -> None:
        """Decide one batch again, at the time and in the epoch of then, and make its outputs."""
        run = batch.run
        if books.next_seq != run.seq:
            self._differs(run.seq, f"the journal goes on where {books.next_seq} is the next seq")
        books.recorded_at = max(run.recorded_at, books.recorded_at)
        books.epoch = epochs.of_ids(run.seq)
        await self._learn_codes(connection, run)
        decided = Decided()
        for row, event in zip(run.events, batch.events, strict=True):
            self._decide(row, event, books, decided)
        books.epoch = epochs.of_outputs(run.seq)
        await saving.tell(decided, batch.letters)
        if books.next_seq != run.next_seq:
            self._differs(run.seq, f"the rows from here on end before seq {books.next_seq}, not {run.next_seq}")

    def _check_head(self, run: Run, saving: Saving) -> None:
        if run.head is not None and run.head != saving.head:
            self._differs(run.next_seq - 1, "the head after it isn't that of what was published", table="outbox")

    async def _name_what_was_published(
        self, connection: Connection, source: asyncpg.Pool, run: Run, saving: Saving
    ) -> None:
        """Name the journal's row whose outputs aren't those that were published, going by what the outbox still has.

        Raises: JournalDifferenceError, if there is one.
        """
        if run.head is None or run.head == saving.head:
            return
        span = (self._shard, run.next_seq - 1)
        kept = await source.fetchrow("SELECT seq_first, body FROM outbox WHERE shard = $1 AND seq_last = $2", *span)
        assert kept is not None
        made = await connection.fetch(
            "SELECT seq_first, body FROM outbox WHERE shard = $1 AND seq_last BETWEEN $3 AND $2",
            *span,
            kept["seq_first"],
        )
        try:
            theirs = dict(enumerate(unpack(kept["body"]), kept["seq_first"]))
        except Exception as fault:
            self._differs(run.next_seq - 1, f"the outbox row that ends here can't be read: {fault}", fault, "outbox")
        ours = {seq: output for row in made for seq, output in enumerate(unpack(row["body"]), row["seq_first"])}
        others = [seq for seq in theirs if seq in ours and ours[seq] != theirs[seq]]
        if not others:
            self._check_head(run, saving)
        table, seq = await row_at(source, self._shard, others[0])
        self._differs(seq, f"the output at seq {others[0]} is not the one that was published", table=table)

    async def _learn_codes(self, connection: Connection, run: Run) -> None:
        """With which codes those were parked that come free now."""
        for row in run.events:
            if row["outcome"] == "parked":
                self._codes[row["seq"]] = row["code"]
        missing = [row["resumes"] for row in run.events if row["resumes"] not in self._codes]
        missing = [seq for seq in missing if seq is not None]
        if missing:
            rows = await connection.fetch(
                "SELECT seq, code FROM events WHERE shard = $1 AND seq = ANY($2::bigint[])", self._shard, missing
            )
            self._codes |= {row["seq"]: row["code"] for row in rows}

    def _event(self, row: asyncpg.Record) -> Event:
        try:
            return event_of(row, self._read_command)
        except Exception as fault:
            self._differs(row["seq"], f"the event {row['event_id']} of {row['source']} can't be read: {fault}", fault)

    def _decide(self, row: asyncpg.Record, event: Event, books: Books, decided: Decided) -> None:
        before = len(decided.handled)
        if row["code"] == _NO_TENANT:
            books.begin()
            refused = Rejected(RejectionCode.TENANT_NOT_FOUND, row["message"])
            _claim(event, refused, books)
            _end(event, refused, books, decided)
        elif row["resumes"] is None:
            _decide_one(event, books, decided)
        else:
            self._decide_again(row, event, books, decided)
        if books.arrived:
            # Who comes free by it, and when, is recorded; those whose turn is still to come are marked.
            decided.left_waiting |= set(books.arrived)
            books.arrived.clear()
        if len(decided.handled) != before + 1:
            self._differs(row["seq"], f"the event {row['event_id']} of {row['source']} would be dropped as known")
        if (fault := difference(row, decided.handled[-1])) is not None:
            self._differs(row["seq"], f"the event {row['event_id']} of {row['source']}: {fault}")

    def _decide_again(self, row: asyncpg.Record, event: Event, books: Books, decided: Decided) -> None:
        books.begin()
        outcome = event.command.decide(event, books)
        given_up = row["outcome"] == "rejected" and row["code"] == self._codes.get(row["resumes"])
        if given_up and isinstance(outcome, Parked):
            # What it waits for is still not there: its patience was over, or it was given up.
            waiting = books.waiting_count.get(outcome.waits_for)
            if waiting is not None:
                books.waiting_count[outcome.waits_for] = waiting - 1
            outcome = Rejected(RejectionCode(row["code"]), row["message"])
        if not isinstance(outcome, Applied | Rejected | Parked):
            self._differs(row["seq"], f"the event {row['event_id']} of {row['source']} would change nothing")
        _end(event, outcome, books, decided)

    def _differs(self, seq: int, what: str, fault: Exception | None = None, table: str = "events") -> NoReturn:
        raise JournalDifferenceError(
            f"{table} (shard {self._shard}, seq {seq}): {what}; the journal was damaged, or was written by another "
            "version or with other settings"
        ) from fault


def _captured_in_parts(events: Sequence[Event]) -> set[Key]:
    """The payments that may be there already when one of these captures comes."""
    return {
        event.arrives
        for event in events
        if isinstance(event.command, PaymentCaptured) and event.command.capture_id is not None and event.arrives
    }


def _known_with_another_body(events: Sequence[Event], books: Books) -> list[Key]:
    """The keys by which a delivery that was known would be known with this body, too."""
    if not books.claims:
        return []
    return [
        conflict_key(event.tenant_id, event.source, event.event_id, event.fingerprint)
        for event in events
        if (claim := books.claims.get(event.delivery)) and claim.fingerprint != event.fingerprint
    ]
