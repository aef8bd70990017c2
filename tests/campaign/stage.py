"""A ledger on which one named fault is done at one named point: its processes, what they say, and the verdict."""

# Small files of the campaign's own, and looking again: nothing here waits for anybody.
# ruff: noqa: ASYNC110

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import asyncpg
import psutil

from infra.devstack import RunningStack
from infra.drained import Rest, until_drained
from infra.faultpoints import VARIABLE
from infra.kafka.connection import quiet_aiokafka
from infra.kafka.topics import ensure_topics
from infra.settings import Settings
from tests.campaign import points
from tests.campaign.fleet import Fleet, Member
from tests.campaign.load import Drafted, story
from tests.campaign.publisher import Publisher
from tests.campaign.subscriber import listen, write
from tests.campaign.verdict import Verdict, judge
from tests.fixtures.database import database

SEED = 1
SECONDS_MAX = 150.0
"""For each named point: much longer than it takes, since a slow machine proves nothing."""
_LOOK_SECONDS = 0.02
_SMALL = {"batch_rows_max": 10, "relay_transaction_rows_max": 1}
"""Small batches, and a Kafka transaction for each of them, so that few records make several."""


class NotReachedError(AssertionError):
    """The scenario didn't come to its point: that says nothing about the ledger."""


class _AllReadError(Exception):
    """What was waited for."""


class Stage:
    """One new ledger of one shard, and whoever works on it."""

    def __init__(self, settings: Settings, folder: Path, defect: str) -> None:
        self.settings = settings
        self.fleet = Fleet(settings, folder, defect=defect)
        self.folder = folder
        self._publisher = Publisher(settings, SEED)

    async def publish(self, records: Sequence[Drafted]) -> None:
        await self._publisher.publish(records)

    # --- processes --------------------------------------------------------------------------------------------------

    def start(self, role: str, name: str, *, die_at: str = "", greedy: bool = False) -> Member:
        more = {VARIABLE: die_at, points.PASSED: str(self._passed(name))}
        return self.fleet.start(role, name, **more, **({"CAMPAIGN_GREEDY": "1"} if greedy else {}))

    async def ended(self, member: Member) -> None:
        """Return when it was killed at its point."""
        process = member.process
        assert process is not None
        await self._until(lambda: process.poll() is not None, f"the end of {member.name}", member)
        assert process.returncode == -signal.SIGKILL, self._log(member)
        member.process = None

    def freeze_at(self, point: str) -> None:
        """Whoever passes this point next stands still there."""
        (self.fleet.control / points.FREEZE).write_text(point)

    async def frozen(self, member: Member) -> None:
        """Return when it stands still at its point."""
        assert member.process is not None
        process = psutil.Process(member.process.pid)
        await self._until(lambda: process.status() == psutil.STATUS_STOPPED, f"{member.name} to freeze", member)

    def thaw(self, member: Member) -> None:
        self.fleet.send(member, signal.SIGCONT)

    async def passed(self, member: Member, point: str, times: int, or_said: str) -> None:
        """Return when it has passed this point so often, or has said this."""

        def fits() -> bool:
            return self._passed(member.name).read_text().splitlines().count(point) >= times or or_said in self._log(
                member
            )

        await self._until(fits, f"{member.name} at {point} {times} times", member)

    async def drained(self) -> None:
        """Return when everything published was read, and everything that came of it was published."""
        await until_drained(self.settings, seconds_max=SECONDS_MAX, while_true=self._all_work)

    async def all_read(self) -> None:
        """Return when everything published was read, whether or not anybody relays it."""

        def look(rest: Rest) -> None:
            if not rest.unread:
                raise _AllReadError

        with suppress(_AllReadError):
            await until_drained(self.settings, seconds_max=SECONDS_MAX, progress=look, while_true=self._all_work)

    async def verdict(self) -> Verdict:
        """End everybody as an operator would, and judge what is left."""
        await self.fleet.end_all()
        stop = asyncio.Event()
        stop.set()
        async with asyncio.timeout(SECONDS_MAX):
            seen = self.folder / "seen"
            write(await listen(self.settings, stop), seen)
            return await judge(self.settings, SEED, seen)

    async def close(self) -> None:
        await self._publisher.close()
        await self.fleet.end_all(signal.SIGKILL)

    # --- what they say ----------------------------------------------------------------------------------------------

    def _passed(self, name: str) -> Path:
        return self.fleet.control / f"{name}.passed"

    def _log(self, member: Member) -> str:
        return (self.folder / f"{member.name}.log").read_text()

    async def _all_work(self) -> None:
        for member in self.fleet.members:
            if member.process is not None and (code := member.process.poll()) is not None:
                raise NotReachedError(f"{member.name} ended with {code}: {self._log(member)[-2_000:]}")

    async def _until(self, fits: Callable[[], bool], what: str, member: Member) -> None:
        try:
            async with asyncio.timeout(SECONDS_MAX):
                while not fits():
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError as late:
            raise NotReachedError(f"{what}: not in {SECONDS_MAX:g} s; it said {self._log(member)[-2_000:]}") from late


def _any(_record: Drafted) -> bool:
    return True


@asynccontextmanager
async def stage(stack: RunningStack, folder: Path, name: str, defect: str) -> AsyncIterator[Stage]:
    """A new ledger with its topics on servers that others use, too."""
    async with database(stack, shards=1) as url:
        prefix = f"{name}{'' if defect else '-sound'}."
        settings = replace(
            Settings(), database_url=url, kafka_bootstrap=stack.kafka_bootstrap, topic_prefix=prefix,
            group_id=f"{prefix}group", client_id="campaign", shards=1, parking_patience=1e8, **_SMALL,
        )  # fmt: skip
        quiet_aiokafka(settings)
        async with asyncpg.create_pool(settings.asyncpg_dsn, min_size=1, max_size=1) as pool:
            await ensure_topics(settings, pool)
        made = Stage(settings, folder, defect)
        try:
            yield made
        finally:
            await made.close()


def stories(count: int, *, types: Set[str], first: int = 0, fit: Callable[[Drafted], bool] = _any) -> list[Drafted]:
    """The first so many stories, from one of them on, that are told in events of these types alone, and all fit."""
    found: list[Drafted] = []
    number = first
    while count:
        drafted = story(SEED, number)
        if all(each.event and each.event["type"] in types and fit(each) for each in drafted):
            found += drafted
            count -= 1
        number += 1
    return found


def accounts_of(record: Drafted) -> set[tuple[str, str]]:
    """Which accounts a request names, with their tenant."""
    assert record.event is not None
    data = record.event["data"]
    names = [data["name"]] if "name" in data else [leg["account"] for leg in data["postings"]]
    return {(record.event["tenantid"], name) for name in names}
