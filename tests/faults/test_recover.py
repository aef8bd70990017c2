"""The database goes back in time while Kafka doesn't: a new epoch, and nothing is lost, doubled or said otherwise."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from consumers.app import run
from infra import recover as recovering
from infra.devstack import RunningStack
from infra.kafka.lag import reaches
from infra.kafka.published import Place, place_of
from infra.outbox import TOPICS, unpack
from infra.recover import Recovery, RecoveryRefusedError, lost_outputs, recover
from infra.settings import Settings
from schemas.topics import READ_TOPICS
from tests.coherence import assert_coherent
from tests.fixtures.ledger import RunningLedger, ledger_running_on
from tests.fixtures.programs import start
from tests.fixtures.subscriber import committed, seals

SECONDS_MAX = 90.0
TENANTS = ("acme", "globex", "initech", "umbrella")


@asynccontextmanager
async def administrator(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.database_url)
    try:
        yield connection
    finally:
        await connection.close()


def name_of(settings: Settings) -> str:
    return urlsplit(settings.need_database_url()).path[1:]


@pytest.fixture
async def backup(stack: RunningStack, settings: Settings) -> AsyncIterator[str]:
    """The name of a backup, gone after the test."""
    name = f"{name_of(settings)}_backup"
    yield name
    async with administrator(stack) as connection:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def back_up(stack: RunningStack, settings: Settings, backup: str) -> None:
    """Copy the database as it is; whoever is still connected is sent away."""
    await copy_database(stack, name_of(settings), backup)


async def restore(stack: RunningStack, settings: Settings, backup: str) -> None:
    async with administrator(stack) as connection:
        await connection.execute(f"DROP DATABASE {name_of(settings)} WITH (FORCE)")
    await copy_database(stack, backup, name_of(settings))


async def copy_database(stack: RunningStack, source: str, target: str) -> None:
    async with administrator(stack) as connection:
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", source)
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                with contextlib.suppress(asyncpg.ObjectInUseError):
                    await connection.execute(f"CREATE DATABASE {target} TEMPLATE {source} STRATEGY = WAL_LOG")
                    return


async def traffic(ledger: RunningLedger, *numbers: int) -> None:
    """For each number and tenant a refund that comes before its payment, and the payment."""
    for number in numbers:
        for tenant in TENANTS:
            name, money = f"{tenant}-{number}", {"currency": "EUR", "customer_id": f"c{number % 3}"}
            refund = {"refund_id": name, "payment_id": name, "amount": 10} | money
            captured = {"payment_id": name, "amount": 1_000 + number, "fees": 3} | money
            await ledger.publish(ledger.event("refund.succeeded.v1", refund, tenant=tenant, id=f"r-{name}"))
            await ledger.publish(ledger.event("payment.captured.v1", captured, tenant=tenant, id=f"p-{name}"))
    await ledger.wait_until_drained()


async def went_back(stack: RunningStack, settings: Settings, backup: str) -> None:
    """Traffic, a backup, more traffic, the backup put back."""
    async with ledger_running_on(settings) as ledger:
        await traffic(ledger, *range(4))
    await back_up(stack, settings, backup)
    async with ledger_running_on(settings) as ledger:
        await traffic(ledger, *range(4, 8))
    await restore(stack, settings, backup)


async def read_everything_without_relay(settings: Settings) -> None:
    """Workers that go on with the restored books before anybody looked."""
    stop, ready = asyncio.Event(), asyncio.Event()
    worker = asyncio.create_task(run(settings, frozenset({"worker"}), ready=ready.set, stop=stop))
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        ends = await reaches(settings, [settings.topic(name) for name in READ_TOPICS])
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                rows = await connection.fetch("SELECT topic, partition, next_offset FROM input_offsets")
                read = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
                if all(read.get(place, reach.beginning) >= reach.end for place, reach in ends.items()):
                    return
                await asyncio.sleep(0.02)
    finally:
        await connection.close()
        stop.set()
        await worker


async def assert_nothing_lost_or_doubled(settings: Settings, events: int) -> dict[Place, bytes | None]:
    """Each event has one end; each output its id to itself; what counts in the streams is what the books said."""
    records = await committed(settings, *TOPICS)
    streams: defaultdict[Place, list[bytes | None]] = defaultdict(list)
    for record in records:
        place = place_of(record)
        assert place is not None
        streams[place].append(record.value)
    assert not [place for place, values in streams.items() if len(values) > 1], "an output came twice"
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        applied = await connection.fetch("SELECT event_id, count(*) FROM events WHERE outcome = 'applied' GROUP BY 1")
        assert {row["count"] for row in applied} == {1}
        assert len(applied) == events
        said = {
            Place(row["epoch"], row["shard"], seq): output.value
            for row in await connection.fetch("SELECT * FROM outbox")
            for seq, output in enumerate(unpack(row["body"]), row["seq_first"])
        }
        await assert_coherent(connection)
        heads = {row["shard"]: row for row in await connection.fetch("SELECT * FROM shards")}
    finally:
        await connection.close()
    in_streams = {place: values[0] for place, values in streams.items()}
    assert {place: in_streams[place] for place in said} == said
    for shard, row in heads.items():
        if row["next_seq"] == 1:
            continue
        last = (await seals(settings, shard))[-1]
        assert (last.seq_last, last.head_hash) == (row["next_seq"] - 1, row["head_hash"])
    return {place: value for place, value in in_streams.items() if place not in said}


async def test_after_a_restore_the_lost_tail_is_told_and_applied_again_under_a_new_epoch(
    stack: RunningStack, settings: Settings, backup: str
) -> None:
    await went_back(stack, settings, backup)
    recovery = await recover(settings)
    assert recovery.epoch == 2
    assert {finding.state for finding in recovery.shards if finding.lost} == {"books_behind"}
    assert not any(each.gone for each in recovery.inputs)
    lost = [output["output"] async for output in lost_outputs(settings, recovery)]
    assert len(lost) == len(set(lost)) == sum(finding.lost for finding in recovery.shards)
    again = await recover(settings)
    assert (again.epoch, {finding.state for finding in again.shards}) == (None, {"fits"})
    async with ledger_running_on(settings) as ledger:
        await traffic(ledger, 8, 9)
    withdrawn = await assert_nothing_lost_or_doubled(settings, events=10 * 2 * len(TENANTS))
    assert {f"{epoch}-{shard}-{seq}" for epoch, shard, seq in withdrawn} == set(lost)


async def test_what_workers_wrote_over_the_lost_tail_goes_out_under_the_new_epoch(
    stack: RunningStack, settings: Settings, backup: str
) -> None:
    await went_back(stack, settings, backup)
    await read_everything_without_relay(settings)
    recovery = await recover(settings)
    assert "diverged" in {finding.state for finding in recovery.shards}
    assert sum(finding.renamed for finding in recovery.shards) > 0
    async with ledger_running_on(settings) as ledger:
        await traffic(ledger, 8)
    withdrawn = await assert_nothing_lost_or_doubled(settings, events=9 * 2 * len(TENANTS))
    assert len(withdrawn) == sum(finding.lost for finding in recovery.shards)
    assert {place.epoch for place in withdrawn} == {1}


async def test_a_recovery_cut_off_before_its_seals_is_brought_to_its_end(
    stack: RunningStack, settings: Settings, backup: str, tmp_path: Path
) -> None:
    await went_back(stack, settings, backup)
    dying = await start(settings, "recover", tmp_path / "log", die_at="recover.committed")
    assert await dying.ended() == -9
    recovery = await recover(settings)
    assert (recovery.epoch, recovery.finished_before) == (None, True)
    # The database goes back a second time, to before the first recovery.
    await restore(stack, settings, backup)
    assert (await recover(settings)).epoch == 3
    async with ledger_running_on(settings) as ledger:
        await traffic(ledger, 8)
    await assert_nothing_lost_or_doubled(settings, events=9 * 2 * len(TENANTS))


async def test_a_healthy_ledger_is_left_as_it_is(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger_running_on(settings) as ledger:
        await traffic(ledger, 0)
        monkeypatch.setattr(recovering, "ALONE_SECONDS", 0.2)
        with pytest.raises(RecoveryRefusedError, match="stop every worker"):
            await recover(settings)
    monkeypatch.undo()
    assert states(await recover(settings)) == (None, {"fits"})
    assert states(await recover(settings, dry_run=True, force=True)) == (2, {"fits"})
    assert states(await recover(settings, force=True)) == (2, {"fits"})
    async with ledger_running_on(settings) as ledger:
        await traffic(ledger, 1)
    assert await assert_nothing_lost_or_doubled(settings, events=2 * 2 * len(TENANTS)) == {}


def states(recovery: Recovery) -> tuple[int | None, set[str]]:
    return recovery.epoch, {finding.state for finding in recovery.shards}
