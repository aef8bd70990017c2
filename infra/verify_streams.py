"""Prove the streams: the hash chain over the outputs, the seals, and every topic against the books."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.chain import next_head
from infra.kafka.connection import quiet_aiokafka
from infra.kafka.published import place_of, published_since
from infra.kafka.seals import Seal, decode_seal
from infra.outbox import TOPICS, Output, unpack
from infra.postgres.migrate import GENESIS_HEAD
from infra.postgres.queries_places import find_shard
from infra.postgres.tables import outbox, relayed
from infra.postgres.verify import Check, check_of
from infra.settings import Settings

ANSWER_SECONDS = 60.0
OUTPUTS_MAX = 1_000_000
"""More than one batch of the ledger makes."""
_BALANCES = TOPICS.index("balances")

_CHAINED = "The hash chain over the outputs that are kept gives the head of each batch."
_SEALED = "The seals follow one another without a gap, with the heads and the counts that the books give."
_TOLD = "Each output that is kept and sealed stands on its topic once, byte for byte, and no other does."


@dataclass(slots=True)
class _Kept:
    """What the books still have of a shard's outputs: a few bytes for each, by its place after `first`."""

    first: int
    head: bytes | None
    digests: array[int] = field(default_factory=lambda: array("Q"))
    epochs: array[int] = field(default_factory=lambda: array("H"))
    topics: bytearray = field(default_factory=bytearray)
    seen: bytearray = field(default_factory=bytearray)
    heads: dict[int, bytes] = field(default_factory=dict)
    """By the last seq of each batch."""
    states: dict[bytes, int] = field(default_factory=dict)
    """The last seq of each balance: all that a compacted topic must still have."""

    @property
    def last(self) -> int:
        return self.first + len(self.digests) - 1

    def add(self, epoch: int, output: Output) -> None:
        if output.topic == _BALANCES and output.key is not None:
            self.states[output.key] = self.last + 1
        self.digests.append(_digest(TOPICS[output.topic], output.partition, output.key, output.value))
        self.epochs.append(epoch)
        self.topics.append(output.topic)
        self.seen.append(0)


async def stream_checks(
    connection: AsyncConnection, settings: Settings, tenant_id: str | None = None
) -> AsyncIterator[Check]:
    """What `verify --deep` adds: the chain, the seals and the topics, of all shards or a tenant's.

    Where Kafka can't be asked, the checks that need it fail and say that they were not made.
    Raises: NotFound for an unknown tenant.
    """
    shard = None if tenant_id is None else await find_shard(connection, tenant_id)
    kept: dict[int, _Kept] = {}
    broken = [fault async for fault in _chain_faults(connection, shard, kept)]
    yield check_of("outputs_chained", broken, _CHAINED)
    if settings.kafka_bootstrap is None:
        for name in ("seals_told", "topics_told"):
            yield check_of(name, ["not checked: LEDGER_KAFKA_BOOTSTRAP is not set"], _TOLD)
        return
    quiet_aiokafka(settings)
    try:
        seals = await _seals(settings, shard)
        yield check_of("seals_told", list(_seal_faults(settings, kept, seals)), _SEALED)
        ends = {place: end for place, told in seals.items() for _, end in told[-1:]}
        yield check_of("topics_told", [fault async for fault in _topic_faults(settings, kept, ends)], _TOLD)
    except UnknownTopicOrPartitionError as error:
        # A relay makes the topics; before one has run there is nothing to hold against the books.
        unpublished = not (await connection.execute(select(exists().where(relayed.c.seq > 0)))).scalar_one()
        yield check_of("topics_told", [] if unpublished else [f"not checked: {error}"], _TOLD)
    except (KafkaError, OSError, TimeoutError) as error:
        fault = f"not checked: Kafka at {settings.kafka_bootstrap} can't be read ({type(error).__name__}: {error})"
        yield check_of("topics_told", [fault], _TOLD)


async def _chain_faults(connection: AsyncConnection, shard: int | None, kept: dict[int, _Kept]) -> AsyncIterator[str]:
    """Go over the outbox once, keeping of each output what the topics are held against."""
    query = select(outbox).order_by(outbox.c.shard, outbox.c.seq_last)
    if shard is not None:
        query = query.where(outbox.c.shard == shard)
    async for row in await connection.stream(query, execution_options={"yield_per": 10}):
        # What came before the first that is kept was dropped after its retention: the chain goes on from its head.
        ours = kept.setdefault(row.shard, _Kept(row.seq_first, GENESIS_HEAD if row.seq_first == 1 else None))
        head = ours.head
        try:
            for seq, output in enumerate(unpack(row.body), row.seq_first):
                ours.add(row.epoch, output)
                if head is not None:
                    head = next_head(head, output, f"{row.epoch}-{row.shard}-{seq}")
        except Exception as error:
            # Whatever damaged bytes raise is this row's fault and not the end of the proof.
            yield f"outbox row {row.shard}, {row.seq_first} to {row.seq_last} can't be read: {type(error).__name__}"
            head = None
        missing = row.seq_last - ours.last
        # A row that claims more than any batch has is named by the outbox's own check; its places aren't made up.
        for _ in range(missing if missing <= OUTPUTS_MAX else 0):
            ours.add(row.epoch, Output(0, 0, 0, None, None, (), None))
        if head is not None and head != row.head_hash:
            yield (
                f"outbox row {row.shard}, {row.seq_first} to {row.seq_last} ends with the head {row.head_hash.hex()}; "
                f"its outputs give {head.hex()}"
            )
        ours.head = ours.heads[row.seq_last] = row.head_hash


async def _seals(settings: Settings, shard: int | None) -> dict[int, list[tuple[Seal, int]]]:
    """The seals of each shard that count, in order, and up to which seq each does.

    A seal of a later epoch takes back what earlier ones sealed from its own `seq_first` on.
    """
    found: defaultdict[int, list[Seal]] = defaultdict(list)
    async for record in _patiently(published_since(settings, ("seals",), None)):
        try:
            seal = decode_seal(record.value or b"")
        except ValueError:
            continue
        if shard is None or seal.shard == shard:
            found[seal.shard].append(seal)
    counting: dict[int, list[tuple[Seal, int]]] = {}
    for place, seals in found.items():
        limit, epoch = 2**63, seals[-1].epoch
        told: list[tuple[Seal, int]] = []
        for seal, newer in zip(reversed(seals), [seals[-1], *reversed(seals)], strict=False):
            if seal.epoch < epoch:
                limit, epoch = min(limit, newer.seq_first - 1), seal.epoch
            if seal.seq_first <= limit:
                told.append((seal, min(seal.seq_last, limit)))
        counting[place] = told[::-1]
    return counting


def _seal_faults(settings: Settings, kept: dict[int, _Kept], seals: dict[int, list[tuple[Seal, int]]]) -> Iterable[str]:
    for shard, told in seals.items():
        before = told[0][0].seq_first - 1
        for seal, end in told:
            name = f"the seal of shard {shard} from {seal.seq_first} to {seal.seq_last}"
            if seal.seq_first != before + 1:
                yield f"{name} follows one that ends at {before}"
            before = end
            ours = kept.get(shard)
            if end != seal.seq_last or ours is None:
                continue
            head = ours.heads.get(seal.seq_last)
            if head is not None and head != seal.head_hash:
                yield f"{name} has the head {seal.head_hash.hex()}; the books have {head.hex()}"
            if seal.seq_first < ours.first or seal.seq_last > ours.last or not seal.counts:
                continue
            span = ours.topics[seal.seq_first - ours.first : seal.seq_last - ours.first + 1]
            counts = {settings.topic(TOPICS[topic]): count for topic, count in Counter(span).items()}
            if counts != {topic: count for topic, count in seal.counts.items() if count}:
                yield f"{name} counts {dict(seal.counts)}; the books give {counts}"


async def _topic_faults(settings: Settings, kept: dict[int, _Kept], ends: dict[int, int]) -> AsyncIterator[str]:
    """What stands on the topics and isn't what the books have, or isn't there and should be."""
    names = {settings.topic(name): name for name in TOPICS}
    async for record in _patiently(published_since(settings, TOPICS, None)):
        place = place_of(record)
        ours = None if place is None else kept.get(place.shard)
        # What is older than what is kept, newer than this snapshot, or published again on purpose can't be compared.
        if place is None or ours is None or not ours.first <= place.seq <= ours.last:
            continue
        at = place.seq - ours.first
        where = f"{place.epoch}-{place.shard}-{place.seq} at {record.topic}[{record.partition}] {record.offset}"
        if place.epoch != ours.epochs[at]:
            # `recover` began a new epoch because the streams had something else here.
            if place.epoch > ours.epochs[at]:
                yield f"the output {where} is of an epoch that the books don't have"
            continue
        ours.seen[at] = min(ours.seen[at] + 1, 255)
        if ours.seen[at] == 2:
            yield f"the output {where} is there twice"
        if _digest(names[record.topic], record.partition, record.key, record.value) != ours.digests[at]:
            yield f"the output {where} isn't what the books say"
    for shard, ours in kept.items():
        current = set(ours.states.values())
        for seq in range(ours.first, min(ours.last, ends.get(shard, 0)) + 1):
            at = seq - ours.first
            if not ours.seen[at] and (ours.topics[at] != _BALANCES or seq in current):
                yield f"the output {ours.epochs[at]}-{shard}-{seq} is missing from {TOPICS[ours.topics[at]]}"


async def _patiently(records: AsyncIterator[ConsumerRecord]) -> AsyncIterator[ConsumerRecord]:
    """The same records. Raises: TimeoutError when there is none for too long, though there must be more."""
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                record = await anext(records)
        except StopAsyncIteration:
            return
        yield record


def _digest(topic: str, partition: int, key: bytes | None, value: bytes | None) -> int:
    hashed = blake2b(f"{topic} {partition} {key is None} {value is None} {len(key or b'')} ".encode(), digest_size=8)
    hashed.update(key or b"")
    hashed.update(value or b"")
    return int.from_bytes(hashed.digest(), "little")
