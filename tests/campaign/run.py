"""A campaign from its beginning to its verdict."""

# Small files of the campaign's own, and looking again: nothing here waits for anybody.
# ruff: noqa: ASYNC220, ASYNC240

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from infra.drained import NotDrainedError, Rest, until_drained
from infra.settings import SettingsError
from tests.campaign.fleet import Fleet
from tests.campaign.nemesis import FAULTS, Nemesis
from tests.campaign.pace import LOOK_SECONDS, Pace
from tests.campaign.publisher import Publisher
from tests.campaign.recovery import Recovery
from tests.campaign.servers import Servers
from tests.campaign.verdict import Verdict, judge
from tests.fixtures.programs import environment_of

_FIRST = 300
# Several processes start at once, and others may be at work on this machine.
_WORKS_SECONDS = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for, at `rate_least` records a second or more.

    `calm_seconds` pass after a fault, on average; `warm_events` are published before any.
    """

    seed: int = 1
    minutes: float = 1.0
    events: int = 0
    rate_least: float = 280.0
    scenario: str = "all"
    workers: int = 2
    relays: int = 2
    shards: int = 4
    defect: str = ""
    calm_seconds: float = 1.0
    warm_events: int = 0
    drain_seconds: float = 1_800.0
    rebuild: bool = True

    @property
    def rate(self) -> float:
        """Records a second."""
        return max(self.rate_least, self.events / (self.minutes * 60) * 1.02)


def fault_names(scenario: str) -> list[str]:
    """The faults of a scenario: `all`, `random`, or names with commas between."""
    return list(FAULTS) if scenario in ("all", "random") else scenario.split(",")


class Campaign:
    """One run, on servers of its own in a directory of its own: `begin`, some faults, `end`; in any case `close`."""

    def __init__(self, plan: Plan, folder: Path, out: TextIO = sys.stdout) -> None:
        self.plan = plan
        self.servers = Servers(folder / "stack")
        self.folder = folder
        self._out = out
        self._begin = time.monotonic()
        self.pace = Pace(lambda: self.servers.direct, lambda: self.publisher.published, self.say)
        self._unread = 0
        self._stop = asyncio.Event()
        self._notes = folder / "seen"
        self._tasks: list[asyncio.Task[None]] = []

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._begin:7.1f} s  {text}", file=self._out, flush=True)

    async def run(self) -> Verdict:
        try:
            await self.begin()
            await self._harm()
            return await self.end()
        finally:
            await self.close()

    async def begin(self) -> None:
        """Return when everything works under load: from now on harm does harm."""
        plan = self.plan
        self.say(f"seed {plan.seed}: {plan.scenario}, {plan.minutes:g} min, {plan.defect or 'no defect'}")
        await self.servers.start(plan.shards)
        self.fleet = Fleet(self.servers.settings, self.folder, defect=plan.defect)
        self.subscriber = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.subscriber", str(self._notes)],
            env=environment_of(self.servers.direct),
        )
        self.publisher = Publisher(self.servers.direct, plan.seed)
        self.nemesis = Nemesis(self.servers, self.fleet, self.publisher, Recovery(self.servers, self.fleet))
        for role, count in (("worker", plan.workers), ("relay", plan.relays), ("clock", 1)):
            for number in range(count):
                self.fleet.start(role, f"{role}-{number}")
        await self.publisher.publish_next(_FIRST)
        await self.pace.read_to(_FIRST, _WORKS_SECONDS)
        self._tasks = [asyncio.create_task(each) for each in (self.fleet.watch(), self.pace.watch())]
        # How fast it goes without any harm is seen first.
        await self.publisher.publish_next(plan.warm_events)
        await self.pace.read_to(_FIRST + plan.warm_events, _WORKS_SECONDS)
        self.pace.phase = "faults"
        self._tasks.append(asyncio.create_task(self.publisher.run(plan.rate, plan.events, self._stop)))

    async def harm(self, name: str, chance: random.Random) -> bool:
        """Do this once; whether it was done to its end."""
        try:
            told, whole = await FAULTS[name](self.nemesis, chance), True
        except Exception as failure:
            # The nemesis met what it had made itself; the ledger has to bear it all the same.
            told, whole = f"{name} was not done to its end: {failure!r}", False
            await self.nemesis.heal()
        self.pace.figures.faults[name] += 1
        self.say(told)
        return whole

    async def works(self) -> None:
        """Return when records are read again, so that the next harm does harm, too."""
        await self.pace.reads_on(_WORKS_SECONDS)

    async def end(self) -> Verdict:
        """Undo all harm, read on to the end, and judge."""
        return await self.judge(await self.settle())

    async def settle(self) -> list[str]:
        """Undo all harm, read on to the end, and end everything as an operator would; what went wrong with that."""
        keeping, watching, load = self._tasks
        await self.nemesis.heal()
        self._stop.set()
        await load
        self.pace.phase = "after"
        self.pace.figures.published = self.publisher.published
        self.say(f"{self.publisher.published:,} records published; healing, and reading on to the end")
        faults = await self._drain()
        keeping.cancel()
        watching.cancel()
        # What the clock and the workers did last is published, too.
        await self.fleet.end_all(roles=("clock", "worker"))
        faults += [] if faults else await self._drain()
        await self.fleet.end_all()
        self.subscriber.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.subscriber.wait, 300)
        return faults + self.fleet.ended

    async def judge(self, faults: list[str]) -> Verdict:
        """The verdict on a ledger at rest, with these faults among its own."""
        self.say("judging")
        servers, lost = self.servers, self.nemesis.recovery.lost
        into = await servers.empty_database("rebuilt") if self.plan.rebuild else ""
        verdict = await judge(servers.direct, self.plan.seed, self._notes, lost, rebuild_into=into, say=self.say)
        verdict.faults += faults
        verdict.read_on = self._unread == 0
        self._tell(verdict)
        return verdict

    async def close(self) -> None:
        """Leave nothing behind but the logs."""
        for task in self._tasks:
            task.cancel()
        if hasattr(self, "publisher"):
            await self.publisher.close()
            await self.fleet.end_all(signal.SIGKILL)
            if self.subscriber.poll() is None:
                self.subscriber.kill()
                self.subscriber.wait()
        await self.servers.stop()

    async def _harm(self) -> None:
        names = fault_names(self.plan.scenario)
        chance = random.Random(f"nemesis {self.plan.seed}")
        # `all` is each of them once, in the order of the seed; chosen ones and random ones go on for their time.
        once = chance.sample(names, len(names)) if self.plan.scenario == "all" else []
        end = time.monotonic() + self.plan.minutes * 60
        while once or (self.plan.scenario != "all" and time.monotonic() < end):
            name = once.pop() if once else chance.choice(names)
            # A seed of its own each: what one draws doesn't depend on how long another took.
            own = random.Random(chance.random())
            await self.harm(name, own)
            await asyncio.sleep(self.plan.calm_seconds * own.uniform(0.5, 1.5))

    async def _drain(self) -> list[str]:
        last = time.monotonic()

        def tell(rest: Rest) -> None:
            nonlocal last
            self._unread = rest.unread
            if time.monotonic() - last > LOOK_SECONDS:
                last = time.monotonic()
                self.say(f"still to be read {rest.unread:,}, to be published {rest.unrelayed:,}")

        try:
            await until_drained(self.servers.direct, seconds_max=self.plan.drain_seconds, progress=tell)
        except (NotDrainedError, SettingsError) as fault:
            return [str(fault)]
        return []

    def _tell(self, verdict: Verdict) -> None:
        for line in self.pace.figures.told():
            self.say(line)
        self.say("counts: " + ", ".join(f"{name} {count:,}" for name, count in sorted(verdict.counts.items())))
        for fault in verdict.faults[:30]:
            self.say(f"FAULT {fault}")
        self.say("nothing lost, nothing doubled" if verdict.good else f"RED: {len(verdict.faults)} faults")

    def document(self, verdict: Verdict) -> dict[str, Any]:
        """All of it for programs."""
        plan = {"seed": self.plan.seed, "scenario": self.plan.scenario, "minutes": self.plan.minutes}
        found = {"good": verdict.good, "faults_found": verdict.faults, "counts": dict(sorted(verdict.counts.items()))}
        return plan | self.pace.figures.as_json() | found


async def campaign(
    plan: Plan,
    make_folder: Callable[[], str] | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Verdict:
    """Run it in a temporary directory; the logs of its processes stay there where the verdict is red.

    `tell` is given everything that was found as one document; what is said for people goes to standard error then.
    """
    folder = Path(make_folder() if make_folder else tempfile.mkdtemp(prefix="ledgerstream-faults-"))
    folder.chmod(0o755)
    running = Campaign(plan, folder, sys.stderr if tell else sys.stdout)
    verdict = await running.run()
    if tell:
        tell(running.document(verdict))
    if not verdict.good:
        running.say(f"the logs are in {folder}")
    return verdict
