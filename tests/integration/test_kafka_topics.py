"""The topics of the contract: made when missing, with their settings; a change of partitions is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.kafka.topics import describe_topics, ensure_topics, topic_ids
from infra.settings import Settings, SettingsError
from schemas.topics import TOPICS


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await client.start()
    yield client
    await client.close()


async def exists_again(settings: Settings, topic: str, partitions: int) -> None:
    """Return when the broker shows the topic with so many partitions."""
    async with asyncio.timeout(15):
        while True:
            state = (await describe_topics(settings, [topic]))[topic]
            if (state.error_code, state.partitions) == (0, partitions):
                return
            await asyncio.sleep(0.02)


async def gone(settings: Settings, topic: str) -> None:
    async with asyncio.timeout(15):
        while True:
            if not await topic_ids(settings, [topic]):
                return
            await asyncio.sleep(0.02)


@pytest.mark.shards(3)
async def test_missing_topics_are_made_with_a_partition_a_shard(
    database: asyncpg.Connection, settings: Settings
) -> None:
    expected = {settings.topic(name): 3 for name in TOPICS}
    assert await ensure_topics(settings, database) == expected
    assert dict(await database.fetch("SELECT topic, partitions FROM topics")) == expected
    states = await describe_topics(settings, expected)
    assert {name: state.partitions for name, state in states.items()} == expected


async def test_topics_have_the_settings_of_the_contract(
    database: asyncpg.Connection, settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    await ensure_topics(settings, database)
    resources = [ConfigResource(ConfigResourceType.TOPIC, settings.topic(name)) for name in TOPICS]
    [answer] = await admin.describe_configs(resources)
    for _, _, _, name, entries in answer.resources:
        config = {option: value for option, value, *_ in entries}
        wanted = TOPICS[name.removeprefix(settings.topic_prefix)].config
        assert {option: config[option] for option in wanted} == dict(wanted)


async def test_a_topic_that_is_there_is_taken_as_it_is(
    database: asyncpg.Connection, settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    entries = settings.topic("entries")
    await admin.create_topics([NewTopic(entries, 6, 1)])
    await exists_again(settings, entries, 6)
    before = await topic_ids(settings, [entries])
    assert (await ensure_topics(settings, database))[entries] == 6
    assert await topic_ids(settings, [entries]) == before


async def test_another_number_of_partitions_than_before_is_refused(
    database: asyncpg.Connection, settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    await ensure_topics(settings, database)
    balances = settings.topic("balances")
    await admin.create_partitions({balances: NewPartitions(total_count=5)})
    await exists_again(settings, balances, 5)
    with pytest.raises(
        SettingsError, match=rf"{balances} has 5 partitions, but this ledger was made with 4"
    ) as refused:
        await ensure_topics(settings, database)
    assert "make the topic again with 4 partitions" in str(refused.value)


async def test_seals_with_fewer_partitions_than_shards_are_refused(
    database: asyncpg.Connection, settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    seals = settings.topic("seals")
    await admin.create_topics([NewTopic(seals, 2, 1)])
    await exists_again(settings, seals, 2)
    with pytest.raises(SettingsError, match="has 2 partitions for 4 shards"):
        await ensure_topics(settings, database)


async def test_a_topic_made_again_has_another_id(
    database: asyncpg.Connection, settings: Settings, admin: AIOKafkaAdminClient
) -> None:
    await ensure_topics(settings, database)
    payments = settings.topic("payments")
    before = await topic_ids(settings, [payments])
    assert await topic_ids(settings, [payments]) == before
    await admin.delete_topics([payments])
    await gone(settings, payments)
    await ensure_topics(settings, database)
    after = await topic_ids(settings, [payments])
    assert after.keys() == before.keys() == {payments}
    assert after != before


async def test_a_topic_that_does_not_exist_has_no_id(settings: Settings) -> None:
    assert await topic_ids(settings, [settings.topic("nothing")]) == {}
    assert await topic_ids(settings, [settings.topic("nothing")]) == {}, "asking doesn't make it"


async def test_what_cannot_be_made_is_said_once_and_waited_for(
    database: asyncpg.Connection, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()
    waiting = asyncio.create_task(ensure_topics(replace(settings, kafka_replication_factor=3), database, stop))
    async with asyncio.timeout(15):
        while True:
            if any("can't be made" in record.getMessage() for record in caplog.records):
                break
            await asyncio.sleep(0.01)
    stop.set()
    assert await waiting == {}
    assert len([record for record in caplog.records if "can't be made" in record.getMessage()]) == 1
