"""The publisher: stories in their order, at a pace, and now and then what was published before once more."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from infra.kafka.connection import client_arguments
from infra.settings import Settings
from tests.campaign.load import Drafted, again, story

_CHUNK = 200


class Publisher:
    """Publishes to Kafka past the proxies, and sends again whatever Kafka hasn't acknowledged."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._settings = settings
        self._seed = seed
        self._producer: AIOKafkaProducer | None = None
        self._stories = 0
        self._turn = asyncio.Lock()
        self.published = 0

    async def run(self, per_second: float, events: int, stop: asyncio.Event) -> None:
        """Publish until `stop` and at least so many records; late is made up for."""
        begin, before = time.monotonic(), self.published
        while not stop.is_set() or self.published < events:
            due = before + (time.monotonic() - begin) * per_second if not stop.is_set() else events
            if self.published >= due:
                await asyncio.sleep(0.05)
                continue
            await self.publish_next(max(1, int(min(_CHUNK, due - self.published))))

    async def publish_next(self, count: int) -> None:
        """The next stories, of at least so many records."""
        end = self.published + count
        while self.published < end:
            chunk: list[Drafted] = []
            while len(chunk) < min(_CHUNK, end - self.published):
                chunk += story(self._seed, self._stories)
                self._stories += 1
            await self.publish(chunk)

    async def once_more(self, chance: random.Random, count: int) -> int:
        """Publish some of what was published again: as it was, or under another id, on any partition."""
        chunk = []
        for _ in range(count):
            for drafted in story(self._seed, chance.randrange(max(self._stories - 500, 0), max(self._stories, 1))):
                chunk.append(again(drafted, chance.choice([0, 1, 1, 2])))
        await self.publish(chunk, random.Random(chance.random()))
        return len(chunk)

    async def publish(self, chunk: Sequence[Drafted], anywhere: random.Random | None = None) -> None:
        async with self._turn:
            rest = list(chunk)
            while rest:
                rest = await self._try(rest, anywhere)
            self.published += len(chunk)

    async def _try(self, chunk: Sequence[Drafted], anywhere: random.Random | None) -> list[Drafted]:
        """What wasn't acknowledged."""
        try:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **client_arguments(self._settings), enable_idempotence=True, linger_ms=5, request_timeout_ms=8_000
                )
                await producer.start()
                self._producer = producer
            sending = [
                await self._producer.send(
                    self._settings.topic(each.topic),
                    each.value,
                    key=each.key,
                    partition=anywhere.randrange(self._settings.shards) if anywhere else None,
                    headers=[("campaign", b"%d" % each.name.pack())],
                )
                for each in chunk
            ]
            done = await asyncio.gather(*sending, return_exceptions=True)
        except (KafkaError, OSError):
            await self.close()
            await asyncio.sleep(0.3)
            return list(chunk)
        rest = [each for each, answer in zip(chunk, done, strict=True) if isinstance(answer, BaseException)]
        if rest:
            await self.close()
        return rest

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                async with asyncio.timeout(3):
                    await producer.stop()
            except (KafkaError, OSError):
                return
