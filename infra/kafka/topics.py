"""The topics of the contract on the broker: made when missing, their partition counts kept, their ids read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code

from infra.kafka.connection import client_arguments
from infra.kafka.requests import MetadataWithIds
from infra.patience import Patience
from infra.settings import Settings, SettingsError
from schemas.topics import TOPICS

REQUEST_SECONDS = 10.0

_NO_ERROR, _UNKNOWN_TOPIC, _NO_LEADER, _NOT_AUTHORIZED, _EXISTS = 0, 3, 5, 29, 36


@dataclass(frozen=True, slots=True)
class TopicState:
    """What the broker says of one topic; `error_code` is Kafka's."""

    error_code: int
    topic_id: UUID
    partitions: int


async def ensure_topics(
    settings: Settings, database: asyncpg.Connection | asyncpg.Pool, stop: asyncio.Event | None = None
) -> dict[str, int]:
    """Make the topics that are missing and return the partition count of each, by full name.

    Waits, and says once why, while Kafka is away or keeps a topic from us.
    Writes: topics, a row for each topic seen for the first time.
    Raises: SettingsError when a topic has another number of partitions than it had, or too few for its shards.
    """
    patience = Patience("the topics of the ledger")
    while True:
        counts, fault = await _try_topics(settings)
        if fault is None:
            patience.over()
            break
        await patience.wait(fault, stop)
        if stop is not None and stop.is_set():
            return {}
    await _keep_partition_counts(settings, database, counts)
    return counts


async def _try_topics(settings: Settings) -> tuple[dict[str, int], str | None]:
    names = [settings.topic(name) for name in TOPICS]
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            states = await describe_topics(settings, names)
            missing = [name for name, state in states.items() if state.error_code == _UNKNOWN_TOPIC]
            if missing:
                if fault := await _create(settings, missing):
                    return {}, fault
                states = await describe_topics(settings, names)
    except TimeoutError:
        return {}, f"no answer from {settings.kafka_bootstrap} in {REQUEST_SECONDS:g} s"
    except (OSError, KafkaError) as error:
        return {}, f"Kafka at {settings.kafka_bootstrap} can't be asked ({error})"
    for name, state in states.items():
        if state.error_code == _NOT_AUTHORIZED:
            return {}, f"Kafka keeps {name} from us; give this program the rights of README, Kafka's rights"
        if state.error_code != _NO_ERROR:
            return {}, f"{name} isn't ready ({for_code(state.error_code).__name__})"
    return {name: state.partitions for name, state in states.items()}, None


async def describe_topics(settings: Settings, names: Iterable[str]) -> dict[str, TopicState]:
    """What the broker says of these topics, by full name.

    Raises: KafkaError, OSError.
    """
    client = AIOKafkaClient(**client_arguments(settings), request_timeout_ms=int(REQUEST_SECONDS * 1000))
    try:
        await client.bootstrap()
        answer = await client.send(client.get_random_node(), MetadataWithIds(list(names)))
    finally:
        await client.close()
    return {
        topic: TopicState(_error_of(error_code, partitions), topic_id, len(partitions))
        for error_code, topic, topic_id, _, partitions, *_ in answer.topics
    }


def _error_of(error_code: int, partitions: list[tuple[int, ...]]) -> int:
    """A topic that was just made is there when each of its partitions has a leader."""
    if error_code == _NO_ERROR and any(partition[0] == _NO_LEADER for partition in partitions):
        return _NO_LEADER
    return error_code


async def topic_ids(settings: Settings, names: Iterable[str]) -> dict[str, UUID]:
    """The ids of those of these topics that exist, by full name. Raises: KafkaError, OSError."""
    states = await describe_topics(settings, names)
    return {name: state.topic_id for name, state in states.items() if state.error_code in (_NO_ERROR, _NO_LEADER)}


async def _create(settings: Settings, names: list[str]) -> str | None:
    """Make these topics; None, or why one of them couldn't be made."""
    configs = {settings.topic(name): dict(topic.config) for name, topic in TOPICS.items()}
    replication = settings.kafka_replication_factor
    wanted = [NewTopic(name, settings.shards, replication, topic_configs=configs[name]) for name in names]
    admin = AIOKafkaAdminClient(**client_arguments(settings), request_timeout_ms=int(REQUEST_SECONDS * 1000))
    try:
        await admin.start()
        answer = await admin.create_topics(wanted)
    finally:
        await admin.close()
    for name, error_code, message in answer.topic_errors:
        if error_code == _NOT_AUTHORIZED:
            return (
                f"Kafka doesn't let us make {name}; give this program the rights of README, Kafka's rights, or make it"
            )
        if error_code not in (_NO_ERROR, _EXISTS):
            return f"{name} can't be made ({message or for_code(error_code).__name__})"
    return None


async def _keep_partition_counts(
    settings: Settings, database: asyncpg.Connection | asyncpg.Pool, counts: Mapping[str, int]
) -> None:
    await database.execute(
        "INSERT INTO topics (topic, partitions) SELECT * FROM unnest($1::text[], $2::int[]) ON CONFLICT DO NOTHING",
        list(counts),
        list(counts.values()),
    )
    rows = await database.fetch("SELECT topic, partitions FROM topics WHERE topic = ANY ($1)", list(counts))
    for topic, partitions in rows:
        if counts[topic] != partitions:
            raise SettingsError(
                f"{topic} has {counts[topic]} partitions, but this ledger was made with {partitions}, and the order "
                f"of what is published hangs on it; make the topic again with {partitions} partitions, or set "
                "LEDGER_TOPIC_PREFIX and LEDGER_DATABASE_URL to a new ledger's"
            )
    seals = settings.topic("seals")
    if counts[seals] < settings.shards:
        raise SettingsError(
            f"{seals} has {counts[seals]} partitions for {settings.shards} shards, which need one each; "
            f"make the topic again with {settings.shards} partitions"
        )
