"""`ledgerstream republish`: the same outputs once more, marked as such; no state after a later one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest
from aiokafka import ConsumerRecord
from click.testing import CliRunner, Result

from consumers.cli import cli
from infra.settings import Settings
from tests.fixtures.ledger import RunningLedger, ledger_running_on
from tests.fixtures.programs import environment_of
from tests.fixtures.subscriber import committed, is_replayed, place_of, sealed, seals
from tests.fixtures.traffic import outputs

pytestmark = pytest.mark.shards(1)


async def republish(settings: Settings, *arguments: str) -> Result:
    """In a thread: the command has a loop of its own."""
    command = ["republish", *arguments, "--json"]
    return await asyncio.to_thread(lambda: CliRunner().invoke(cli, command, env=environment_of(settings)))


async def pay(ledger: RunningLedger, *payments: str) -> None:
    data = {"amount": 100, "currency": "EUR", "customer_id": "c1"}
    for payment_id in payments:
        await ledger.publish(ledger.event("payment.captured.v1", {**data, "payment_id": payment_id}, id=payment_id))
        await ledger.wait_until_drained()


@pytest.fixture
async def published(settings: Settings) -> AsyncIterator[Settings]:
    """A ledger at rest after two payments of one customer, each with an entry and two balances."""
    async with ledger_running_on(settings) as ledger:
        await pay(ledger, "p1", "p2")
        await sealed(settings, 0, 6)
    yield settings


def content(record: ConsumerRecord) -> tuple[object, ...]:
    headers = [header for header in record.headers if header[0] != "ledger-replay"]
    return record.topic, record.partition, record.timestamp, record.key, record.value, headers


async def test_the_same_bytes_are_published_again_and_only_states_that_are_the_last(published: Settings) -> None:
    sealed = await seals(published, 0)
    result = await republish(published, "--shard", "0", "--seq", "1..6")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"published": {"balances": 2, "entries": 2}, "outdated_balances": 2}
    records = await committed(published, "balances", "entries")
    first = {place_of(record): content(record) for record in records if not is_replayed(record)}
    again = [record for record in records if is_replayed(record)]
    assert [content(record) for record in again] == [first[place_of(record)] for record in again]
    states = [json.loads(record.value)["data"] for record in records if record.topic == published.topic("balances")]
    last = {data["account_id"]: data["version"] for data in states}
    assert set(last.values()) == {2}
    assert await seals(published, 0) == sealed
    # An audit doesn't take them for doubles.
    assert len(await outputs(published)) == 6


async def test_the_relay_goes_on_where_it_stood(published: Settings) -> None:
    await republish(published, "--shard", "0", "--seq", "1..3")
    async with ledger_running_on(published) as ledger:
        await pay(ledger, "p3")
        await sealed(published, 0, 9)
    assert sorted(await outputs(published)) == [(1, 0, seq) for seq in range(1, 10)]


async def test_a_range_of_time_takes_what_was_recorded_in_it(published: Settings) -> None:
    all_of_it = await republish(published, "--from", "2020-01-01T00:00:00Z", "--to", "2199-01-01T00:00:00Z")
    assert json.loads(all_of_it.stdout)["published"] == {"balances": 2, "entries": 2}
    nothing = await republish(published, "--from", "2020-01-01T00:00:00Z", "--to", "2021-01-01T00:00:00Z")
    assert json.loads(nothing.stdout) == {"published": {}, "outdated_balances": 0}


async def test_what_has_left_the_outbox_or_is_not_published_yet_is_refused(published: Settings) -> None:
    books = await asyncpg.connect(published.asyncpg_dsn)
    first_row = await books.fetchval("DELETE FROM outbox WHERE seq_first = 1 RETURNING seq_last")
    await books.close()
    gone = await republish(published, "--shard", "0", "--seq", "1..6")
    assert gone.exit_code == 2
    assert f"outputs before seq {first_row + 1} have left the outbox" in gone.output
    gone = await republish(published, "--from", "2020-01-01T00:00:00Z", "--to", "2199-01-01T00:00:00Z")
    assert gone.exit_code == 2
    early = await republish(published, "--shard", "0", "--seq", "4..7")
    assert early.exit_code == 2
    assert "shard 0 is published up to seq 6, not to 7" in early.output
    assert not any(is_replayed(record) for record in await committed(published, "balances", "entries"))


@pytest.mark.parametrize("arguments", [[], ["--shard", "0"], ["--seq", "1..2"], ["--from", "2020-01-01T00:00:00Z"]])
async def test_half_a_range_is_refused(published: Settings, arguments: list[str]) -> None:
    result = await republish(published, *arguments)
    assert (result.exit_code, "say which outputs" in result.output) == (2, True)
