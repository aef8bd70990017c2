"""The verdict: every published record has one end, and whatever was said is what the contract says, once."""

# Small files of the campaign's own, and looking again: nothing here waits for anybody.
# ruff: noqa: ASYNC240

from __future__ import annotations

import asyncio
import json
import pickle
import sys
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from infra.outbox import DEAD_LETTER, TOPICS, Output, unpack
from infra.settings import Settings
from tests.campaign.judge import Judge
from tests.campaign.load import Name, record
from tests.campaign.seen import Place, digest
from tests.campaign.subscriber import Notes
from tests.fixtures.programs import environment_of

_SHOWN = 12
_UNREAD, _JUDGED, _DEAD = 0, 1, 2


@dataclass(slots=True)
class Verdict:
    """What was found; `faults` empty is a pass. `read_on` is whether everything was read before it was judged."""

    read_on: bool = True
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def good(self) -> bool:
        return not self.faults


class _Ends:
    """Each published record by topic, partition and offset: who it is, and how it ended."""

    def __init__(self, notes: Notes, prefix: str, seed: int) -> None:
        self.prefix, self.seed, self.records = prefix, seed, notes.records
        self.ends = {place: array("B", bytes(len(names))) for place, names in notes.records.items()}

    def end(self, topic: str, partition: int, offset: int, how: int) -> int | None:
        """Note a record's end; its packed name, None where there is no such record, -1 where it had one already."""
        place = topic.removeprefix(self.prefix), partition
        names = self.records.get(place)
        if names is None or offset >= len(names) or names[offset] < 0:
            return None
        if self.ends[place][offset]:
            return -1
        self.ends[place][offset] = how
        return names[offset]

    def leftover(self) -> dict[str, list[Any]]:
        """By tenant, the events without a row; under "" the records that are none and have no dead letter."""
        found: defaultdict[str, list[Any]] = defaultdict(list)
        for place, ends in self.ends.items():
            for offset, end in enumerate(ends):
                packed = self.records[place][offset]
                if end == _UNREAD and packed >= 0:
                    event = record(self.seed, Name.unpack(packed)).event
                    found["" if event is None else event["tenantid"]].append(event or f"{place} {offset}")
        return found


async def judge(settings: Settings, seed: int, notes_file: Path, lost: Set[Place] = frozenset()) -> Verdict:
    """Judge a ledger at rest: its database against what the subscriber saw and what the model says."""
    begin = time.monotonic()
    notes: Notes = pickle.loads(notes_file.read_bytes())
    verdict = Verdict(faults=list(notes.faults))
    ends = _Ends(notes, settings.topic_prefix, seed)
    verdict.counts.update({f"published {topic}": count for topic, count in notes.counts.items()})
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        await _end_all(connection, ends, verdict)
        leftover = ends.leftover()
        verdict.faults += [f"{what} has no dead letter" for what in leftover.pop("", [])[:_SHOWN]]
        verdict.counts["duplicates"] = sum(map(len, leftover.values()))
        for shard in range(settings.shards):
            await _judge_shard(connection, shard, notes, ends, leftover, verdict, lost)
            del verdict.faults[200:]
        verdict.faults += [f"{tenant}: {len(events)} events, none has a row" for tenant, events in leftover.items()]
    finally:
        await connection.close()
    verdict.counts["seconds of judging"] = round(time.monotonic() - begin)
    left = [place for place in notes.seen.left() if place not in lost]
    verdict.counts["outputs of lost commits"] = len(lost)
    verdict.faults += [f"output {place} was published and is in no book" for place in left[:_SHOWN]]
    if verdict.good:
        # It goes through everything once more: not where it is red already.
        begin = time.monotonic()
        verdict.faults += await _verify(settings)
        verdict.counts["seconds of verify --deep"] = round(time.monotonic() - begin)
    return verdict


async def _end_all(connection: Any, ends: _Ends, verdict: Verdict) -> None:
    """Every row of the journal is one record's end."""
    async with connection.transaction():
        query = 'SELECT topic, partition, "offset", seq FROM events WHERE resumes IS NULL AND topic IS NOT NULL'
        async for topic, partition, offset, seq in connection.cursor(query, prefetch=5_000):
            name = ends.end(topic, partition, offset, _JUDGED)
            verdict.counts["judged"] += 1
            if name is None or name < 0:
                verdict.faults.append(f"seq {seq} judges {topic}[{partition}] {offset}, {_why(name)}")
        query = 'SELECT topic, partition, "offset", seq FROM dead_letters'
        async for topic, partition, offset, seq in connection.cursor(query, prefetch=1_000):
            name = ends.end(topic, partition, offset, _DEAD)
            verdict.counts["dead letters"] += 1
            if name is None or name < 0:
                verdict.faults.append(f"seq {seq} is a dead letter of {topic}[{partition}] {offset}, {_why(name)}")
            elif record(ends.seed, Name.unpack(name)).event is not None:
                verdict.faults.append(f"{topic}[{partition}] {offset} is an event, and became a dead letter")


def _why(name: int | None) -> str:
    return "which nobody published" if name is None else "which has an end already"


async def _judge_shard(
    connection: Any,
    shard: int,
    notes: Notes,
    ends: _Ends,
    leftover: dict[str, list[Any]],
    verdict: Verdict,
    lost: Set[Place],
) -> None:
    judge = Judge()
    last = dict(await connection.fetch("SELECT tenant_id, max(seq) FROM events WHERE shard = $1 GROUP BY 1", shard))
    topics: dict[int, array[int]] = {}
    async with connection.transaction():
        rows = connection.cursor("SELECT * FROM events WHERE shard = $1 ORDER BY seq", shard, prefetch=2_000)
        events = aiter(rows)
        row = await anext(events, None)
        pending: list[Output] = []
        closing: list[str] = []
        body = connection.cursor("SELECT * FROM outbox WHERE shard = $1 ORDER BY seq_last", shard, prefetch=10)
        async for batch in body:
            counted = topics.setdefault(batch["epoch"], array("B"))
            for seq, output in enumerate(unpack(batch["body"]), batch["seq_first"]):
                _compare(notes, (batch["epoch"], shard, seq), output, verdict)
                counted.extend([255] * (seq - len(counted)))
                counted.append(output.topic)
                if output.type == DEAD_LETTER:
                    continue
                pending.append(output)
                if row is not None and len(pending) == row["outputs"]:
                    judge.hear(row, pending, _event_of(judge, row, ends))
                    if last[row["tenant_id"]] == row["seq"]:
                        closing.append(row["tenant_id"])
                    pending = []
                    row = await anext(events, None)
            while closing:
                tenant = closing.pop()
                await judge.close(connection, tenant, leftover.pop(tenant, ()))
    if pending or row is not None:
        verdict.faults.append(f"shard {shard}: journal and outbox don't end together")
    verdict.counts["entries"] += judge.entries
    verdict.faults += judge.faults[:_SHOWN]
    verdict.faults += _seal_faults(shard, notes, topics, lost)


def _event_of(judge: Judge, row: asyncpg.Record, ends: _Ends) -> Any:
    names = ends.records.get((str(row["topic"]).removeprefix(ends.prefix), row["partition"]))
    if names is None or row["offset"] >= len(names):
        return None
    event = record(ends.seed, Name.unpack(names[row["offset"]])).event
    if row["resumes"] is not None and row["outcome"] == "rejected" and event is not None:
        judge.gave_back(row["tenant_id"], event)
    return event if row["resumes"] is None else None


def _compare(notes: Notes, place: Place, output: Output, verdict: Verdict) -> None:
    verdict.counts["outputs"] += 1
    found = notes.seen.take(place)
    if found != digest(TOPICS[output.topic], output.key, output.value) and len(verdict.faults) < 100:
        verdict.faults.append(f"output {place} " + ("was published otherwise" if found else "was never published"))


def _seal_faults(shard: int, notes: Notes, topics: dict[int, array[int]], lost: Set[Place]) -> list[str]:
    """The seals follow one another, and count what is in the books for their range."""
    faults = []
    for epoch, told in topics.items():
        reached = None
        for first, last, counts in notes.seals.get((epoch, shard), []):
            if reached is not None and first != reached + 1:
                faults.append(f"shard {shard}: a seal goes on with {first} after {reached}")
            found = Counter(told[first : last + 1])
            if last < len(told) and {TOPICS[index]: n for index, n in found.items() if index != 255} != counts:
                faults.append(f"shard {shard}: the seal of {first} to {last} counts {counts}, the books have {found}")
            reached = last
        beyond = [(epoch, shard, seq) for seq in range(len(told), (reached or 0) + 1)]
        if (reached or 0) < len(told) - 1 or not all(place in lost for place in beyond):
            faults.append(f"shard {shard}: epoch {epoch} is sealed up to {reached}, the books end at {len(told) - 1}")
    return faults[:_SHOWN]


async def _verify(settings: Settings) -> list[str]:
    """`ledgerstream verify --deep`, as an operator runs it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "consumers.cli", "verify", "--deep", "--json",
        env=environment_of(settings), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, errors = await process.communicate()
    if not said:
        return [f"verify said nothing: {errors.decode()[-500:]}"]
    checks = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    return [f"verify: {check['check']}: {check['rows']}, {check['detail']}" for check in checks if not check["ok"]]
