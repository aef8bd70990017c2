"""Rejections, what is parked, dead letters, and what the relay still has to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from infra.postgres import queries
from infra.postgres.queries import NotFound
from infra.postgres.reading import reading
from infra.settings import Settings
from tests.fixtures.books import NOON, TENANT, LedgerByHand, ledger_by_hand


@pytest.fixture
def database_settings(database_url: str, shards: int) -> Settings:
    return replace(Settings(), database_url=database_url, shards=shards)


@pytest.fixture
async def books(database_settings: Settings) -> AsyncIterator[LedgerByHand]:
    async with ledger_by_hand(database_settings) as ledger:
        yield ledger


async def test_rejections_say_what_was_refused_and_why(books: LedgerByHand, database_settings: Settings) -> None:
    await books.pay("p1", 100, id="first")
    await books.pay("p1", 101, id="second", key="k")
    async with reading(database_settings) as connection:
        (found,) = [each async for each in queries.list_rejections(connection, TENANT)]
        shown = await queries.rejection(connection, TENANT, _place(found["id"]))
    assert found["code"] == "idempotency_conflict"
    assert found["event"] == {
        "type": "payment.captured.v1",
        "id": "second",
        "source": "test",
        "idempotency_key": "k",
        "topic": "ledger.payments",
        "partition": 0,
        "offset": found["event"]["offset"],
    }
    assert shown["data"]["amount"] == 101


async def test_rejections_come_the_last_first_and_by_code(books: LedgerByHand, database_settings: Settings) -> None:
    await books.pay("p1", 100)
    await books.pay("p1", 101)
    await books.pay("p2", 0)
    async with reading(database_settings) as connection:
        every = [each["code"] async for each in queries.list_rejections(connection, TENANT)]
        wanted = queries.list_rejections(connection, TENANT, code="invalid_amount")
        by_code = [each["code"] async for each in wanted]
        first = [each["code"] async for each in queries.list_rejections(connection, TENANT, limit=1)]
    assert every == ["invalid_amount", "idempotency_conflict"]
    assert by_code == first == ["invalid_amount"]


async def test_what_was_refused_of_a_tenant_that_is_not_registered_can_be_read(database_settings: Settings) -> None:
    async with ledger_by_hand(database_settings, registered_only=True) as books:
        await books.pay("p1", 100)
    async with reading(database_settings) as connection:
        codes = [each["code"] async for each in queries.list_rejections(connection, TENANT)]
    assert codes == ["tenant_not_found"]


async def test_a_tenant_without_anything_is_not_found(books: LedgerByHand, database_settings: Settings) -> None:
    async with reading(database_settings) as connection:
        with pytest.raises(NotFound):
            [each async for each in queries.list_rejections(connection, "nobody")]


async def test_parked_events_say_what_they_wait_for(books: LedgerByHand, database_settings: Settings) -> None:
    refund = {"refund_id": "r1", "amount": 5, "currency": "EUR", "customer_id": "c1", "payment_id": "p1"}
    await books.send("refund.succeeded.v1", **refund)
    async with reading(database_settings) as connection:
        (found,) = [each async for each in queries.list_parked(connection, TENANT)]
        shown = await queries.parked_event(connection, TENANT, _place(found["id"]))
    assert found["code"] == "payment_not_found"
    assert "p1" in (found["waits_for"] or "")
    assert (found["since"], found["expires_at"]) == (NOON, NOON + timedelta(days=1))
    assert shown["data"]["refund_id"] == "r1"


async def test_an_event_that_was_taken_up_again_is_no_longer_parked(
    books: LedgerByHand, database_settings: Settings
) -> None:
    refund = {"refund_id": "r1", "amount": 5, "currency": "EUR", "customer_id": "c1", "payment_id": "p1"}
    await books.send("refund.succeeded.v1", **refund)
    await books.pay("p1", 100)
    async with reading(database_settings) as connection:
        assert [each async for each in queries.list_parked(connection, TENANT)] == []


async def test_dead_letters_keep_their_bytes(books: LedgerByHand, database_settings: Settings) -> None:
    await books.send_record(b"\xff\x00", headers=(("h", None),))
    async with reading(database_settings) as connection:
        (found,) = [each async for each in queries.list_dead_letters(connection)]
        shown = await queries.dead_letter(connection, _place(found["id"]))
    assert (found["topic"], found["partition"], found["code"]) == ("ledger.payments", 0, "malformed")
    assert shown["value"] == b"\xff\x00"


async def test_unrelayed_counts_the_outputs_that_are_not_out(
    books: LedgerByHand, database_settings: Settings, shards: int
) -> None:
    await books.pay("p1", 100)
    async with reading(database_settings) as connection:
        found = await queries.unrelayed(connection)
    assert [each["shard"] for each in found] == list(range(shards))
    # The entry, and the balances of cash and of the customer.
    assert sum(each["unrelayed"] for each in found) == 3


async def test_an_input_position_is_of_the_topic_that_was_read_last(
    books: LedgerByHand, database_settings: Settings
) -> None:
    await books.pool.execute(
        """
        INSERT INTO input_offsets (topic, topic_id, partition, next_offset, updated_at)
        VALUES ('ledger.payments', gen_random_uuid(), 0, 900, now() - interval '1 day'),
               ('ledger.payments', gen_random_uuid(), 0, 12, now())
        """
    )
    async with reading(database_settings) as connection:
        assert await queries.input_positions(connection) == [
            {"topic": "ledger.payments", "partition": 0, "next_offset": 12}
        ]


def _place(text: str) -> tuple[int, int]:
    shard, seq = text.split("-")
    return int(shard), int(seq)
