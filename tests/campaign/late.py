"""A network in which the end of each transaction is delivered once more, in the middle of the next one."""

# Small files of the campaign's own, and looking again: nothing here waits for anybody.
# ruff: noqa: ASYNC240

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from aiokafka.protocol.transaction import EndTxnRequest

from infra.kafka.protocol_v1 import ProtocolV1
from infra.kafka.protocol_v2 import ProtocolV2
from infra.kafka.protocols import Batches, ask_coordinator
from infra.kafka.requests_transactions import EndTxn

log = logging.getLogger(__name__)
_COMMIT = 1


def install(switch: Path) -> None:
    """While the file `switch` is there, seals wait until the outputs are delivered and a late EndTxn came."""
    for protocol in (ProtocolV1, ProtocolV2):
        _install(protocol, switch)


def _install(protocol: Any, switch: Path) -> None:
    deliver, commit = protocol.deliver, protocol.commit
    before: dict[Any, tuple[int, int]] = {}

    async def deliver_late(self: Any, batches: Batches) -> None:
        seals = {place: queue for place, queue in batches.items() if place[0].endswith("seals")}
        await deliver(self, {place: queue for place, queue in batches.items() if place not in seals})
        if switch.exists() and self in before:
            await _end_again(self._producer, self._transactional_id, protocol, before[self])
        await deliver(self, seals)

    async def commit_and_note(self: Any) -> None:
        manager = self._producer._txn_manager
        used = manager.producer_id, manager.producer_epoch
        try:
            await commit(self)
        finally:
            before[self] = used

    protocol.deliver, protocol.commit = deliver_late, commit_and_note


async def _end_again(producer: Any, transactional_id: str, protocol: Any, used: tuple[int, int]) -> None:
    older, newer = EndTxnRequest(transactional_id, *used, _COMMIT), EndTxn(transactional_id, *used, commit=True)
    late = older if protocol is ProtocolV1 else newer
    answer = await ask_coordinator(producer, transactional_id, late)
    log.info("campaign: a late EndTxn was answered %s", answer.error_code)
