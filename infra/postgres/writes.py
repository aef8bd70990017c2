"""What a batch writes: many rows by COPY, statement after statement; few rows all in one statement.

A round trip costs more than the rows of one event do. Rows that may be there already go by arrays, or, where a
connection writes many batches, by COPY into a temporary table first. All ways the same rows are written, by the same
constraints and triggers. Statements that share one see the same snapshot: what must see another's rows flushes before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any
from zlib import crc32

import asyncpg

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Rows = Sequence[Sequence[Any]]

TOGETHER_ROWS_MAX = 256
"""Of one table; with more, COPY is the faster way. Some eighty payments."""


@dataclass(frozen=True, eq=False)
class Target:
    """A table, the columns of its rows with their types, and what is done with a row that is there already."""

    table: str
    columns: dict[str, str]
    conflict: str = ""

    @property
    def names(self) -> str:
        return ", ".join(f'"{name}"' for name in self.columns)

    def statement(self, before: int) -> str:
        """Insert rows given as an array a column, the parameters counted on from so many before."""
        places = enumerate(self.columns.values(), before + 1)
        arrays = ", ".join(f"${place}::{'text' if kind == 'text[]' else kind}[]" for place, kind in places)
        # An array of arrays would be taken apart down to its last element: it comes as text.
        columns = self.columns.items()
        chosen = ", ".join(f'n."{name}"{"::text[]" if kind == "text[]" else ""}' for name, kind in columns)
        return (
            f"INSERT INTO {self.table} ({self.names}) SELECT {chosen} FROM unnest({arrays}) AS n ({self.names})"
            f" {self.conflict}"
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

    def __init__(self, connection: Connection, *, staged: bool = False) -> None:
        """`staged`: many rows that may be there already go by a temporary table."""
        self.connection = connection
        self._staged = staged
        self._stages: set[str] = set()
        self._waiting: dict[Target, list[Sequence[Any]]] = {}

    def insert(self, target: Target, rows: Rows) -> None:
        """Insert these rows, each with all columns of the target, with those of the target that wait already."""
        if rows:
            self._waiting.setdefault(target, []).extend(rows)

    async def flush(self, *changes: tuple[str, Sequence[Any]]) -> Any:
        """Write what waits, and make these changes with it; returns the one value that the last of them gives.

        A change has its parameters as {0}, {1}, …, and RETURNING one column.
        """
        waiting, self._waiting = self._waiting, {}
        if max(map(len, waiting.values()), default=0) > TOGETHER_ROWS_MAX:
            for target, rows in waiting.items():
                await self._alone(target, rows)
            waiting = {}
        return await self._together(waiting, changes)

    async def _alone(self, target: Target, rows: Rows) -> None:
        if not target.conflict:
            await self._copy(target.table, target, rows)
        elif not self._staged or len(rows) <= TOGETHER_ROWS_MAX:
            await self.connection.execute(target.statement(0), *target.arrays(rows))
        else:
            await self._by_stage(target, rows)

    async def _by_stage(self, target: Target, rows: Rows) -> None:
        clear = f"TRUNCATE {target.stage}" if target.stage in self._stages else target.stage_made
        self._stages.add(target.stage)
        await self.connection.execute(clear)
        await self._copy(target.stage, target, rows)
        await self.connection.execute(target.unstaged)

    async def _copy(self, table: str, target: Target, rows: Rows) -> None:
        await self.connection.copy_records_to_table(table, records=rows, columns=list(target.columns))

    async def _together(self, waiting: Mapping[Target, Rows], changes: Sequence[tuple[str, Sequence[Any]]]) -> Any:
        if not waiting and not changes:
            return None
        values = [array for target, rows in waiting.items() for array in target.arrays(rows)]
        for _, arguments in changes:
            values += arguments
        text = _one_statement(tuple(waiting), tuple((change, len(arguments)) for change, arguments in changes))
        return await self.connection.fetchval(text, *values)


@lru_cache(maxsize=512)
def _one_statement(targets: Sequence[Target], changes: Sequence[tuple[str, int]]) -> str:
    parts: list[str] = []
    values = 0
    for target in targets:
        parts.append(f"part{len(parts)} AS ({target.statement(values)})")
        values += len(target.columns)
    for change, count in changes:
        places = [f"${place}" for place in range(values + 1, values + 1 + count)]
        parts.append(f"part{len(parts)} AS ({change.format(*places)})")
        values += count
    answer = f"TABLE part{len(parts) - 1}" if changes else "SELECT NULL"
    return f"WITH {', '.join(parts)} {answer}"


def _array_text(texts: Sequence[str]) -> str:
    quoted = ('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
    return "{" + ",".join(quoted) + "}"
