"""A network in which the end of each transaction is delivered once more, in the middle of the next one."""

# Small files of the campaign's own, and looking again: nothing here waits for anybody.
# ruff: noqa: ASYNC110, ASYNC240

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.transaction import EndTxnRequest

from infra.kafka.producer import Batches, TransactionalProducer

log = logging.getLogger(__name__)
_COMMIT = 1


def install(switch: Path) -> None:
    """While the file `switch` is there, seals wait until the outputs are delivered and a late EndTxn came."""
    publish, send = TransactionalProducer.publish, TransactionalProducer._send
    before: dict[TransactionalProducer, tuple[int, int]] = {}
    left: dict[TransactionalProducer, int] = {}

    async def publish_and_note(self: TransactionalProducer, batches: Batches) -> None:
        left[self] = sum(not topic.endswith("seals") for topic, _ in batches)
        used = self.epoch
        try:
            await publish(self, batches)
        finally:
            before[self] = used

    async def send_late(self: TransactionalProducer, place: tuple[str, int], queue: Sequence[Any]) -> None:
        if not place[0].endswith("seals"):
            await send(self, place, queue)
            left[self] -= 1
            return
        if switch.exists() and self in before:
            while left[self]:
                await asyncio.sleep(0.001)
            await _end_again(self, before[self])
        await send(self, place, queue)

    TransactionalProducer.publish = publish_and_note  # type: ignore[method-assign]
    TransactionalProducer._send = send_late  # type: ignore[method-assign]


async def _end_again(producer: TransactionalProducer, used: tuple[int, int]) -> None:
    inner = producer._producer
    node = await inner._sender._find_coordinator(CoordinationType.TRANSACTION, producer.transactional_id)
    late = EndTxnRequest(producer.transactional_id, *used, _COMMIT)
    answer = await inner.client.send(node, late, group=ConnectionGroup.COORDINATION)
    log.info("campaign: a late EndTxn was answered %s", answer.error_code)
