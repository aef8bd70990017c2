"""A ledger built again from its journal: each handling decided anew by the same core, and held against the record.

What was decided outside of the core is not decided again: when an event was recorded, in which order parked events
came free, whose patience was over, where epochs begin. All of it stands in the journal.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NoReturn
from uuid import UUID

import asyncpg
import jiter
import orjson

from domain.books import Books
from domain.decide import Decided, _claim, _decide_one, _end
from domain.events import Applied, Event, Handled, Parked, Rejected
from domain.keys import conflict_key
from domain.needs import Needs
from domain.rejections import RejectionCode
from infra.faultpoints import reached
from infra.journal_runs import Epochs, Run, runs
from infra.ledger import Ledger, LedgerRules, _keys_of, _needs_of
from infra.outbox import unpack
from infra.postgres import load
from infra.postgres.engine import SERVER_SETTINGS
from infra.postgres.errors import TransientError
from infra.postgres.load import Connection, ReadCommand
from infra.records import DeadLetter, InputRecord, Origin
from infra.settings import SettingsError
from schemas import canonical
from schemas.fingerprint import _fingerprinter
from schemas.registry import EVENT_TYPES, RESOLUTION

_NO_TENANT = str(RejectionCode.TENANT_NOT_FOUND)


class JournalDifferenceError(SettingsError):
    """The journal doesn't give what it says; names the shard, the row and what differs."""


async def open_target(dsn: str) -> asyncpg.Pool:
    """Connections to the database that is rebuilt. A crash of its server costs some progress, never a half batch."""
    settings = SERVER_SETTINGS | {"application_name": "ledgerstream replay", "synchronous_commit": "off"}
    # A page of a large journal may take long where other work goes on.
    settings |= {"transaction_timeout": "300s", "idle_in_transaction_session_timeout": "60s"}
    return await asyncpg.create_pool(dsn, min_size=1, max_size=2, server_settings=settings, command_timeout=300)


class Rebuilder(Ledger):
    """Rebuilds one shard of a ledger in another database."""

    def __init__(self, target: asyncpg.Pool, rules: LedgerRules, read_command: ReadCommand, shard: int) -> None:
        self._now = datetime(1970, 1, 1, tzinfo=UTC)
        super().__init__(target, rules, read_command, clock=lambda: self._now)
        self._shard = shard
        self._codes: dict[int, str] = {}
        """The codes with which events were parked, by seq, since this rebuild began."""

    async def rebuild(self, source: asyncpg.Connection, until: int) -> None:
        """Go on from where the target stands up to the seq before `until`, each run in a transaction of its own.

        Raises: JournalDifferenceError at the first row that isn't as recorded.
        """
        epochs = Epochs(await source.fetch("SELECT * FROM recoveries WHERE shard = $1 ORDER BY epoch", self._shard))
        start = await self._pool.fetchval("SELECT next_seq FROM shards WHERE shard = $1", self._shard)
        await self._begin_epochs(epochs, start)
        async for run in runs(source, self._shard, start, until, epochs.cuts()):
            await self._begin_epochs(epochs, run.seq)
            try:
                await self._replay(source, run, epochs)
            except (JournalDifferenceError, TransientError, OSError):
                raise
            except Exception as fault:
                # Whatever damaged rows raise in the core or in Postgres is their fault, and not the end of the proof.
                what = f"the rows from here to seq {run.next_seq - 1} can't be decided again"
                self._differs(run.seq, f"{what} ({type(fault).__name__}: {fault})", fault)
            reached("journal.run")
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

    async def _replay(self, source: asyncpg.Connection, run: Run, epochs: Epochs) -> None:
        self._now = run.recorded_at
        events = [self._event(row) for row in run.events]
        letters = [_letter(row) for row in run.letters]
        fresh = [event for event, row in zip(events, run.events, strict=True) if row["resumes"] is None]
        known = [e for e, row in zip(events, run.events, strict=True) if row["code"] != _NO_TENANT]
        needs: Needs = _needs_of(known)
        await self._learn_codes(run)

        async def choose(connection: Connection, books: Books, look: load.FirstLook) -> Decided:
            if books.next_seq != run.seq:
                self._differs(run.seq, f"the journal goes on where {books.next_seq} is the next seq")
            books.epoch = epochs.of_ids(run.seq)
            load.keep_claims(books, look.claims)
            again = [
                conflict_key(event.tenant_id, event.source, event.event_id, event.fingerprint)
                for event in fresh
                if (claim := books.claims.get(event.delivery)) and claim.fingerprint != event.fingerprint
            ]
            if again:
                await load.load_claims(connection, books, again)
            await self._load(connection, books, needs, look)
            decided = Decided()
            for row, event in zip(run.events, events, strict=True):
                self._decide(row, event, books, decided)
            books.epoch = epochs.of_outputs(run.seq)
            return decided

        await self._in_transaction(self._shard, _keys_of(fresh, letters), needs, choose, letters, None)
        stands = await self._pool.fetchrow("SELECT next_seq, head_hash FROM shards WHERE shard = $1", self._shard)
        assert stands is not None
        if stands["next_seq"] != run.next_seq:
            self._differs(run.seq, f"the rows from here on end before seq {stands['next_seq']}, not {run.next_seq}")
        if run.head is not None and stands["head_hash"] != run.head:
            await self._name_what_was_published(source, run)

    async def _name_what_was_published(self, source: asyncpg.Connection, run: Run) -> NoReturn:
        """Name the journal's row whose outputs aren't those that were published, going by what the outbox still has."""
        span = (self._shard, run.next_seq - 1)
        kept = await source.fetchrow("SELECT seq_first, body FROM outbox WHERE shard = $1 AND seq_last = $2", *span)
        assert kept is not None
        made = await self._pool.fetch(
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
            self._differs(run.next_seq - 1, "the head after it isn't that of what was published", table="outbox")
        table, seq = await _row_of(source, self._shard, others[0])
        self._differs(seq, f"the output at seq {others[0]} is not the one that was published", table=table)

    async def _learn_codes(self, run: Run) -> None:
        """With which codes those were parked that come free now."""
        for row in run.events:
            if row["outcome"] == "parked":
                self._codes[row["seq"]] = row["code"]
        missing = [row["resumes"] for row in run.events if row["resumes"] not in self._codes]
        missing = [seq for seq in missing if seq is not None]
        if missing:
            rows = await self._pool.fetch(
                "SELECT seq, code FROM events WHERE shard = $1 AND seq = ANY($2::bigint[])", self._shard, missing
            )
            self._codes |= {row["seq"]: row["code"] for row in rows}

    def _event(self, row: asyncpg.Record) -> Event:
        data = row["data"].encode()
        try:
            command = self._read_command(row["type"], data)
            if row["type"] in EVENT_TYPES:
                taken = _fingerprint(row["type"], data)
                if taken != row["fingerprint"]:
                    raise ValueError(f"its fingerprint is {taken}, recorded is {row['fingerprint']}")
        except Exception as fault:
            self._differs(row["seq"], f"the event {row['event_id']} of {row['source']} can't be read: {fault}", fault)
        record = None
        if row["topic"] is not None:
            record = InputRecord(row["topic"], UUID(int=0), row["partition"], row["offset"], 0, None, None, ())
        return Event(
            type=row["type"],
            tenant_id=row["tenant_id"],
            source=row["source"],
            event_id=row["event_id"],
            occurred_at=row["occurred_at"],
            command=command,
            fingerprint=row["fingerprint"],
            idempotency_key=row["idempotency_key"],
            traceparent=row["traceparent"],
            parked_seq=row["resumes"],
            carried=Origin(data, record),
        )

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
        # Who comes free by it, and when, is recorded; those whose turn is still to come are marked.
        decided.left_waiting |= set(books.arrived)
        books.arrived.clear()
        if len(decided.handled) != before + 1:
            self._differs(row["seq"], f"the event {row['event_id']} of {row['source']} would be dropped as known")
        if (fault := _difference(row, decided.handled[-1])) is not None:
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


def _fingerprint(type_name: str, data: bytes) -> int:
    """The fingerprint of what was published: what the resolvers answered is no part of it."""
    fields = jiter.from_json(data)
    if fields.pop(RESOLUTION, None) is not None:
        data = canonical.dump(fields)
    return _fingerprinter(type_name).take(fields, data)


def _difference(row: asyncpg.Record, handled: Handled) -> str | None:
    """In what a handling isn't as recorded."""
    outcome = handled.outcome
    outputs, kind, code, message, waits_for = 1, "applied", None, None, None
    match outcome:
        case Applied():
            outputs = outcome.outputs
        case Rejected():
            kind, code, message = "rejected", str(outcome.code), outcome.message
        case Parked():
            kind, code, waits_for = "parked", str(outcome.code), outcome.waits_for_text
    told = {
        "seq": handled.seq,
        "outcome": kind,
        "code": code,
        "outputs": outputs,
        "message": message,
        "waits_for": waits_for,
        "resumes": handled.resumes,
    }
    for name, value in told.items():
        if row[name] != value:
            return f"{name} is recorded as {row[name]!r}, and comes out as {value!r}"
    return None


async def _row_of(source: asyncpg.Connection, shard: int, seq: int) -> tuple[str, int]:
    """The table and the seq of the journal's row that the output at this seq is of."""
    found = await source.fetchrow(
        """
        SELECT kept.place, kept.seq
        FROM (
            SELECT 'events' AS place, max(seq) AS seq FROM events WHERE shard = $1 AND seq <= $2
          UNION ALL
            SELECT 'dead_letters', max(seq) FROM dead_letters WHERE shard = $1 AND seq <= $2
        ) AS kept
        WHERE kept.seq IS NOT NULL
        ORDER BY kept.seq DESC
        LIMIT 1
        """,
        shard,
        seq,
    )
    return ("events", seq) if found is None else (found["place"], found["seq"])


def _letter(row: asyncpg.Record) -> DeadLetter:
    headers = [(name, None if text is None else bytes.fromhex(text)) for name, text in orjson.loads(row["headers"])]
    place = (row["topic"], row["topic_id"], row["partition"], row["offset"], row["timestamp_ms"])
    return DeadLetter(InputRecord(*place, row["key"], row["value"], headers), row["code"], row["message"])
