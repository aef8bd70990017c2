"""Deliberate defects, each of which a campaign must find: put into the running program, never into its source."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from infra.kafka import protocol_v2
from infra.kafka.producer import TransactionalProducer
from infra.kafka.protocol_v1 import ProtocolV1
from infra.kafka.protocols import Batches
from infra.kafka.reader import PartitionReader, Prepared
from infra.ledger import Ledger
from infra.postgres import load, save_journal


def plant(name: str) -> None:
    DEFECTS[name]()


def trust_kafkas_offsets() -> None:
    """Begin to read where Kafka's committed offset says."""
    find = PartitionReader._find_position

    async def find_in_kafka(self: PartitionReader) -> None:
        committed = await self._consumer.committed(self.partition)
        await find(self)
        # Nothing is awaited in between, so nothing was fetched yet.
        if committed is not None:
            self.next_offset = committed
            self._consumer.seek(self.partition, committed)

    PartitionReader._find_position = find_in_kafka  # type: ignore[method-assign]


def commit_offsets_first() -> None:
    """Commit a batch's offset to Kafka, and begin there after a restart, before the database has it."""
    trust_kafkas_offsets()
    apply = PartitionReader._apply

    async def apply_after(self: PartitionReader, prepared: Prepared) -> None:
        await self._consumer.commit({self.partition: prepared.next_offset})
        await apply(self, prepared)

    PartitionReader._apply = apply_after  # type: ignore[method-assign]


def publish_outside_the_transaction() -> None:
    """Outputs in a transaction of their own, and then the seal that is the cursor."""
    publish = TransactionalProducer.publish

    async def publish_apart(self: TransactionalProducer, batches: Batches) -> None:
        outputs = {place: queue for place, queue in batches.items() if not place[0].endswith("seals")}
        await publish(self, outputs)
        await self.next_epoch()
        await publish(self, {place: queue for place, queue in batches.items() if place not in outputs})

    TransactionalProducer.publish = publish_apart  # type: ignore[method-assign]


def skip_the_key_check() -> None:
    """Nobody looks whether an event is known."""
    look = load.look_first

    async def look_past_the_keys(*arguments: Any, **named: Any) -> load.FirstLook:
        return replace(await look(*arguments, **named), claims=())

    async def load_none(*_arguments: Any, **_named: Any) -> None:
        return None

    load.look_first = look_past_the_keys
    load.load_claims = load_none
    # The database would refuse a key that is there already, and with it the whole batch.
    save_journal._KEYS = replace(save_journal._KEYS, conflict="ON CONFLICT DO NOTHING")


def drop_the_fencing() -> None:
    """Each relay has a transactional id of its own, so that none fences another."""
    begin = TransactionalProducer.__init__

    def with_own_id(self: TransactionalProducer, settings: Any, transactional_id: str) -> None:
        begin(self, settings, f"{transactional_id}.{secrets.token_hex(4)}")

    TransactionalProducer.__init__ = with_own_id  # type: ignore[method-assign]


def drop_the_epochs() -> None:
    """All transactions of a producer under one epoch, as the older protocol lets them be."""

    async def is_not(*_arguments: Any) -> bool:
        return False

    async def stay(_self: ProtocolV1) -> None:
        return None

    protocol_v2.is_spoken = is_not
    ProtocolV1.next_epoch = stay  # type: ignore[method-assign]


def adopt_the_cache_early() -> None:
    """What is in memory counts as true before the commit was acknowledged, and stays after it failed."""
    transact = Ledger._in_transaction

    async def transact_and_keep(self: Ledger, shard: int, *arguments: Any, **named: Any) -> Any:
        memory = self._memories.get(shard)
        try:
            return await transact(self, shard, *arguments, **named)
        except Exception:
            if memory is not None:
                self._memories[shard] = memory
            raise

    Ledger._in_transaction = transact_and_keep  # type: ignore[method-assign]


DEFECTS: dict[str, Callable[[], None]] = {
    "trust-kafka": trust_kafkas_offsets,
    "offsets-first": commit_offsets_first,
    "publish-outside": publish_outside_the_transaction,
    "no-keys": skip_the_key_check,
    "no-fencing": drop_the_fencing,
    "one-epoch": drop_the_epochs,
    "early-cache": adopt_the_cache_early,
}
__all__ = ["DEFECTS", "plant"]
