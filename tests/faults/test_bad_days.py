"""Servers away and settings wrong: patience and one clear line, or exit code 2 and the way out; never a traceback."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from infra import devstack
from infra.settings import Settings
from tests.fixtures.breakable import breakable, breakable_stack, data
from tests.fixtures.programs import running, start
from tests.fixtures.relay import books
from tests.fixtures.traffic import assert_each_ended_once, publish, traffic

__all__ = ["books", "breakable", "breakable_stack", "data"]


def with_url(settings: Settings, **parts: str) -> Settings:
    return replace(settings, database_url=urlsplit(settings.need_database_url())._replace(**parts).geturl())


@pytest.mark.parametrize("server", ["postgres", "kafka"])
async def test_a_server_that_is_away_at_the_start_is_waited_for(
    breakable: Settings, data: Path, tmp_path: Path, server: str
) -> None:
    stop = {"postgres": devstack.stop_postgres, "kafka": devstack.stop_kafka}[server]
    begin = {"postgres": devstack.start_postgres, "kafka": devstack.start_kafka}[server]
    await asyncio.to_thread(stop, data)
    program = await start(breakable, "run", tmp_path / "log")
    try:
        await program.said("can't be reached")
        await asyncio.to_thread(begin, data)
        await program.ready()
        sent = traffic(3, 10)
        await publish(breakable, sent)
        await assert_each_ended_once(breakable, sent)
        assert await program.stop() == 0
    finally:
        await program.kill()
    assert not [line for line in program.lines() if "Traceback" in line]
    assert len([line for line in program.lines() if "WARNING" in line]) <= 3


async def refused(settings: Settings, log: Path, **more: str) -> str:
    """The only line of a program that ends with exit code 2."""
    program = await start(settings, "run", log, **more)
    try:
        assert await program.ended() == 2, program.lines()
    finally:
        await program.kill()
    lines = [line for line in program.lines() if line]
    assert len(lines) == 1, lines
    return lines[0]


async def test_a_wrong_password_is_refused_with_the_way_out(settings: Settings, tmp_path: Path) -> None:
    place = urlsplit(settings.need_database_url())
    wrong = with_url(settings, netloc=f"{place.username}:wrong@{place.hostname}:{place.port}")
    assert "LEDGER_DATABASE_URL" in await refused(wrong, tmp_path / "log")


async def test_a_database_that_does_not_exist_is_refused_with_the_way_out(settings: Settings, tmp_path: Path) -> None:
    line = await refused(with_url(settings, path="/nowhere"), tmp_path / "log")
    assert "LEDGER_DATABASE_URL" in line
    assert "nowhere" in line


@pytest.mark.parametrize("url", ["mysql://x@127.0.0.1/x", "postgresql://x@127.0.0.1:port/x", "nonsense"])
async def test_a_url_that_makes_no_sense_is_refused_with_the_way_out(
    settings: Settings, tmp_path: Path, url: str
) -> None:
    assert "LEDGER_DATABASE_URL" in await refused(replace(settings, database_url=url), tmp_path / "log")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LEDGER_SHARD", "4"),
        ("LEDGER_BATCH_ROWS_MAX", "many"),
        ("LEDGER_KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("LEDGER_KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
    ],
)
async def test_a_wrong_setting_is_refused_by_its_name(
    settings: Settings, tmp_path: Path, variable: str, text: str
) -> None:
    assert variable in await refused(settings, tmp_path / "log", **{variable: text})


async def test_another_number_of_shards_is_refused_with_the_right_one(settings: Settings, tmp_path: Path) -> None:
    assert "set LEDGER_SHARDS=4" in await refused(replace(settings, shards=2), tmp_path / "log")


async def test_a_newer_schema_is_refused_by_every_role(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path
) -> None:
    await books.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "run the newer ledgerstream" in await refused(settings, tmp_path / "log")
    program = await start(settings, "worker", tmp_path / "worker.log")
    assert await program.ended() == 2
    assert "run the newer ledgerstream" in program.lines()[0]


async def test_an_old_schema_is_refused_by_a_role_that_does_not_migrate(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path
) -> None:
    await books.execute("UPDATE alembic_version SET version_num = '0000'")
    program = await start(settings, "worker", tmp_path / "log")
    assert await program.ended() == 2
    assert 'run "ledgerstream migrate"' in "".join(program.lines())
    assert len(program.lines()) == 1


async def test_an_empty_database_is_refused_by_a_role_that_does_not_migrate(
    empty_database_url: str, kafka_bootstrap: str, tmp_path: Path
) -> None:
    settings = Settings(database_url=empty_database_url, kafka_bootstrap=kafka_bootstrap)
    program = await start(settings, "worker", tmp_path / "log")
    assert await program.ended() == 2
    assert 'run "ledgerstream migrate"' in "".join(program.lines())


async def test_another_number_of_partitions_is_refused_with_the_way_out(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path
) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.create_partitions({settings.topic("payments"): NewPartitions(total_count=6)})
    await admin.close()
    async with asyncio.timeout(10):
        while (await partitions(settings)) != 6:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    line = await refused(settings, tmp_path / "log")
    assert "payments has 6 partitions" in line
    assert "with 4" in line


async def partitions(settings: Settings) -> int:
    from infra.kafka.topics import describe_topics

    topic = settings.topic("payments")
    return (await describe_topics(settings, [topic]))[topic].partitions


async def test_a_full_disk_is_waited_for_and_nothing_is_skipped(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path
) -> None:
    # What Postgres raises where a tablespace has no room: a real full disk takes a file system of its own.
    await books.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;"
        " CREATE TRIGGER full_disk BEFORE INSERT ON outbox EXECUTE FUNCTION full_disk()"
    )
    async with running(settings, "run", tmp_path / "log") as program:
        sent = traffic(5, 20)
        await publish(settings, sent)
        line = await program.said("53100")
        assert "a batch can't be committed" in line
        assert "trying again" in line
        assert await books.fetchval("SELECT count(*) FROM events") == 0
        await books.execute("DROP TRIGGER full_disk ON outbox")
        await program.said("fine again")
        await assert_each_ended_once(settings, sent)
    assert not [line for line in program.lines() if "Traceback" in line]
