"""Bring a database to the newest schema, and refuse one that this program doesn't fit."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from infra.postgres.partitions import make_partitions
from infra.postgres.reading import sqlalchemy_url as sqlalchemy_url
from infra.settings import Settings, SettingsError

_SCRIPTS = Path(__file__).parent / "migrations"
GENESIS_HEAD = bytes(32)


async def migrate(settings: Settings) -> None:
    """Make or upgrade the schema, its shards and its first partitions; harmless when all is there.

    Raises: SettingsError when the database is newer than this program, or was made with another number of shards.
    """
    engine = create_async_engine(sqlalchemy_url(settings), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_refuse_newer_schema)
            await connection.run_sync(_upgrade)
            await _found_ledger(connection, settings.shards)
            await make_partitions(connection, settings.partition_rows)
    finally:
        await engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "os")
    return config


def newest_revision() -> str:
    """The revision that this program was written for."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def _refuse_newer_schema(connection: Connection) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if current is not None and current not in known:
        raise SettingsError(
            f"the database's schema is {current}, newer than this program knows ({newest_revision()}); "
            "run the newer ledgerstream, or point LEDGER_DATABASE_URL at another database"
        )


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def _found_ledger(connection: AsyncConnection, shards: int) -> None:
    await connection.execute(text("INSERT INTO ledger (shards) VALUES (:n) ON CONFLICT DO NOTHING"), {"n": shards})
    made_with = (await connection.execute(text("SELECT shards FROM ledger"))).scalar_one()
    if made_with != shards:
        raise SettingsError(
            f"LEDGER_SHARDS is {shards}, but this database was made with {made_with} shards, which never changes; "
            f"set LEDGER_SHARDS={made_with}"
        )
    await connection.execute(
        text(
            "INSERT INTO shards (shard, head_hash)"
            " SELECT n, :head FROM generate_series(0, :last) n ON CONFLICT DO NOTHING"
        ),
        {"head": GENESIS_HEAD, "last": shards - 1},
    )
