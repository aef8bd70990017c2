"""How far a shard was relayed: its last seal, checked against the database, and the hint kept there."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from infra.kafka.relay_lease import POSTGRES_FAULTS
from infra.kafka.seals import Seal
from infra.kafka.transactions import ShardStoppedError
from infra.settings import Settings

log = logging.getLogger(__name__)

HINTS_SECONDS = 0.1
QUERY_SECONDS = 10.0

_BOOKS = """
SELECT
    shards.epoch,
    shards.next_seq,
    coalesce(relayed.seq, 0) AS relayed,
    coalesce(
        (SELECT head_hash FROM outbox WHERE outbox.shard = $1 AND seq_last = $2),
        CASE WHEN next_seq - 1 = $2 THEN head_hash END,
        -- A new epoch may begin before the first output.
        CASE WHEN $2 = 0 THEN decode(repeat('00', 32), 'hex') END
    ) AS head_hash
FROM shards LEFT JOIN relayed USING (shard)
WHERE shards.shard = $1
"""


async def cursor_of(settings: Settings, pool: asyncpg.Pool, shard: int, seal: Seal | None) -> int:
    """The seq up to which the shard is published: its last seal's, if the books agree with it.

    Raises: ShardStoppedError when they don't, with the way out.
    """
    place = f"{settings.topic('seals')}[{shard}]"
    books = await pool.fetchrow(_BOOKS, shard, seal.seq_last if seal else 0)
    if books is None:
        raise ShardStoppedError(f"shard {shard} is not in the database; run `ledgerstream migrate`")
    epoch, next_seq, relayed, head_hash = books
    if seal is None:
        if relayed > 0:
            raise ShardStoppedError(
                f"shard {shard}: {place} has no seal, but outputs up to seq {relayed} were published; "
                "is this the Kafka they went to? If its topics are gone, run `ledgerstream recover`"
            )
        return 0
    fault = None
    if seal.shard != shard:
        fault = f"is sealed by shard {seal.shard}"
    elif seal.seq_last >= next_seq or seal.epoch > epoch:
        fault = f"is sealed up to seq {seal.seq_last} of epoch {seal.epoch}, but the books end at {next_seq - 1}"
        fault += f" of epoch {epoch}"
    elif head_hash is None:
        fault = f"is sealed up to seq {seal.seq_last}, of which the outbox has no row"
    elif head_hash != seal.head_hash:
        fault = f"is sealed up to seq {seal.seq_last} with another head of the hash chain than the books have there"
    elif relayed > seal.seq_last:
        fault = f"is sealed up to seq {seal.seq_last}, but outputs up to {relayed} were published"
    if fault is not None:
        raise ShardStoppedError(
            f"shard {shard}: {place} {fault}; one of the two was restored or belongs to another ledger: "
            "run `ledgerstream recover`"
        )
    return seal.seq_last


_HINTS = """
INSERT INTO relayed (shard, seq)
SELECT * FROM unnest($1::smallint[], $2::bigint[])
ON CONFLICT (shard) DO UPDATE SET seq = excluded.seq, updated_at = now() WHERE relayed.seq < excluded.seq
"""


class RelayedHints:
    """Keeps the table `relayed` near the truth, off the way of the outputs."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._seqs: dict[int, int] = {}
        self._changed = asyncio.Event()

    def set(self, shard: int, seq: int) -> None:
        """The shard is published up to seq: say so after the commit, never before."""
        self._seqs[shard] = seq
        self._changed.set()

    async def run(self) -> None:
        """Write what changed, a few times a second, until cancelled."""
        while True:
            await self._changed.wait()
            try:
                await self.write()
            except POSTGRES_FAULTS as fault:
                # Only a hint: the next one makes up for it.
                log.debug("the hints how far the outbox was relayed weren't written: %r", fault)
            await asyncio.sleep(HINTS_SECONDS)

    async def write(self) -> None:
        """Write what changed. Raises: OSError, asyncpg's errors, TimeoutError; it is then still to be written."""
        self._changed.clear()
        seqs, self._seqs = self._seqs, {}
        try:
            if seqs:
                await self._pool.execute(_HINTS, list(seqs), list(seqs.values()), timeout=QUERY_SECONDS)
        except BaseException:
            self._seqs = seqs | self._seqs
            self._changed.set()
            raise
