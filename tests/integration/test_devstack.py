"""The embedded stack."""

from __future__ import annotations

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient, NewTopic


async def test_each_test_gets_a_migrated_database_of_its_own(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM shards") == 4
    finally:
        await connection.close()


async def test_topics_of_a_test_are_there_while_it_runs(kafka_bootstrap: str, topic_prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(f"{topic_prefix}payments", num_partitions=4, replication_factor=1)])
        assert f"{topic_prefix}payments" in await admin.list_topics()
    finally:
        await admin.close()
