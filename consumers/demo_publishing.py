"""The demo's publisher: a story onto the real topics, stage by stage."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import orjson
from aiokafka import AIOKafkaProducer

from consumers.demo_scribe import ENTRY_ID, Record, Stage, Story
from domain.expiry import EXPIRY_TYPE
from infra.drained import NotDrainedError, Rest
from infra.kafka.connection import client_arguments, quiet_aiokafka
from infra.kafka.subscriber import committed
from infra.settings import Settings

# One of the story's records is larger than the ledger takes, on purpose.
_REQUEST_BYTES_MAX = 2 * 1024 * 1024
_EXPIRED_SECONDS_MAX = 30.0
_LOOK_SECONDS = 0.1


async def publish_story(
    settings: Settings,
    story: Story,
    *,
    begin: Callable[[Stage], Awaitable[None]],
    drained: Callable[[], Awaitable[Rest]],
    say: Callable[[str], None],
) -> Counter[str]:
    """Publish each stage once it may `begin`, and wait until it is `drained`; how many were acknowledged, by label.

    Raises: NotDrainedError, when the clock doesn't end in time what it must.
    """
    quiet_aiokafka(settings)
    acknowledged: Counter[str] = Counter()
    producer = AIOKafkaProducer(
        **client_arguments(settings),
        # In order within a partition, whatever is tried again.
        enable_idempotence=True,
        max_request_size=_REQUEST_BYTES_MAX,
    )
    await producer.start()
    expiries = 0
    try:
        for stage in story.stages:
            await begin(stage)
            say(f"{stage.name}: {len(stage.records)} record{'s' if stage.records[1:] else ''}")
            acknowledged += await _publish(settings, producer, stage)
            await drained()
            if stage.expiries > expiries:
                expiries = stage.expiries
                await _until_expired(settings, expiries)
    finally:
        await producer.stop()
    return acknowledged


async def _publish(settings: Settings, producer: AIOKafkaProducer, stage: Stage) -> Counter[str]:
    wanted = {record.entry_of for record in stage.records if record.entry_of is not None}
    entry_ids = await _entry_ids(settings, wanted) if wanted else {}
    sending = []
    for record in stage.records:
        value = _filled(record, entry_ids)
        topic = settings.topic(record.topic)
        sending.append(await producer.send(topic, value, key=record.key, headers=list(record.headers)))
    await asyncio.gather(*sending)
    return Counter(record.label for record in stage.records)


def _filled(record: Record, entry_ids: dict[str, str]) -> bytes | None:
    if record.entry_of is None or record.value is None:
        return record.value
    return record.value.replace(ENTRY_ID, entry_ids[record.entry_of].encode())


async def _until_expired(settings: Settings, wanted: int) -> None:
    """Return when the clock has ended so many holds and card payments, as any subscriber learns it."""
    deadline = time.monotonic() + _EXPIRED_SECONDS_MAX
    while (found := await _expired(settings)) < wanted:
        if time.monotonic() > deadline:
            raise NotDrainedError(
                f"after {_EXPIRED_SECONDS_MAX:g} s the clock has ended {found} of {wanted} holds and card payments"
            )
        await asyncio.sleep(_LOOK_SECONDS)


async def _expired(settings: Settings) -> int:
    heard = [orjson.loads(record.value)["data"] for record in await committed(settings, ["decisions", "outcomes"])]
    return sum(data.get("cause", data.get("event"))["type"] == EXPIRY_TYPE for data in heard)


async def _entry_ids(settings: Settings, idempotency_keys: set[str]) -> dict[str, str]:
    """The entries that commands with these keys made, learned as any publisher learns it: from the outcomes."""
    found: dict[str, str] = {}
    for record in await committed(settings, ["outcomes"]):
        data = orjson.loads(record.value)["data"]
        key, entry_id = data["event"].get("idempotency_key"), data.get("result", {}).get("entry_id")
        if key in idempotency_keys and entry_id is not None:
            found[key] = entry_id
    return found
