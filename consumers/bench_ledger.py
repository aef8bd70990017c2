"""A ledger to measure, on servers that may have others."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg

from infra.devstack import RunningStack
from infra.kafka.connection import wait_for_kafka
from infra.kafka.topics import ensure_topics
from infra.postgres.migrate import migrate
from infra.settings import Settings

WAL_FILES = 128
"""2 GB: more than either benchmark writes while it measures (some 10 MB a second beside 3,000 payments a second), and
little enough for no checkpoint of an embedded Postgres to begin in the midst of them."""


@asynccontextmanager
async def ledger_to_measure(stack: RunningStack, *, shards: int | None = None) -> AsyncIterator[Settings]:
    """A database and topics of their own on this stack, so that nobody's books are touched.

    `shards`: by default as many as LEDGER_SHARDS says.
    """
    name = f"bench_{secrets.token_hex(4)}"
    url = f"{stack.database_url.rsplit('/', 1)[0]}/{name}"
    settings = replace(Settings(), database_url=url, kafka_bootstrap=stack.kafka_bootstrap)
    settings = replace(settings, topic_prefix=f"{name}.", group_id=name, client_id=name)
    settings = replace(settings, shards=shards or settings.shards)
    await administer(stack, f"CREATE DATABASE {name}")
    try:
        await make_ledger(settings)
        yield settings
    finally:
        await administer(stack, f"DROP DATABASE {name} WITH (FORCE)")


async def reuse_wal(stack: RunningStack) -> None:
    """Let an embedded Postgres have files of WAL to write over, as one that has run for a while does.

    A new one makes each of them first, 16 MB of zeros: 60 to 80 milliseconds in which nobody commits. Beside 3,000
    payments a second that was each 1.7 seconds, and a p99 of 75 ms where it is 45 without.
    """
    if stack.kind != "embedded":
        return
    connection = await asyncpg.connect(stack.database_url)
    try:
        for _ in range(WAL_FILES):
            await connection.execute("SELECT pg_logical_emit_message(false, 'bench', ''), pg_switch_wal()")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def make_ledger(settings: Settings) -> None:
    """The schema and the topics of a ledger whose database is there and empty."""
    await wait_for_kafka(settings)
    await migrate(settings)
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        await ensure_topics(settings, connection)
    finally:
        await connection.close()


async def administer(stack: RunningStack, statement: str) -> None:
    """Say something to a stack's Postgres that no transaction may hold, `CREATE DATABASE` say."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
