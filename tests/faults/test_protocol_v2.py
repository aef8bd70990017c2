"""Kafka's newer transaction protocol as we speak it: what is late, lost or asked twice costs and doubles nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.client import ConnectionGroup
from aiokafka.conn import CloseReason
from aiokafka.errors import (
    ConcurrentTransactions,
    InvalidProducerEpoch,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    NotCoordinatorError,
    NotLeaderForPartitionError,
    ProducerFenced,
    for_code,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.transaction import EndTxnRequest

from infra.kafka import protocol_v2
from infra.kafka.producer import TransactionalProducer
from infra.kafka.protocol_v1 import ProtocolV1
from infra.kafka.protocol_v2 import ProtocolV2
from infra.kafka.protocols import PRODUCER_FENCED, RETRY_SECONDS, ask_coordinator
from infra.kafka.requests_transactions import EndTxn, Features, Produce, feature_levels
from infra.settings import Settings
from tests.faults.test_relay_producer import batch_of, too_large, use_up_epochs
from tests.faults.test_relay_producer import values_on as values_now
from tests.fixtures.relay import NewProducer, books, new_producer
from tests.fixtures.subscriber import committed

__all__ = ["books", "new_producer"]


async def values_on(settings: Settings, topic: str, *, count: int) -> list[bytes]:
    """What a topic has, once it has so many: the markers of a transaction are written after its end was answered."""
    async with asyncio.timeout(10):
        while len(values := await values_now(settings, topic)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return values


def instead_of(
    monkeypatch: pytest.MonkeyPatch, producer: TransactionalProducer, kind: type, answer: Callable[[Any], Any]
) -> list[Any]:
    """Let the first answer to a request of this kind be told in another way; returns what was asked, in order."""
    asked: list[Any] = []
    send = producer._producer.client.send

    async def send_and_tell(node: int, request: Any, **named: Any) -> Any:
        told = await send(node, request, **named)
        if isinstance(request, kind):
            asked.append(request)
            if len(asked) == 1:
                return answer(told)
        return told

    monkeypatch.setattr(producer._producer.client, "send", send_and_tell)
    return asked


async def final_word_on(producer: TransactionalProducer, place: tuple[str, int], batch: BatchBuilder) -> int:
    """The error code for a batch sent by hand; a broker that says "later" (a topic this new) is asked again."""
    request = Produce(producer.transactional_id, 5_000, {place: batch._build()})
    async with asyncio.timeout(10):
        while True:
            answer = await producer.ask(producer.leader_of(place), request)
            ((_, ((_, error_code, *_),), _),) = answer.topics
            if not for_code(error_code).retriable and error_code != ConcurrentTransactions.errno:
                return int(error_code)
            await asyncio.sleep(RETRY_SECONDS)


def lost(_answer: Any) -> Any:
    raise KafkaConnectionError("the connection broke before the answer")


# --- which protocol -------------------------------------------------------------------------------------------------


async def test_a_cluster_that_has_agreed_on_it_is_spoken_to_in_it(new_producer: NewProducer) -> None:
    producer = await new_producer()
    assert isinstance(producer._protocol, ProtocolV2)
    answer = await producer._producer.client.send(producer._producer.client.get_random_node(), Features())
    assert feature_levels(answer)["transaction.version"] >= 2


async def test_a_broker_that_is_older_than_the_question_is_spoken_to_as_aiokafka_does(
    new_producer: NewProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_v2.Features, "prepare", lambda _self, _versions: _not_added())
    producer = await new_producer()
    assert isinstance(producer._protocol, ProtocolV1)


def _not_added() -> None:
    raise NotImplementedError("Support for Features v2 has not yet been added")


async def test_a_cluster_without_the_feature_is_spoken_to_as_aiokafka_does(
    new_producer: NewProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_v2, "LEVEL", 3)
    assert isinstance((await new_producer())._protocol, ProtocolV1)


# --- an epoch for each transaction ----------------------------------------------------------------------------------


async def test_each_transaction_has_an_epoch_of_its_own(new_producer: NewProducer, settings: Settings) -> None:
    producer = await new_producer()
    used = []
    for number in range(3):
        used.append(producer.epoch)
        await producer.publish({(settings.topic("entries"), 0): [batch_of(b"%d" % number)]})
        await producer.next_epoch()
    producer_id, first = used[0]
    assert used == [(producer_id, first), (producer_id, first + 1), (producer_id, first + 2)]
    assert await values_on(settings, "entries", count=3) == [b"0", b"1", b"2"]


async def test_epochs_that_run_out_lose_and_double_nothing(new_producer: NewProducer, settings: Settings) -> None:
    producer = await new_producer()
    producer_id, _ = await use_up_epochs(producer, leave=3)
    for number in range(8):
        await producer.publish({(settings.topic("entries"), 0): [batch_of(b"%d" % number)]})
    assert producer.epoch[0] != producer_id
    assert await values_on(settings, "entries", count=8) == [b"%d" % number for number in range(8)]


async def test_the_batches_of_a_partition_keep_their_order(new_producer: NewProducer, settings: Settings) -> None:
    producer = await new_producer()
    entries = settings.topic("entries")
    for first in (0, 4):
        queue = [batch_of(b"%d" % number) for number in range(first, first + 4)]
        await producer.publish({(entries, 0): queue, (entries, 1): [batch_of(b"other")]})
    await values_on(settings, "entries", count=10)
    records = await committed(settings, "entries")
    assert [record.value for record in records if record.partition == 0] == [b"%d" % number for number in range(8)]


# --- what comes late ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("older", [False, True])
async def test_a_late_end_is_refused_and_harms_nothing(
    new_producer: NewProducer, settings: Settings, *, older: bool
) -> None:
    producer = await new_producer()
    used = producer.epoch
    await producer.publish({(settings.topic("seals"), 0): [batch_of(b"seal of the transaction before")]})
    await producer._protocol.begin()
    await producer._protocol.deliver({(settings.topic("entries"), 0): [batch_of(b"output")]})
    name = producer.transactional_id
    late = EndTxnRequest(name, *used, True) if older else EndTxn(name, *used, commit=True)
    answer = await ask_coordinator(producer._producer, name, late)
    assert answer.error_code in (InvalidProducerEpoch.errno, PRODUCER_FENCED)
    assert await values_now(settings, "entries") == []
    await producer._protocol.deliver({(settings.topic("seals"), 0): [batch_of(b"seal")]})
    await producer._protocol.commit()
    assert await values_on(settings, "entries", count=1) == [b"output"]
    assert await values_on(settings, "seals", count=2) == [b"seal of the transaction before", b"seal"]


@pytest.mark.parametrize("topic", ["entries", "balances"])
async def test_a_late_batch_is_refused_and_never_seen(
    new_producer: NewProducer, settings: Settings, topic: str
) -> None:
    """In a partition of the transaction before, and in one that it had nothing to do with."""
    producer = await new_producer()
    used = producer.epoch
    await producer.publish({(settings.topic("entries"), 0): [batch_of(b"in time")]})
    late = batch_of(b"late")
    late._set_producer_state(*used, 1)
    place = settings.topic(topic), 0
    await producer.partitions_for(place[0])
    await producer._protocol.begin()
    await producer._protocol.deliver({(settings.topic("seals"), 0): [batch_of(b"next")]})
    assert await final_word_on(producer, place, late) in (InvalidProducerEpoch.errno, PRODUCER_FENCED)
    await producer._protocol.commit()
    assert await values_on(settings, "entries", count=1) == [b"in time"]
    assert await values_now(settings, "balances") == []


# --- fencing --------------------------------------------------------------------------------------------------------


async def test_a_zombie_publishes_nothing(new_producer: NewProducer, settings: Settings) -> None:
    zombie = await new_producer()
    await zombie.publish({(settings.topic("entries"), 0): [batch_of(b"before")]})
    await new_producer()
    with pytest.raises(ProducerFenced):
        await zombie.publish({(settings.topic("entries"), 0): [batch_of(b"zombie")]})
    assert await values_on(settings, "entries", count=1) == [b"before"]


async def test_a_zombie_in_the_middle_of_a_transaction_publishes_nothing(
    new_producer: NewProducer, settings: Settings
) -> None:
    zombie = await new_producer()
    await zombie._protocol.begin()
    await zombie._protocol.deliver({(settings.topic("entries"), 0): [batch_of(b"zombie")]})
    successor = await new_producer()
    with pytest.raises(ProducerFenced):
        await zombie._protocol.commit()
    with pytest.raises(ProducerFenced):
        await zombie._protocol.deliver({(settings.topic("entries"), 0): [batch_of(b"zombie")]})
    await successor.publish({(settings.topic("entries"), 0): [batch_of(b"successor")]})
    assert await values_on(settings, "entries", count=1) == [b"successor"]


# --- a coordinator that is lost -------------------------------------------------------------------------------------


def lose_coordinator(producer: TransactionalProducer) -> None:
    connections = producer._producer.client._conns
    (lost,) = [each for (_, group), each in connections.items() if group is ConnectionGroup.COORDINATION]
    lost.close(reason=CloseReason.CONNECTION_BROKEN)


@pytest.mark.parametrize("sent", [False, True])
async def test_a_transaction_whose_coordinator_is_lost_publishes_nothing(
    new_producer: NewProducer, settings: Settings, *, sent: bool
) -> None:
    """Whatever was left open by the one before, and committed, would end with this one's end."""
    producer = await new_producer()
    entries = settings.topic("entries")
    await producer.publish({(entries, 0): [batch_of(b"before")]})
    await producer._protocol.begin()
    if sent:
        await producer._protocol.deliver({(entries, 0): [batch_of(b"sent")]})
    lose_coordinator(producer)
    with pytest.raises(KafkaConnectionError, match="coordinator was lost"):
        await producer._protocol.deliver({(entries, 1): [batch_of(b"not sent")]})
    with pytest.raises(KafkaConnectionError, match="coordinator was lost"):
        await producer._protocol.commit()
    await producer.discard()
    successor = await new_producer()
    await successor.publish({(entries, 0): [batch_of(b"after")]})
    assert await values_on(settings, "entries", count=2) == [b"before", b"after"]


async def test_an_end_whose_coordinator_is_lost_before_its_answer_is_not_asked_for_again(
    new_producer: NewProducer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked again, a coordinator that has taken over says that it was ended, of markers that are not all written."""
    producer = await new_producer()

    def lost_with_its_coordinator(answer: Any) -> Any:
        lose_coordinator(producer)
        return lost(answer)

    asked = instead_of(monkeypatch, producer, EndTxn, lost_with_its_coordinator)
    with pytest.raises(KafkaConnectionError):
        await producer.publish({(settings.topic("entries"), 0): [batch_of(b"once")]})
    assert len(asked) == 1
    assert await values_on(settings, "entries", count=1) == [b"once"]


# --- answers that are lost, or say: later ---------------------------------------------------------------------------


async def test_a_batch_whose_answer_is_lost_is_sent_again_and_counts_once(
    new_producer: NewProducer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = await new_producer()
    entries = settings.topic("entries")
    await producer.publish({(entries, 0): [batch_of(b"0")], (entries, 1): [batch_of(b"0")]})
    asked = instead_of(monkeypatch, producer, Produce, lost)
    await producer.publish({(entries, 0): [batch_of(b"a"), batch_of(b"b")], (entries, 1): [batch_of(b"c")]})
    assert len(asked) >= 3
    await producer.publish({(entries, 0): [batch_of(b"d")]})
    assert sorted(await values_on(settings, "entries", count=6)) == [b"0", b"0", b"a", b"b", b"c", b"d"]


async def test_an_end_whose_answer_is_lost_is_asked_for_again_and_counts_once(
    new_producer: NewProducer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = await new_producer()
    producer_id, epoch = producer.epoch
    asked = instead_of(monkeypatch, producer, EndTxn, lost)
    await producer.publish({(settings.topic("entries"), 0): [batch_of(b"once")]})
    assert len(asked) >= 2
    assert producer.epoch == (producer_id, epoch + 1)
    await producer.publish({(settings.topic("entries"), 0): [batch_of(b"next")]})
    assert await values_on(settings, "entries", count=2) == [b"once", b"next"]


@pytest.mark.parametrize("error", [ConcurrentTransactions, NotCoordinatorError])
async def test_a_coordinator_that_says_later_is_asked_again(
    new_producer: NewProducer, settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    producer = await new_producer()

    def later(answer: Any) -> Any:
        answer.error_code = error.errno
        return answer

    asked = instead_of(monkeypatch, producer, EndTxn, later)
    await producer.publish({(settings.topic("entries"), 0): [batch_of(b"once")]})
    assert len(asked) >= 2
    assert await values_on(settings, "entries", count=1) == [b"once"]


@pytest.mark.parametrize("error", [ConcurrentTransactions, NotLeaderForPartitionError])
async def test_a_leader_that_says_later_for_one_partition_gets_that_one_again(
    new_producer: NewProducer, settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    producer = await new_producer()
    entries = settings.topic("entries")
    await producer.publish({(entries, 0): [batch_of(b"0")], (entries, 1): [batch_of(b"0")]})
    await values_on(settings, "entries", count=2)

    def later(answer: Any) -> Any:
        # The batch of partition 1 was taken all the same: sent again, it counts once.
        answer.topics = [
            (topic, [(p, error.errno if p == 1 else code, *rest) for p, code, *rest in partitions], tags)
            for topic, partitions, tags in answer.topics
        ]
        return answer

    asked = instead_of(monkeypatch, producer, Produce, later)
    await producer.publish({(entries, 0): [batch_of(b"a")], (entries, 1): [batch_of(b"b")]})
    assert [len(each._fields[3][0][1]) for each in asked] == [2, 1]
    assert sorted(await values_on(settings, "entries", count=4)) == [b"0", b"0", b"a", b"b"]


async def test_a_partition_without_a_leader_is_waited_for(
    new_producer: NewProducer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = await new_producer()
    cluster = producer._producer.client.cluster
    leader_of, looks = type(cluster).leader_for_partition, []

    def none_at_first(self: Any, place: Any) -> Any:
        looks.append(place)
        return None if len(looks) == 1 else leader_of(self, place)

    monkeypatch.setattr(type(cluster), "leader_for_partition", none_at_first)
    await producer.publish({(settings.topic("entries"), 0): [batch_of(b"waited")]})
    assert len(looks) > 1
    assert await values_on(settings, "entries", count=1) == [b"waited"]


# --- what fails -----------------------------------------------------------------------------------------------------


async def test_a_refused_delivery_publishes_nothing_of_its_transaction(
    new_producer: NewProducer, settings: Settings
) -> None:
    producer = await new_producer()
    entries = settings.topic("entries")
    with pytest.raises(MessageSizeTooLargeError, match=r"entries\[1\]"):
        await producer.publish({(entries, 0): [batch_of(b"good")], (entries, 1): [too_large()]})
    await producer.discard()
    successor = await new_producer()
    await successor.publish({(entries, 0): [batch_of(b"after")]})
    assert await values_on(settings, "entries", count=1) == [b"after"]


async def test_a_producer_discarded_while_it_sends_leaves_no_task_behind(
    new_producer: NewProducer, settings: Settings
) -> None:
    before = asyncio.all_tasks()
    producer = await new_producer()
    sending = asyncio.create_task(producer.publish({(settings.topic("entries"), 0): [batch_of(b"output")]}))
    async with asyncio.timeout(5):
        while not producer._producer.client._conns:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait({sending})
        await producer.discard()
    assert asyncio.all_tasks() - before == set()


async def test_an_unfinished_transaction_ends_with_the_next_producer(
    new_producer: NewProducer, settings: Settings
) -> None:
    first = await new_producer()
    await first._protocol.begin()
    await first._protocol.deliver({(settings.topic("entries"), 0): [batch_of(b"unfinished")]})
    await first.discard()
    second = await new_producer()
    await second.publish({(settings.topic("entries"), 0): [batch_of(b"second")]})
    assert await values_on(settings, "entries", count=1) == [b"second"]
