"""Where reading goes on is what Postgres says, whatever Kafka says."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from infra.drained import until_drained
from infra.kafka.lag import reaches
from infra.settings import Settings
from schemas.topics import INPUT_TOPICS
from tests.fixtures.programs import Program, running, start
from tests.fixtures.relay import books
from tests.fixtures.traffic import assert_each_ended_once, payment, publish, traffic

__all__ = ["books"]

_READ = "SELECT coalesce(sum(next_offset), 0) FROM input_offsets"


async def admin_of(settings: Settings) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    return admin


async def commit_in_kafka(settings: Settings, stream: str, offset: int) -> None:
    """Somebody moves the group's offsets."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, group_id=settings.group(stream), enable_auto_commit=False
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(settings.topic(stream), number) for number in range(settings.shards)]
        consumer.assign(partitions)
        await consumer.commit(dict.fromkeys(partitions, offset))
    finally:
        await consumer.stop()


@pytest.mark.parametrize("offset", [0, 1_000_000])
async def test_offsets_that_are_reset_in_kafka_change_nothing(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path, offset: int
) -> None:
    first, more = traffic(1, 40), traffic(2, 40)
    async with running(settings, "run", tmp_path / "1.log"):
        await publish(settings, first)
        await until_drained(settings, seconds_max=90)
    await commit_in_kafka(settings, "payments", offset)
    await publish(settings, more)
    async with running(settings, "run", tmp_path / "2.log"):
        await assert_each_ended_once(settings, first + more)


@pytest.mark.shards(1)
async def test_markers_of_transactions_are_read_past_and_aborted_ones_are_nothing(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, transactional_id=settings.topic_prefix)
    await producer.start()
    async with running(settings, "run", tmp_path / "log"):
        for number in range(6):
            await producer.begin_transaction()
            await producer.send_and_wait(settings.topic("payments"), payment(number).value)
            await (producer.abort_transaction() if number % 2 else producer.commit_transaction())
        await producer.stop()
        await assert_each_ended_once(settings, [payment(number) for number in (0, 2, 4)])


@pytest.mark.shards(2)
async def test_a_database_behind_kafka_reads_again_what_it_lost(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path
) -> None:
    name = settings.need_database_url().rpartition("/")[2]
    first, lost = traffic(1, 20), traffic(2, 20)
    async with running(settings, "worker", tmp_path / "1.log"):
        await publish(settings, first)
        await all_read(settings, books)
    await books.close()
    admin = await asyncpg.connect(settings.asyncpg_dsn.rpartition("/")[0] + "/postgres")
    await admin.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
    async with running(settings, "worker", tmp_path / "2.log"):
        await publish(settings, lost)
        connection = await asyncpg.connect(settings.asyncpg_dsn)
        await all_read(settings, connection)
        await connection.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.execute(f"ALTER DATABASE {name}_copy RENAME TO {name}")
    await admin.close()
    async with running(settings, "run", tmp_path / "3.log"):
        await assert_each_ended_once(settings, first + lost)


async def all_read(settings: Settings, connection: asyncpg.Connection) -> None:
    wanted = await reaches(settings, [settings.topic(name) for name in INPUT_TOPICS])
    async with asyncio.timeout(30):
        while sum(reach.end for reach in wanted.values()) > await connection.fetchval(_READ):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.shards(1)
@pytest.mark.parametrize("when", ["stopped", "reading"])
async def test_records_that_kafka_deleted_unread_stop_their_partition_alone_with_the_way_out(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path, when: str
) -> None:
    place = TopicPartition(settings.topic("payments"), 0)
    admin = await admin_of(settings)
    async with running(settings, "run", tmp_path / "1.log") as program:
        await publish(settings, [payment(number) for number in range(5)])
        await until_drained(settings, seconds_max=90)
        if when == "reading":
            # What it is fetching is what comes first; the rest is gone before it asks.
            program.process.send_signal(signal.SIGSTOP)
            await publish(settings, [payment(5)])
            await lose_some(settings, admin, place)
            program.process.send_signal(signal.SIGCONT)
            await assert_refused(settings, program, books)
    if when == "stopped":
        await lose_some(settings, admin, place)
        program = await start(settings, "run", tmp_path / "2.log")
        try:
            await assert_refused(settings, program, books)
        finally:
            await program.kill()
    await admin.close()


async def lose_some(settings: Settings, admin: AIOKafkaAdminClient, place: TopicPartition) -> None:
    await publish(settings, [payment(number) for number in range(6, 20)])
    await admin.delete_records({place: RecordsToDelete(15)})


async def assert_refused(settings: Settings, program: Program, books: asyncpg.Connection) -> None:
    line = await program.said("are gone from Kafka and were never read")
    assert "docs/operating.md" in line
    # The other streams go on.
    before = await books.fetchval("SELECT count(*) FROM events")
    await publish(settings, [traffic(3, 1)[0]._replace(topic="transfers")])
    async with asyncio.timeout(20):
        while not await books.fetchval("SELECT count(*) FROM dead_letters"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await books.fetchval("SELECT count(*) FROM events") == before


@pytest.mark.shards(1)
@pytest.mark.parametrize("when", ["stopped", "reading"])
async def test_a_topic_made_again_is_read_from_its_beginning(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path, when: str
) -> None:
    first = [payment(number) for number in range(5)]
    again = [payment(number) for number in range(100, 120)]
    admin = await admin_of(settings)
    async with running(settings, "run", tmp_path / "1.log"):
        await publish(settings, first)
        await until_drained(settings, seconds_max=90)
        if when == "reading":
            await make_again(settings, admin)
            await publish(settings, again)
            await assert_each_ended_once(settings, first + again)
    if when == "stopped":
        await make_again(settings, admin)
        await publish(settings, again)
        async with running(settings, "run", tmp_path / "2.log"):
            await assert_each_ended_once(settings, first + again)
    await admin.close()


async def make_again(settings: Settings, admin: AIOKafkaAdminClient) -> None:
    name = settings.topic("payments")
    await admin.delete_topics([name])
    async with asyncio.timeout(20):
        while (await admin.create_topics([NewTopic(name, 1, 1)])).topic_errors[0][1]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
