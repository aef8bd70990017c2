"""Send events to the input topics: keyed by tenant, acknowledged by all replicas, each partition in the order given."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from infra.kafka.connection import client_arguments, quiet_aiokafka
from infra.kafka.partitioner import partition_of
from infra.kafka.topics import describe_topics
from infra.records import Headers
from infra.settings import Settings, SettingsError

IN_FLIGHT_MAX = 5_000
START_SECONDS_MAX = 15.0
REQUEST_BYTES_MAX = 3 * 1024 * 1024
_UNKNOWN_TOPIC = 3


class Message(NamedTuple):
    """One record to be. `topic` is the short name; `number` is the line it stands on."""

    number: int
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class NotSentError(Exception):
    """A record was not taken; the message says which, why, and how many were."""


async def publish(
    settings: Settings, messages: Iterable[Message], topics: Iterable[str], *, told: Callable[[int], None]
) -> Counter[str]:
    """Send messages and return how many went to each topic, by full name; `told` hears of every one acknowledged.

    `topics`: the short names of all that will be used. Raises: SettingsError, NotSentError.
    """
    sent: Counter[str] = Counter()
    async with _producer(settings, topics) as (producer, partitions):
        waiting: list[tuple[Message, asyncio.Future[object]]] = []
        for message in messages:
            topic = settings.topic(message.topic)
            partition = None if message.key is None else partition_of(message.key, partitions[topic])
            try:
                headers = list(message.headers)
                future = await producer.send(
                    topic, message.value, key=message.key, partition=partition, headers=headers
                )
            except KafkaError as error:
                raise _not_sent(message, error, sent) from error
            waiting.append((message, future))
            if len(waiting) >= IN_FLIGHT_MAX:
                await _settle(settings, waiting, sent, told)
        await _settle(settings, waiting, sent, told)
    return sent


async def _settle(
    settings: Settings,
    waiting: list[tuple[Message, asyncio.Future[object]]],
    sent: Counter[str],
    told: Callable[[int], None],
) -> None:
    first_fault: tuple[Message, BaseException] | None = None
    answers = await asyncio.gather(*(future for _, future in waiting), return_exceptions=True)
    for (message, _), answer in zip(waiting, answers, strict=True):
        if isinstance(answer, BaseException):
            first_fault = first_fault or (message, answer)
        else:
            sent[settings.topic(message.topic)] += 1
    told(len(waiting))
    waiting.clear()
    if first_fault is not None:
        raise _not_sent(*first_fault, sent) from first_fault[1]


def _not_sent(message: Message, error: BaseException, sent: Counter[str]) -> NotSentError:
    return NotSentError(
        f"line {message.number} was not sent ({error}); {sent.total()} lines were. Publishing them all again is "
        "harmless: the ledger applies each once"
    )


@asynccontextmanager
async def _producer(
    settings: Settings, topics: Iterable[str]
) -> AsyncIterator[tuple[AIOKafkaProducer, Mapping[str, int]]]:
    quiet_aiokafka(settings)
    producer = AIOKafkaProducer(
        **client_arguments(settings),
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_batch_size=256 * 1024,
        max_request_size=REQUEST_BYTES_MAX,
    )
    try:
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                partitions = await _partitions(settings, topics)
                await producer.start()
        except TimeoutError as error:
            raise _away(settings, f"no answer in {START_SECONDS_MAX:g} s") from error
        except (KafkaError, OSError) as error:
            raise _away(settings, str(error)) from error
        yield producer, partitions
    finally:
        await producer.stop()


async def _partitions(settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    states = await describe_topics(settings, [settings.topic(name) for name in topics])
    missing = sorted(name for name, state in states.items() if state.error_code == _UNKNOWN_TOPIC)
    if missing:
        raise SettingsError(
            f"there is no topic {', '.join(missing)}; start `ledgerstream run`, which makes it, or check "
            "LEDGER_TOPIC_PREFIX"
        )
    return {name: state.partitions for name, state in states.items()}


def _away(settings: Settings, why: str) -> SettingsError:
    return SettingsError(
        f"Kafka at {settings.kafka_bootstrap} can't be reached: {why}; check LEDGER_KAFKA_BOOTSTRAP and that it is up"
    )
