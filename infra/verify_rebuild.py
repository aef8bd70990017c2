"""Prove every row: the ledger is built again from its journal in a scratch database, and the two are compared."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.digest import compared_columns, table_digests
from infra.journal import JournalDifferenceError
from infra.postgres.load import ReadCommand
from infra.postgres.reading import reading
from infra.postgres.verify import FAULTS_SHOWN, Check, check_of
from infra.rebuild import prepare
from infra.rebuild_shard import rebuild_shard, rules_of, target_of
from infra.settings import Settings, SettingsError

_PROMISE = "Built again from its journal, the ledger has the same rows, each with the same values."
_WENT_ON = "not checked: the ledger went on meanwhile; run it again while no worker runs"
ROW_SHOWN = 300
"""How many characters of a row that only one of the two has are shown."""

_KEY = """
SELECT a.attname
FROM pg_index i
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
WHERE i.indrelid = CAST(:table AS regclass)
  AND i.indisprimary
ORDER BY array_position(i.indkey::smallint[], a.attnum)
"""


async def rebuild_check(settings: Settings, read_command: ReadCommand) -> Check:
    """Build the ledger again beside itself and name the rows that differ; takes as much room as the ledger.

    Raises: SettingsError where no scratch database can be made.
    """
    async with _scratch(settings) as into:
        return check_of("journal_rebuilt", await rebuild_faults(settings, into, read_command), _PROMISE)


async def rebuild_faults(settings: Settings, into: str, read_command: ReadCommand) -> list[str]:
    """Build the ledger again in an empty database, and name the rows that differ."""
    plan = await prepare(settings, into)
    faults = []
    for shard in sorted(plan.until):
        try:
            await rebuild_shard(settings, into, plan, rules_of(settings, plan), read_command, shard)
        except JournalDifferenceError as difference:
            faults.append(str(difference))
    if faults:
        return faults
    async with reading(settings) as ledger, reading(target_of(settings, into)) as rebuilt:
        shards = await ledger.execute(text("SELECT shard, next_seq FROM shards"))
        if {row.shard: row.next_seq for row in shards} != dict(plan.until):
            return [_WENT_ON]
        return await differing_rows(ledger, rebuilt)


async def differing_rows(ledger: AsyncConnection, rebuilt: AsyncConnection) -> list[str]:
    """What differs between a ledger and what its journal gives, a line for each row; of a table not more than some."""
    theirs = {row["table"]: row["digest"] async for row in table_digests(rebuilt)}
    faults: list[str] = []
    async for row in table_digests(ledger):
        if row["digest"] != theirs.get(row["table"]):
            faults += await rows_of(ledger, rebuilt, row["table"])
    return faults


async def rows_of(ledger: AsyncConnection, rebuilt: AsyncConnection, table: str) -> list[str]:
    """The rows of one table that differ."""
    columns = (await compared_columns(ledger))[table]
    key = list(await ledger.scalars(text(_KEY), {"table": table}))
    ours, theirs = [await _hashes(each, table, key, columns) for each in (ledger, rebuilt)]
    differing = sorted(place for place in ours.keys() | theirs.keys() if ours.get(place) != theirs.get(place))
    faults = []
    for place in differing[: FAULTS_SHOWN * 2]:
        name = f"{table} ({', '.join(f'{part} {value}' for part, value in zip(key, place, strict=True))})"
        if place not in ours or place not in theirs:
            found = await _row(rebuilt if place in theirs else ledger, table, key, place, columns)
            told = ", ".join(f"{column} {value!r}" for column, value in zip(columns, found, strict=True) if value)
            where = "what the journal gives" if place in theirs else "in the table"
            faults.append(f"{name} is only {where}: {told[:ROW_SHOWN]}")
            continue
        here, there = [await _row(each, table, key, place, columns) for each in (ledger, rebuilt)]
        values = [
            f"{column} {mine!r}, the journal gives {other!r}"
            for column, mine, other in zip(columns, here, there, strict=True)
            if mine != other
        ]
        faults.append(f"{name} has {'; '.join(values)}")
    return faults + [f"{table}: another row differs"] * max(0, len(differing) - len(faults))


async def _hashes(
    connection: AsyncConnection, table: str, key: list[str], columns: list[str]
) -> dict[tuple[str, ...], bytes]:
    named = ", ".join(f'"{part}"::text' for part in key)
    row = ", ".join(f'"{column}"' for column in columns)
    found = await connection.execute(
        text(f"SELECT sha256(convert_to(ROW({row})::text, 'UTF8')), {named} FROM \"{table}\"")
    )
    return {tuple(place): bytes(digest) for digest, *place in found}


async def _row(
    connection: AsyncConnection, table: str, key: list[str], place: tuple[str, ...], columns: list[str]
) -> list[str | None]:
    chosen = " AND ".join(f'"{part}"::text = :k{number}' for number, part in enumerate(key))
    told = ", ".join(f'"{column}"::text' for column in columns)
    found = await connection.execute(
        text(f'SELECT {told} FROM "{table}" WHERE {chosen}'),
        {f"k{number}": value for number, value in enumerate(place)},
    )
    return list(found.one())


@asynccontextmanager
async def _scratch(settings: Settings) -> AsyncIterator[str]:
    """The address of an empty database beside the ledger's, gone afterwards."""
    name = f"ledgerstream_scratch_{secrets.token_hex(6)}"
    source = await asyncpg.connect(settings.asyncpg_dsn, timeout=10)
    try:
        try:
            await source.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        except asyncpg.InsufficientPrivilegeError as fault:
            raise SettingsError(
                "--rebuild needs a scratch database, and the user of LEDGER_DATABASE_URL may not make one; "
                "ALTER ROLE … CREATEDB, or name a user who may"
            ) from fault
        try:
            yield urlsplit(settings.need_database_url())._replace(path=f"/{name}").geturl()
        finally:
            await source.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await source.close()
