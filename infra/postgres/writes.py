"""What a batch writes: many rows by COPY, statement after statement; few rows all in one statement.

A round trip costs more than the rows of one event do, and one statement can be the whole database transaction. Rows
that may be there already go by arrays or, where a connection writes many batches, by COPY into a temporary table first.
All ways the same rows are written, by the same constraints and triggers. Statements that share one see the same
snapshot: what must see another's rows flushes before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any
from zlib import crc32

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Rows = Sequence[Sequence[Any]]

TOGETHER_ROWS_MAX = 256
"""Of one table; with more, COPY is the faster way. Some eighty payments."""
ROWS_BY_VALUE = 4
"""Of each table; an array costs more than so many values do. What one event writes, mostly."""

Change = tuple[str, Sequence[Any]]
"""A statement and its parameters, which it has as {0}, {1}, …"""


class NeedsLockError(Exception):
    """What was decided ahead can't be written in one statement: it must be decided under its shard's lock."""


class TooManyRowsError(NeedsLockError):
    """They are more than go in one statement."""


class MovedError(NeedsLockError):
    """What it was decided on isn't so any more, or somebody else is about to change it; nothing was written."""


@dataclass(frozen=True, eq=False)
class Target:
    """A table, the columns of its rows with their types, and what is done with a row that is there already."""

    table: str
    columns: dict[str, str]
    conflict: str = ""

    @property
    def names(self) -> str:
        return ", ".join(f'"{name}"' for name in self.columns)

    def each(self, before: int, count: int, where: str) -> str:
        """Insert so many rows, a parameter a value, counted on from so many before."""
        width = len(self.columns)
        starts = range(before, before + count * width, width)
        rows = (
            ", ".join(f"${place}::{kind}" for place, kind in enumerate(self.columns.values(), start + 1))
            for start in starts
        )
        values = ", ".join(f"({row})" for row in rows)
        return self._insert(self.names, f"(VALUES {values})", where)

    def statement(self, before: int, where: str = "") -> str:
        """Insert rows given as an array a column, the parameters counted on from so many before."""
        places = enumerate(self.columns.values(), before + 1)
        arrays = ", ".join(f"${place}::{'text' if kind == 'text[]' else kind}[]" for place, kind in places)
        # An array of arrays would be taken apart down to its last element: it comes as text.
        columns = self.columns.items()
        chosen = ", ".join(f'n."{name}"{"::text[]" if kind == "text[]" else ""}' for name, kind in columns)
        return self._insert(chosen, f"unnest({arrays})", where)

    def _insert(self, chosen: str, rows: str, where: str) -> str:
        return (
            f"INSERT INTO {self.table} ({self.names}) SELECT {chosen} FROM {rows} AS n ({self.names})"
            f" {where} {self.conflict}"
        )

    @cached_property
    def stage(self) -> str:
        """The temporary table that its rows go by: one a session, empty after each database transaction."""
        return f"stage_{self.table}_{crc32(repr(self.columns).encode()):08x}"

    @cached_property
    def stage_made(self) -> str:
        columns = ", ".join(f'"{name}" {kind}' for name, kind in self.columns.items())
        return f"CREATE TEMPORARY TABLE IF NOT EXISTS {self.stage} ({columns}) ON COMMIT DELETE ROWS"

    @cached_property
    def unstaged(self) -> str:
        return f"INSERT INTO {self.table} ({self.names}) SELECT {self.names} FROM {self.stage} {self.conflict}"

    def arrays(self, rows: Rows) -> list[Sequence[Any]]:
        """The rows by column."""
        arrays: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place, kind in enumerate(self.columns.values()):
            if kind == "text[]":
                arrays[place] = [_array_text(texts) for texts in arrays[place]]
        return arrays


class Writes:
    """The writes of one database transaction, in order, kept until `flush`."""

    def __init__(self, connection: Connection, *, staged: bool = False, still: Change | None = None) -> None:
        """`staged`: many rows that may be there already go by a temporary table.

        `still`: a query that locks what the batch was decided on and has no row where that has changed. Nothing is
        locked before; all is then written in one statement, or none of it, and it is a database transaction by itself.
        """
        self._connection = connection
        self._still = still
        self._staged = staged
        self._stages: set[str] = set()
        self._waiting: dict[Target, list[Sequence[Any]]] = {}
        self._changes: list[Change] = []

    @property
    def ahead(self) -> bool:
        """Whether nothing is locked yet."""
        return self._still is not None

    @property
    def connection(self) -> Connection:
        """For what must be written or read by itself. Raises: NeedsLockError."""
        if self.ahead:
            raise NeedsLockError
        return self._connection

    def insert(self, target: Target, rows: Rows) -> None:
        """Insert these rows, each with all columns of the target, with those of the target that wait already."""
        if rows:
            self._waiting.setdefault(target, []).extend(rows)

    def change(self, text: str, values: Sequence[Any]) -> None:
        """Make this change, too, of other rows than those that wait. It has {still} after its conditions."""
        self._changes.append((text, values))

    async def flush(self, *last: Change) -> Any:
        """Write what waits, and make these changes with it; returns the one value that the last of them gives.

        They have {still} after their conditions, and RETURNING one column. Raises: NeedsLockError.
        """
        waiting, self._waiting = self._waiting, {}
        changes, self._changes = [*self._changes, *last], []
        many = max(map(len, waiting.values()), default=0) > TOGETHER_ROWS_MAX
        if self.ahead and many:
            raise TooManyRowsError
        if self.ahead and (waiting or changes) and not last:
            raise NeedsLockError
        if many:
            for target, rows in waiting.items():
                await self._alone(target, rows)
            waiting = {}
        return await self._together(waiting, changes)

    async def _alone(self, target: Target, rows: Rows) -> None:
        if not target.conflict:
            await self._copy(target.table, target, rows)
        elif not self._staged or len(rows) <= TOGETHER_ROWS_MAX:
            await self._connection.execute(target.statement(0), *target.arrays(rows))
        else:
            await self._by_stage(target, rows)

    async def _by_stage(self, target: Target, rows: Rows) -> None:
        clear = f"TRUNCATE {target.stage}" if target.stage in self._stages else target.stage_made
        self._stages.add(target.stage)
        await self._connection.execute(clear)
        await self._copy(target.stage, target, rows)
        await self._connection.execute(target.unstaged)

    async def _copy(self, table: str, target: Target, rows: Rows) -> None:
        await self._connection.copy_records_to_table(table, records=rows, columns=list(target.columns))

    async def _together(self, waiting: Mapping[Target, Rows], changes: Sequence[Change]) -> Any:
        if not waiting and not changes:
            return None
        few = max(map(len, waiting.values()), default=0) <= ROWS_BY_VALUE
        values: list[Any] = []
        for target, rows in waiting.items():
            values += chain.from_iterable(rows) if few else target.arrays(rows)
        for _, arguments in changes:
            values += arguments
        parts = tuple((target, len(rows) if few else None) for target, rows in waiting.items())
        shapes = tuple((change, len(arguments)) for change, arguments in changes)
        still = None
        if self._still is not None:
            query, arguments = self._still
            still = query, len(arguments)
            values += arguments
        return await self._connection.fetchval(_one_statement(parts, shapes, still), *values)


@lru_cache(maxsize=1024)
def _one_statement(
    targets: Sequence[tuple[Target, int | None]],
    changes: Sequence[tuple[str, int]],
    still: tuple[str, int] | None,
) -> str:
    """All of it, the parameters in this order; nothing where `still` has no row.

    `targets`: each with how many rows it gets one by one, None by arrays.
    An EXISTS that depends on nothing is answered before the first row is written, and so the lock is taken before.
    """
    parts: list[str] = []
    values = 0
    holds = "" if still is None else "EXISTS (SELECT FROM still)"
    where = holds and f"WHERE {holds}"
    for target, count in targets:
        insert = target.statement(values, where) if count is None else target.each(values, count, where)
        parts.append(f"part{len(parts)} AS ({insert})")
        values += len(target.columns) * (1 if count is None else count)
    for change, count in changes:
        parts.append(f"part{len(parts)} AS ({change.format(*_places(values, count), still=holds and f'AND {holds}')})")
        values += count
    answer = f"TABLE part{len(parts) - 1}" if changes and " RETURNING " in changes[-1][0] else "SELECT NULL"
    if still is not None:
        parts.insert(0, f"still AS MATERIALIZED ({still[0].format(*_places(values, still[1]))})")
    return f"WITH {', '.join(parts)} {answer}"


def _places(before: int, count: int) -> list[str]:
    return [f"${place}" for place in range(before + 1, before + 1 + count)]


def _array_text(texts: Sequence[str]) -> str:
    quoted = ('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
    return "{" + ",".join(quoted) + "}"
