"""Reads the outbox of one shard in seq order and makes transactions of it, ahead of the relay."""

from __future__ import annotations

import asyncio
from collections import deque

import asyncpg

from infra.kafka.transactions import ShardStoppedError, Transaction
from infra.outbox import OutboxRow
from infra.settings import Settings

PAGE_ROWS = 2_000
PAGE_BYTES = 16 * 1024 * 1024
NEXT_ROWS = 4
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

# Who has read all there was finds a row or two next time: the bounds above cost more than these rows.
_NEXT = """
SELECT seq_first, seq_last, epoch, recorded_at, head_hash, body
FROM outbox
WHERE shard = $1 AND seq_last > $2
ORDER BY seq_last
LIMIT $3
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
        elsewhere: asyncio.Event,
        leave: asyncio.Event,
        handed: deque[OutboxRow],
    ) -> None:
        """`handed`: rows that a worker in this process has committed, which needn't be read; `elsewhere`: others are.

        Both are of `RelayWakeups`, and so is `wakeup`.
        """
        self._settings = settings
        self._pool = pool
        self._shard = shard
        self._cursor = cursor
        self._wakeup = wakeup
        self._elsewhere = elsewhere
        self._leave = leave
        self._handed = handed
        self._has_all = False
        """Whether all is taken that we were told of."""
        self._waiting: deque[OutboxRow] = deque()
        self._publishing = False
        self._collecting = False
        self._caught_up = False
        self._abandoned = False

    async def next(self) -> Transaction | None:
        """The next transaction, sealed and ready, as soon as there is something to publish; None to leave.

        While the one before is published it takes in what is committed meanwhile: that needn't wait for its own.
        Raises: ShardStoppedError when the outbox has a gap or a damaged row; asyncpg's errors.
        """
        self._collecting = False
        transaction: Transaction | None = None
        while not self._abandoned and (transaction is None or self._publishing):
            if not self._waiting:
                if self._leave.is_set():
                    break
                await self._look()
            if self._waiting:
                transaction = transaction or self._begin(self._waiting[0])
                self._collecting = True
                await self._fill(transaction)
                if self._waiting:
                    break
        if transaction is not None:
            transaction.seal()
        return transaction

    def publishing(self) -> None:
        """What was handed over is being published: there is time to take in more."""
        self._publishing = True

    def published(self) -> None:
        """The next transaction is wanted, as it is."""
        self._publishing = False
        if self._collecting:
            self._wakeup.set()

    def abandon(self) -> None:
        """No transaction is wanted any more: a query under way may end, but no other begins."""
        self._abandoned = True
        self._wakeup.set()

    def _begin(self, first: OutboxRow) -> Transaction:
        return Transaction(self._settings, self._shard, first.seq_first, first.epoch)

    async def _fill(self, transaction: Transaction) -> None:
        while self._waiting and transaction.takes(self._waiting[0]):
            row = self._waiting.popleft()
            self._follow(row)
            await transaction.add(row)

    async def _look(self) -> None:
        """See what was committed; wait for more if that is nothing, and no longer than until it is wanted."""
        # Cleared before the query: what is committed after it wakes us again.
        told = self._elsewhere.is_set()
        self._wakeup.clear()
        self._elsewhere.clear()
        rows = self._from_memory()
        if rows:
            # What we were told of may come after these: then Postgres is asked next.
            self._has_all = not told
        elif told or self._handed or not self._has_all:
            self._has_all = False
            rows = await self._page()
        self._waiting.extend(rows)
        if not (self._waiting or self._leave.is_set() or self._abandoned):
            await self._sleep()

    def _from_memory(self) -> list[OutboxRow]:
        """Those that were handed over and follow on what was read; none where one is missing before them."""
        rows: list[OutboxRow] = []
        cursor = self._cursor
        while self._handed and self._handed[0].seq_first <= cursor + 1:
            row = self._handed.popleft()
            if row.seq_first == cursor + 1:
                rows.append(row)
                cursor = row.seq_last
        return rows

    def _follow(self, row: OutboxRow) -> None:
        if row.seq_first != self._cursor + 1:
            raise ShardStoppedError(
                f"shard {self._shard}: after seq {self._cursor} its outbox goes on with {row.seq_first}, so outputs "
                "are missing from the database; restore it, then run `ledgerstream recover`"
            )
        self._cursor = row.seq_last

    async def _page(self) -> list[OutboxRow]:
        if self._caught_up:
            rows = await self._pool.fetch(_NEXT, self._shard, self._cursor, NEXT_ROWS, timeout=QUERY_SECONDS)
            self._caught_up = len(rows) < NEXT_ROWS
        else:
            rows = await self._pool.fetch(
                _PAGE,
                self._shard,
                self._cursor,
                PAGE_ROWS,
                PAGE_BYTES,
                self._settings.relay_transaction_rows_max,
                timeout=QUERY_SECONDS,
            )
            self._caught_up = not rows
        return [OutboxRow(*row) for row in rows]

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(self._settings.relay_poll_seconds):
                await self._wakeup.wait()
        except TimeoutError:
            # Nobody need have told us.
            self._has_all = False
