"""Outbox rows made into ready batches: what one Kafka transaction publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import zstandard
from aiokafka.producer.message_accumulator import BatchBuilder

from infra.kafka.producer import COMPRESSION, new_batch
from infra.kafka.protocols import TopicPartition
from infra.kafka.seals import SEAL_TYPE, Seal, encode_seal
from infra.outbox import DEAD_LETTER, TOPICS, TYPES, Header, OutboxRow, Output, unpack
from infra.settings import Settings

# The event loop gets its turn after so many outputs: about a millisecond.
OUTPUTS_A_TURN = 512
# Of values and keys, before compression: what a transaction holds in memory, and less than a broker's largest request.
TRANSACTION_BYTES_MAX = 32 * 1024 * 1024
# So few are as small plain, and cost the broker, that unpacks what it checks, and each subscriber less.
PLAIN_OUTPUTS_MAX = 8

_CONTENT_TYPE: Header = ("content-type", b"application/cloudevents+json")
_TYPE_HEADERS: tuple[Header, ...] = tuple(("ce_type", name.encode()) for name in TYPES)


class ShardStoppedError(Exception):
    """The stream and the books of a shard don't fit together; says how, and the way out."""


@dataclass(slots=True)
class Transaction:
    """The batches of one Kafka transaction, filled row by row, and what its seal will say."""

    settings: Settings
    shard: int
    seq_first: int
    epoch: int
    batches: dict[TopicPartition, list[BatchBuilder]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    bytes_packed: int = 0
    last: OutboxRow | None = None
    _compression: str | None = None

    @property
    def seq_last(self) -> int:
        assert self.last is not None
        return self.last.seq_last

    def takes(self, row: OutboxRow) -> bool:
        """Whether this row may go into the same transaction: one epoch, and neither too many nor too large."""
        return self.last is None or (
            row.epoch == self.epoch
            and self.bytes_packed < TRANSACTION_BYTES_MAX
            and row.seq_last - self.seq_first < self.settings.relay_transaction_rows_max
        )

    async def add(self, row: OutboxRow) -> None:
        """Append the row's outputs to their batches, in order. Raises: ShardStoppedError when the row is damaged."""
        seq = row.seq_first
        self._compression = None if row.seq_last - row.seq_first < PLAIN_OUTPUTS_MAX else COMPRESSION
        for outputs in _in_turns(self.shard, row):
            seq = self._append_all(outputs, seq, int(row.recorded_at.timestamp() * 1000))
            await asyncio.sleep(0)
        if seq != row.seq_last + 1:
            raise ShardStoppedError(
                f"shard {self.shard}: its outbox row of seqs {row.seq_first} to {row.seq_last} holds "
                f"{seq - row.seq_first} outputs; restore the database, then run `ledgerstream recover`"
            )
        self.last = row

    def seal(self) -> None:
        """Add the seal, which makes the transaction ready to publish."""
        assert self.last is not None
        seal = Seal(
            epoch=self.epoch,
            shard=self.shard,
            seq_first=self.seq_first,
            seq_last=self.seq_last,
            counts=self.counts,
            head_hash=self.last.head_hash,
        )
        batch = new_batch(None)
        batch.append(
            timestamp=int(self.last.recorded_at.timestamp() * 1000),
            key=b"%d" % self.shard,
            value=encode_seal(seal, self.last.recorded_at),
            headers=[_CONTENT_TYPE, ("ce_type", SEAL_TYPE.encode())],
        )
        self.batches[self.settings.topic("seals"), self.shard] = [batch]

    def _append_all(self, outputs: list[Output], seq: int, timestamp_ms: int) -> int:
        """Append outputs that follow one another; returns the seq after them."""
        epoch, shard = _epoch_and_shard(self.epoch, self.shard)
        names = [self.settings.topic(name) for name in TOPICS]
        for output in outputs:
            topic, _, partition, key, _, _, value = output
            headers = _headers(output, epoch, shard, seq)
            self._append(names[topic], partition, timestamp_ms, key, value, headers)
            seq += 1
        return seq

    def _append(
        self,
        topic: str,
        partition: int,
        timestamp_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: list[Header],
    ) -> None:
        queue = self.batches.get((topic, partition))
        if queue is None:
            queue = self.batches[topic, partition] = [new_batch(self._compression)]
        # A full batch takes no more; an empty one takes any record, whatever its size.
        if queue[-1].append(timestamp=timestamp_ms, key=key, value=value, headers=headers) is None:
            queue.append(new_batch(self._compression))
            queue[-1].append(timestamp=timestamp_ms, key=key, value=value, headers=headers)
        self.counts[topic] = self.counts.get(topic, 0) + 1
        self.bytes_packed += len(key or b"") + len(value or b"")


def headers_of(output: Output, *, epoch: int, shard: int, seq: int) -> list[Header]:
    """The headers of an output on its topic."""
    return _headers(output, *_epoch_and_shard(epoch, shard), seq)


def _epoch_and_shard(epoch: int, shard: int) -> tuple[Header, Header]:
    return ("ledger-epoch", b"%d" % epoch), ("ledger-shard", b"%d" % shard)


def _headers(output: Output, epoch: Header, shard: Header, seq: int) -> list[Header]:
    _, kind, _, _, traceparent, own_headers, _ = output
    place = (epoch, shard, ("ledger-seq", b"%d" % seq))
    if kind == DEAD_LETTER:
        return [*own_headers, *place]
    headers = [_CONTENT_TYPE, _TYPE_HEADERS[kind], *place, *own_headers]
    if traceparent is not None:
        headers.append(("traceparent", traceparent))
    return headers


def _in_turns(shard: int, row: OutboxRow) -> Iterator[list[Output]]:
    """The row's outputs, so many at a time that the event loop doesn't wait long."""
    turn: list[Output] = []
    try:
        for output in unpack(row.body):
            turn.append(output)
            if len(turn) == OUTPUTS_A_TURN:
                yield turn
                turn = []
    except (zstandard.ZstdError, ValueError, IndexError) as fault:
        raise ShardStoppedError(
            f"shard {shard}: its outbox row of seqs {row.seq_first} to {row.seq_last} can't be read ({fault}); "
            "restore the database, then run `ledgerstream recover`"
        ) from fault
    if turn:
        yield turn
