"""For each defect the smallest scenario that brings it out: one fault at one named point, and what the verdict says.

Each is played twice, with the defect and without it: found is a defect only where the verdict is red by the line
that this defect causes, and green without it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from infra.devstack import RunningStack
from tests.campaign.groups import forget_members, move_offsets
from tests.campaign.load import again
from tests.campaign.stage import Stage, accounts_of, stage, stories
from tests.campaign.verdict import Verdict

_SALES = {"payment.captured.v1", "transfer.created.v1"}
_REQUESTS = {"account.create.v1", "entry.post.v1"}
_LOST = r"has no end, and is no duplicate"
_DOUBLED = r"^output \S+ came twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """A defect's scenario; `caught_by` is a pattern of the verdict's line that this defect causes."""

    about: str
    play: Callable[[Stage], Awaitable[None]]
    caught_by: str


@dataclass(slots=True)
class Played:
    """What came of a drill: the verdict with the defect and without it, and the seconds that both took."""

    defect: str
    drill: Drill
    harmed: Verdict
    sound: Verdict
    seconds: float
    caught: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.caught = [fault for fault in self.harmed.faults if re.search(self.drill.caught_by, fault)]

    @property
    def found(self) -> bool:
        return bool(self.caught) and self.sound.good


async def play(stack: RunningStack, folder: Path, defect: str) -> Played:
    """Both at the same time, each on a ledger of its own. Raises: NotReachedError, NotDrainedError."""
    begin = time.monotonic()
    drill = DRILLS[defect]
    async with asyncio.TaskGroup() as both:
        harmed = both.create_task(_play_once(stack, folder / "harmed", drill, defect, defect))
        sound = both.create_task(_play_once(stack, folder / "sound", drill, defect, ""))
    return Played(defect, drill, harmed.result(), sound.result(), time.monotonic() - begin)


async def _play_once(stack: RunningStack, folder: Path, drill: Drill, name: str, defect: str) -> Verdict:
    async with stage(stack, folder, name, defect) as at:
        await drill.play(at)
        return await at.verdict()


# --- what goes in ---------------------------------------------------------------------------------------------------


async def _moved_while_away(at: Stage) -> None:
    await at.publish(stories(15, types=_SALES))
    await move_offsets(at.settings, to_end=True)
    # So that the defective has something to read as well, and comes to the end.
    await at.publish(stories(15, types=_SALES, first=1_000))
    at.start("run", "ledger")
    await at.drained()


async def _killed_before_the_commit(at: Stage) -> None:
    await at.publish(stories(30, types=_SALES))
    await at.ended(at.start("worker", "dying", die_at="ledger.saved"))
    await forget_members(at.settings)
    at.start("run", "next")
    await at.drained()


async def _everything_twice(at: Stage) -> None:
    records = stories(10, types=_SALES)
    at.start("run", "ledger")
    await at.publish(records)
    await at.drained()
    await at.publish([again(each, 1) for each in records])
    await at.drained()


async def _cut_off_before_the_commit(at: Stage) -> None:
    opened = stories(15, types=_REQUESTS)
    known = set().union(*map(accounts_of, opened))
    # What the batch changes is in memory: an account that it opens would be refused by the database, opened again.
    moves = stories(10, types=_REQUESTS, first=1_000, fit=lambda each: accounts_of(each) <= known)
    await at.publish(opened)
    worker = at.start("run", "ledger")
    await at.drained()
    at.freeze_at("ledger.saved")
    await at.publish(moves)
    await at.frozen(worker)
    connection = await asyncpg.connect(at.settings.asyncpg_dsn)
    try:
        # Where this took longer than a transaction may idle, Postgres has done so by itself.
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 10_000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
        )
    finally:
        await connection.close()
    at.thaw(worker)
    await at.drained()


# --- what goes out --------------------------------------------------------------------------------------------------


async def _with_books(at: Stage) -> None:
    """Something for relays to do."""
    await at.publish(stories(20, types=_SALES))
    at.start("worker", "worker")
    await at.all_read()


async def _killed_after_a_commit(at: Stage) -> None:
    await _with_books(at)
    await at.ended(at.start("relay", "dying", die_at="relay.committed"))
    at.start("relay", "next")
    await at.drained()


async def _frozen_between_two_transactions(at: Stage) -> None:
    await _with_books(at)
    at.freeze_at("relay.epoch")
    first = at.start("relay", "first")
    await at.frozen(first)
    at.start("relay", "second", greedy=True)
    await at.drained()
    at.thaw(first)
    await at.passed(first, "relay.epoch", 2, or_said="in doubt")


async def _a_late_end_and_a_kill(at: Stage) -> None:
    await _with_books(at)
    switch = at.fleet.control / "late"
    switch.touch()
    await at.ended(at.start("relay", "dying", die_at="relay.sent:2"))
    switch.unlink()
    at.start("relay", "next")
    await at.drained()


DRILLS: dict[str, Drill] = {
    "trust-kafka": Drill(
        about="Kafka's committed offsets are moved to the end while no worker runs", play=_moved_while_away,
        caught_by=_LOST,
    ),
    "offsets-first": Drill(
        about="a worker is killed when its first batch is written and not committed", play=_killed_before_the_commit,
        caught_by=_LOST,
    ),
    "publish-outside": Drill(
        about="a relay is killed when its first commit is acknowledged", play=_killed_after_a_commit,
        caught_by=_DOUBLED,
    ),
    "no-keys": Drill(
        about="events come again under other ids", play=_everything_twice,
        caught_by=r"is a duplicate, and was judged",
    ),
    "no-fencing": Drill(
        about="a relay freezes between two transactions, another does its work, and it thaws",
        play=_frozen_between_two_transactions, caught_by=_DOUBLED,
    ),
    "one-epoch": Drill(
        about="the end of a transaction comes again in the next one, before whose commit the relay is killed",
        play=_a_late_end_and_a_kill, caught_by=_DOUBLED,
    ),
    "early-cache": Drill(
        about="Postgres drops a worker's session when a batch is written and not committed",
        play=_cut_off_before_the_commit, caught_by=r"the entry at seq \d+ differs from the model's",
    ),
}  # fmt: skip
