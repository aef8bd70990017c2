"""What may happen to the consumer groups: offsets moved or deleted, dead members taken out."""

# Looking again: nothing here waits for anybody.
# ruff: noqa: ASYNC110

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.protocol.group import LeaveGroupRequest

from infra.settings import Settings
from schemas.topics import READ_TOPICS

_NO_SUCH_GROUP = 69
_AGAIN_SECONDS = 0.2


async def forget_members(settings: Settings) -> None:
    """Take out whoever is in the groups: the dead, before their sessions have timed out."""
    async with _admin(settings) as admin:
        for group in _groups(settings):
            node = await _coordinator(admin, group)
            # One at a time: aiokafka can't read the answer about several.
            for answer in await admin.describe_consumer_groups([group], node):
                for _, _, _, _, _, members in answer.groups:
                    for member_id, *_ in members:
                        await admin._send_request(LeaveGroupRequest(group, member_id), node)


async def _coordinator(admin: AIOKafkaAdminClient, group: str) -> int:
    """On a new broker the first to ask has its topic made, and is told to come back."""
    while True:
        try:
            return int(await admin.find_coordinator(group))
        except KafkaError:
            await asyncio.sleep(_AGAIN_SECONDS)


async def delete_offsets(settings: Settings) -> None:
    """Delete the groups with all they have committed."""
    await forget_members(settings)
    groups = _groups(settings)
    async with _admin(settings) as admin:
        while groups:
            answer = await admin._send_request(DeleteGroupsRequest(groups))
            # Refused while a group still has members.
            groups = [group for group, error in answer.results if error not in (0, _NO_SUCH_GROUP)]
            await asyncio.sleep(_AGAIN_SECONDS if groups else 0)


async def move_offsets(settings: Settings, *, to_end: bool) -> None:
    """Commit the end of every input topic, or its beginning, as what its group has read."""
    await forget_members(settings)
    for stream in READ_TOPICS:
        while not await _moved(settings, stream, to_end):
            await asyncio.sleep(_AGAIN_SECONDS)


async def _moved(settings: Settings, stream: str, to_end: bool) -> bool:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, group_id=settings.group(stream), enable_auto_commit=False
    )
    await consumer.start()
    try:
        places = [TopicPartition(settings.topic(stream), number) for number in range(settings.shards)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        await consumer.commit({place: ends[place] if to_end else 0 for place in places})
    except KafkaError:
        # The group has members yet.
        return False
    else:
        return True
    finally:
        await consumer.stop()


def _groups(settings: Settings) -> list[str]:
    return [settings.group(stream) for stream in READ_TOPICS]


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()
