"""How far the input topics reach, for who asks how much is still to be read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from infra.kafka.connection import client_arguments, quiet_aiokafka
from infra.kafka.topics import describe_topics
from infra.settings import Settings, SettingsError

SECONDS_MAX = 15.0


class Reach(NamedTuple):
    """The first offset that a partition still has, and the one after its last committed record."""

    beginning: int
    end: int


async def reaches(settings: Settings, topics: Iterable[str]) -> dict[tuple[str, int], Reach]:
    """The reach of each partition of those of these topics that exist, by full name and partition.

    Raises: SettingsError when Kafka can't be asked.
    """
    quiet_aiokafka(settings)
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return await _reaches(settings, topics)
    except TimeoutError as error:
        raise _away(settings, f"no answer in {SECONDS_MAX:g} s") from error
    except (KafkaError, OSError) as error:
        raise _away(settings, str(error)) from error


async def _reaches(settings: Settings, topics: Iterable[str]) -> dict[tuple[str, int], Reach]:
    states = await describe_topics(settings, topics)
    partitions = [TopicPartition(name, number) for name, state in states.items() for number in range(state.partitions)]
    if not partitions:
        return {}
    consumer = AIOKafkaConsumer(**client_arguments(settings), isolation_level="read_committed")
    await consumer.start()
    try:
        beginnings, ends = await asyncio.gather(
            consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        )
    finally:
        await consumer.stop()
    return {(place.topic, place.partition): Reach(beginnings[place], ends[place]) for place in partitions}


def _away(settings: Settings, why: str) -> SettingsError:
    return SettingsError(
        f"Kafka at {settings.kafka_bootstrap} can't be asked: {why}; check LEDGER_KAFKA_BOOTSTRAP and that it is up"
    )
