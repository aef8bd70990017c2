"""Reads the outbox of one shard in seq order and makes transactions of it, ahead of the relay."""

from __future__ import annotations

import asyncio
from collections import deque

import asyncpg

from infra.kafka.transactions import OutboxRow, ShardStoppedError, Transaction
from infra.settings import Settings

PAGE_ROWS = 2_000
PAGE_BYTES = 16 * 1024 * 1024
QUERY_SECONDS = 30.0

# A page ends where its bodies or their outputs get too many, but always has one row. The bodies stand outside the
# table, so what the page leaves out is never read. The bound by the first row keeps a plan made without statistics
# from sorting a long backlog for each page.
_PAGE = """
SELECT seq_first, seq_last, epoch, recorded_at, head_hash, body
FROM (
    SELECT *,
        row_number() OVER seqs AS place,
        sum(octet_length(body)) OVER seqs AS bytes,
        seq_last - $2 AS outputs
    FROM (
        SELECT seq_first, seq_last, epoch, recorded_at, head_hash, body
        FROM outbox
        WHERE shard = $1 AND seq_last > $2
            AND seq_last <= $5 + (SELECT min(seq_last) FROM outbox WHERE shard = $1 AND seq_last > $2)
        ORDER BY seq_last
        LIMIT $3
    ) AS waiting
    WINDOW seqs AS (ORDER BY seq_last)
) AS page
WHERE place = 1 OR (bytes <= $4 AND outputs <= $5)
ORDER BY seq_last
"""


class OutboxReader:
    """Makes the transactions of one shard from its cursor on, one after the other."""

    def __init__(
        self,
        settings: Settings,
        pool: asyncpg.Pool,
        *,
        shard: int,
        cursor: int,
        wakeup: asyncio.Event,
        leave: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._shard = shard
        self._cursor = cursor
        self._wakeup = wakeup
        self._leave = leave
        self._waiting: deque[OutboxRow] = deque()

    async def next(self) -> Transaction | None:
        """The next transaction, sealed and ready, as soon as there is something to publish; None to leave.

        Raises: ShardStoppedError when the outbox has a gap or a damaged row; asyncpg's errors.
        """
        while not self._waiting:
            if self._leave.is_set():
                return None
            # Cleared before the query: what is committed after it wakes us again.
            self._wakeup.clear()
            self._waiting.extend(await self._page())
            if not self._waiting:
                await self._sleep()
        first = self._waiting[0]
        transaction = Transaction(self._settings, self._shard, first.seq_first, first.epoch)
        while self._waiting and transaction.takes(self._waiting[0]):
            row = self._waiting.popleft()
            self._follow(row)
            await transaction.add(row)
        transaction.seal()
        return transaction

    def _follow(self, row: OutboxRow) -> None:
        if row.seq_first != self._cursor + 1:
            raise ShardStoppedError(
                f"shard {self._shard}: after seq {self._cursor} its outbox goes on with {row.seq_first}, so outputs "
                "are missing from the database; restore it, then run `ledgerstream recover`"
            )
        self._cursor = row.seq_last

    async def _page(self) -> list[OutboxRow]:
        rows = await self._pool.fetch(
            _PAGE,
            self._shard,
            self._cursor,
            PAGE_ROWS,
            PAGE_BYTES,
            self._settings.relay_transaction_rows_max,
            timeout=QUERY_SECONDS,
        )
        return [OutboxRow(*row) for row in rows]

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(self._settings.relay_poll_seconds):
                await self._wakeup.wait()
        except TimeoutError:
            return
