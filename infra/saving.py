"""What a decided batch leaves behind: its rows, its outputs, the read position, all in one database transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from domain.books import Books, Claim
from domain.decide import Decided
from domain.events import Rejected
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
) -> tuple[BatchResult, OutboxRow | None]:
    """Write all of it; says how its events ended, and what goes out, if anything does.

    Raises: UndecidableError, OffsetMovedError, TenantMovedError, what asyncpg raises.
    """
    result = count_ends(decided)
    letters = _fresh_letters(books, dead_letters)
    writes = save.Writes(connection)
    if not decided.handled and not letters:
        await save.finish(writes, (), offsets)
        return result, None
    writer = await _write_outputs(connection, rules, books, state, decided, letters)
    result.dead_letters = len(letters)
    await save.save_tenants(connection, books)
    await save.save_accounts(writes, books, decided)
    await save.save_journal(writes, books, decided)
    await save.save_flows(writes, books)
    await save_cards(writes, books, decided)
    expires_at = books.recorded_at + timedelta(seconds=rules.patience_seconds)
    await save.save_waiting(writes, books, decided, expires_at, decided.left_waiting)
    await save.save_dead_letters(writes, books, letters)
    body = outbox.pack(writer.frames)
    row = OutboxRow(state.next_seq, writer.next_seq - 1, books.epoch, books.recorded_at, writer.head, body)
    await save.save_outbox(writes, books.shard, row)
    await save.finish(writes, [save.advance_shard(books, writer)], offsets)
    return result, row


async def _write_outputs(
    connection: Connection,
    rules: LedgerRules,
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
        partitions=rules.partitions,
        value_bytes_max=rules.value_bytes_max,
    )
    try:
        for handled in decided.handled:
            writer.handled(handled, differs.get(handled.seq, ()))
        for _, letter in letters:
            writer.dead_letter(letter, rules.group)
    except Exception as error:
        log.exception("shard %s: the outputs of a batch can't be written", books.shard)
        raise UndecidableError(f"{type(error).__name__}: {error}") from error
    return writer


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
