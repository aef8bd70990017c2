"""The verdict: every published record has one end, and whatever was said is what the contract says, once."""

# Small files of the campaign's own: nothing here waits for anybody.
# ruff: noqa: ASYNC240

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from infra.kafka.partitioner import partition_of
from infra.settings import Settings
from tests.campaign.aftermath import rebuilt_alike, verified
from tests.campaign.copies import Partition
from tests.campaign.ends import DEAD, FIRST_SHARD, Ends
from tests.campaign.seen import Place
from tests.campaign.shard import SHOWN, Findings, ShardCase
from tests.campaign.subscriber import Notes


@dataclass(slots=True)
class Verdict:
    """What was found; `faults` empty is a pass. `read_on` is whether everything was read before it was judged."""

    read_on: bool = True
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> bool:
        return not self.faults


@dataclass(slots=True)
class _Leftover:
    """A shard's records without a row, and how many each tenant has."""

    offsets: defaultdict[Partition, list[int]] = field(default_factory=lambda: defaultdict(list))
    tenants: Counter[str] = field(default_factory=Counter)


async def judge(
    settings: Settings,
    seed: int,
    notes_file: Path,
    lost: Set[Place] = frozenset(),
    *,
    rebuild_into: str = "",
    say: Callable[[str], None] = lambda _text: None,
) -> Verdict:
    """Judge a ledger at rest: its database against what the subscriber saw and what the model says.

    `rebuild_into` is the URL of an empty database: the journal must give the same digest there.
    """
    notes: Notes = pickle.loads(notes_file.read_bytes())
    verdict = Verdict(faults=list(notes.faults))
    verdict.counts.update({f"published {topic}": count for topic, count in notes.counts.items()})
    begin = time.monotonic()
    ends = Ends(notes.records, settings.topic_prefix, seed)
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        lost = lost | await _taken_back(connection)
        verdict.counts["outputs of lost commits"] = len(lost)
        await _end_all(connection, ends, verdict)
        shards = await _leftover_by_shard(connection, settings.shards, ends, verdict)
    finally:
        await connection.close()
    verdict.faults += [
        f"output {place} was published and is of no shard"
        for place in notes.seen.left() if place[1] >= settings.shards
    ][:SHOWN]  # fmt: skip
    del notes
    for findings in await _judge_shards(settings, seed, notes_file, lost, ends, shards):
        verdict.faults += findings.faults
        verdict.counts.update(findings.counts)
    verdict.counts["seconds of judging"] = round(time.monotonic() - begin)
    if verdict.good:
        # They go through everything once more: not where it is red already.
        say("every record was judged; verifying")
        await _look_again(settings, rebuild_into, verdict, say)
    return verdict


async def _look_again(settings: Settings, rebuild_into: str, verdict: Verdict, say: Callable[[str], None]) -> None:
    begin = time.monotonic()
    verdict.faults += await verified(settings)
    verdict.counts["seconds of verify --deep"] = round(time.monotonic() - begin)
    if rebuild_into:
        say("rebuilding the ledger from its journal")
        begin = time.monotonic()
        verdict.faults += await rebuilt_alike(settings, rebuild_into)
        verdict.counts["seconds of the rebuild"] = round(time.monotonic() - begin)


async def _taken_back(connection: Any) -> set[Place]:
    """Outputs that recoveries found in the streams and not in the books; one that was cut off may not have said so."""
    rows = await connection.fetch("SELECT streams_epoch, shard, outputs_from, streams_seq FROM recoveries WHERE sealed")
    return {(epoch, shard, seq) for epoch, shard, first, last in rows for seq in range(first, last + 1)}


async def _end_all(connection: Any, ends: Ends, verdict: Verdict) -> None:
    """Every row of the journal is one record's end."""
    async with connection.transaction():
        query = 'SELECT shard, topic, partition, "offset", seq FROM events WHERE resumes IS NULL AND topic IS NOT NULL'
        async for shard, topic, partition, offset, seq in connection.cursor(query, prefetch=5_000):
            verdict.counts["judged"] += 1
            if wrong := ends.end(topic, partition, offset, FIRST_SHARD + shard):
                verdict.faults.append(f"seq {seq} of shard {shard} judges {topic}[{partition}] {offset}, {wrong}")
        query = 'SELECT topic, partition, "offset", seq FROM dead_letters'
        async for topic, partition, offset, seq in connection.cursor(query, prefetch=1_000):
            verdict.counts["dead letters"] += 1
            if wrong := ends.end(topic, partition, offset, DEAD):
                verdict.faults.append(f"seq {seq} is a dead letter of {topic}[{partition}] {offset}, {wrong}")
            elif ends.event(ends.place_of(topic, partition), offset) is not None:
                verdict.faults.append(f"{topic}[{partition}] {offset} is an event, and became a dead letter")
    del verdict.faults[200:]


async def _leftover_by_shard(connection: Any, shards: int, ends: Ends, verdict: Verdict) -> list[_Leftover]:
    """The events without a row, by the shard that must have known them."""
    homes: dict[str, int] = dict(await connection.fetch("SELECT tenant_id, shard FROM tenants"))
    found = [_Leftover() for _ in range(shards)]
    offsets, faults = ends.leftover()
    verdict.faults += [f"{place} {offset} has no dead letter" for place, offset in faults[:SHOWN]]
    for place, offset, tenant in offsets:
        shard = homes.get(tenant, partition_of(tenant.encode(), shards))
        found[shard].offsets[place].append(offset)
        found[shard].tenants[tenant] += 1
    verdict.counts["duplicates"] = sum(leftover.tenants.total() for leftover in found)
    return found


async def _judge_shards(
    settings: Settings, seed: int, notes_file: Path, lost: Set[Place], ends: Ends, shards: Sequence[_Leftover]
) -> list[Findings]:
    """One after the other, or as many side by side as there are cores."""
    told = [(settings, seed, notes_file, lost, dict(ends.ends), shard, left) for shard, left in enumerate(shards)]
    if len(shards) == 1:
        return [await _judge_shard(*told[0])]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(shards), os.cpu_count() or 1), mp_context=context) as pool:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, _judge_alone, each) for each in told))


def _judge_alone(told: tuple[Any, ...]) -> Findings:
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    return asyncio.run(_judge_shard(*told))


async def _judge_shard(
    settings: Settings,
    seed: int,
    notes_file: Path,
    lost: Set[Place],
    ended: Mapping[Partition, Any],
    shard: int,
    left: _Leftover,
) -> Findings:
    notes: Notes = pickle.loads(notes_file.read_bytes())
    ends = Ends(notes.records, settings.topic_prefix, seed)
    ends.ends = dict(ended)
    return await ShardCase(shard, notes, ends, left.offsets, left.tenants, lost).hear(settings)
