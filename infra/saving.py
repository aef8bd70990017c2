"""What decided batches leave behind: rows, outputs, the read position, all in one database transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from domain.books import Books, Claim
from domain.decide import Decided
from domain.events import Handled, Rejected
from domain.keys import Key, dead_letter_key
from infra import outbox
from infra.outbox import OutboxRow
from infra.outputs import OutputWriter
from infra.postgres import load, save
from infra.postgres.errors import UndecidableError
from infra.postgres.load import Connection, ShardState
from infra.postgres.save_cards import save_cards
from infra.records import DeadLetter, OffsetSwap
from infra.results import BatchResult, count_ends
from infra.rules import LedgerRules
from schemas.fingerprint import differing_fields

log = logging.getLogger(__name__)


async def save_batch(
    connection: Connection,
    rules: LedgerRules,
    books: Books,
    state: ShardState,
    decided: Decided,
    *,
    dead_letters: Sequence[DeadLetter],
    offsets: OffsetSwap | None,
    ahead: bool = False,
) -> tuple[BatchResult, OutboxRow | None]:
    """Write all of it; says how its events ended, and what goes out, if anything does.

    `ahead`: nothing is locked yet, and what is written is committed when this returns.
    Raises: UndecidableError, OffsetMovedError, TenantMovedError, NeedsLockError if `ahead`, what asyncpg raises.
    """
    result = count_ends(decided)
    still = save.still(books.shard, state, offsets) if ahead else None
    saving = Saving(connection, rules, books, state, still=still)
    result.dead_letters = await saving.tell(decided, dead_letters)
    await saving.finish(offsets)
    return result, saving.row


class Saving:
    """What decided batches of one shard leave behind in one database transaction: told in their order, then written."""

    def __init__(
        self,
        connection: Connection,
        rules: LedgerRules,
        books: Books,
        state: ShardState,
        *,
        staged: bool = False,
        all_loaded: bool = False,
        still: save.Change | None = None,
    ) -> None:
        """`staged` and `still` are of `Writes`, `all_loaded` of `save_flows`."""
        self.head = state.head
        self.row: OutboxRow | None = None
        """What goes out of the last batch."""
        self._next_seq = state.next_seq
        self._rules = rules
        self._books = books
        self._writes = save.Writes(connection, staged=staged, still=still)
        self._all_loaded = all_loaded
        self._handled: list[Handled] = []
        self._waiting = save.Waiting()

    async def tell(self, decided: Decided, dead_letters: Sequence[DeadLetter]) -> int:
        """Number and chain the outputs of a batch, at the time that the books have now; says how many letters are new.

        Raises: UndecidableError.
        """
        books, writes = self._books, self._writes
        letters = _fresh_letters(books, dead_letters)
        if not decided.handled and not letters:
            return 0
        writer = await self._write_outputs(decided, letters)
        if writer.next_seq != books.next_seq:
            raise UndecidableError(
                f"outputs end before seq {writer.next_seq}, what was decided before {books.next_seq}"
            )
        await save.save_journal(writes, books, decided)
        await save.save_dead_letters(writes, books, letters)
        body = outbox.pack(writer.frames)
        last = writer.next_seq - 1
        self.row = OutboxRow(self._next_seq, last, books.epoch, books.recorded_at, writer.head, body)
        await save.save_outbox(writes, books.shard, self.row)
        expires_at = books.recorded_at + timedelta(seconds=self._rules.patience_seconds)
        self._waiting.note(books, decided, expires_at)
        self._handled += decided.handled
        self.head, self._next_seq = writer.head, writer.next_seq
        return len(letters)

    async def finish(self, offsets: OffsetSwap | None) -> None:
        """Write all that was told, what is true after it, and the read position.

        Raises: OffsetMovedError, TenantMovedError, what asyncpg raises.
        """
        books, writes = self._books, self._writes
        if self.row is None:
            await save.finish(writes, (), offsets)
            return
        await save.save_tenants(writes, books)
        await save.save_accounts(writes, books, self._handled)
        await save.save_claims(writes, books)
        await save.save_flows(writes, books, all_loaded=self._all_loaded)
        await save_cards(writes, books, self._handled)
        await save.save_waiting(writes, books, self._waiting)
        await save.finish(writes, [save.advance_shard(books, self.head)], offsets)

    async def _write_outputs(self, decided: Decided, letters: Sequence[tuple[int, DeadLetter]]) -> OutputWriter:
        books, rules = self._books, self._rules
        differs = await self._differences(decided)
        writer = OutputWriter(
            epoch=books.epoch,
            shard=books.shard,
            next_seq=self._next_seq,
            head=self.head,
            recorded_at=books.recorded_at,
            partitions=rules.partitions,
            value_bytes_max=rules.value_bytes_max,
        )
        try:
            for handled in decided.handled:
                writer.handled(handled, differs.get(handled.seq, ()))
            for _, letter in letters:
                writer.dead_letter(letter, rules.group)
        except Exception as error:
            if not self._writes.ahead:
                log.exception("shard %s: the outputs of a batch can't be written", books.shard)
            raise UndecidableError(f"{type(error).__name__}: {error}") from error
        return writer

    async def _differences(self, decided: Decided) -> dict[int, list[str]]:
        """In which fields each conflicting event differs from the one that has its key, by its seq."""
        conflicts = [
            (handled, handled.outcome.conflicts_with)
            for handled in decided.handled
            if isinstance(handled.outcome, Rejected) and handled.outcome.conflicts_with is not None
        ]
        if not conflicts:
            return {}
        # Those of this transaction aren't in the database yet.
        firsts = {
            handled.seq: (handled.event.type, handled.event.carried.data)
            for handled in (*self._handled, *decided.handled)
        }
        missing = [seq for _, seq in conflicts if seq not in firsts]
        if missing:
            firsts |= await load.load_conflicting(self._writes.connection, self._books.shard, missing)
        return {
            handled.seq: differing_fields(*firsts[first], handled.event.type, handled.event.carried.data)
            for handled, first in conflicts
            if first in firsts
        }


def letter_key(letter: DeadLetter) -> Key:
    """By what a record that was no event is known."""
    record = letter.record
    return dead_letter_key(record.topic_id.bytes, record.partition, record.offset)


def _fresh_letters(books: Books, dead_letters: Sequence[DeadLetter]) -> list[tuple[int, DeadLetter]]:
    """Give dead letters that aren't in the books yet their seqs and claim their keys."""
    letters = []
    for letter in dead_letters:
        key = letter_key(letter)
        if key in books.claims:
            continue
        books.claims[key] = books.new_claims[key] = Claim(books.next_seq, 0)
        letters.append((books.next_seq, letter))
        books.next_seq += 1
    return letters
