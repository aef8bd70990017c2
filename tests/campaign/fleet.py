"""The ledger's processes: several workers and relays and a clock, each to be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.settings import Settings
from tests.fixtures.programs import environment_of


@dataclass(slots=True)
class Member:
    """One process, under a name; `process` is None while it is down on purpose."""

    role: str
    name: str
    more: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None


class Fleet:
    """Keeps its members running, as an orchestrator would; notes those that ended by themselves."""

    def __init__(self, settings: Settings, folder: Path, *, defect: str = "") -> None:
        self.settings = settings
        self.control = folder / "control"
        self.ended: list[str] = []
        self.members: list[Member] = []
        self._folder = folder
        self._defect = defect
        self.control.mkdir(parents=True)

    def start(self, role: str, name: str, **more: str) -> Member:
        member = Member(role, name, more)
        self.members.append(member)
        self.launch(member)
        return member

    def launch(self, member: Member) -> None:
        environment = environment_of(self.settings) | {
            "CAMPAIGN_CONTROL": str(self.control),
            "CAMPAIGN_DEFECT": self._defect,
            **member.more,
        }
        with (self._folder / f"{member.name}.log").open("ab") as log:
            command = [sys.executable, "-m", "tests.campaign.program", member.role]
            member.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def of(self, *roles: str) -> list[Member]:
        return [each for each in self.members if each.role in roles and each.process is not None]

    def draw(self, chance: random.Random, *roles: str) -> Member:
        return chance.choice(self.of(*roles))

    def send(self, member: Member, number: signal.Signals) -> None:
        if member.process is not None and member.process.poll() is None:
            member.process.send_signal(number)

    async def ready(self, member: Member, seconds_max: float = 120.0) -> bool:
        """Whether it came to work in this time."""
        log, deadline = self._folder / f"{member.name}.log", time.monotonic() + seconds_max
        while time.monotonic() < deadline:
            if member.process is None or member.process.poll() is not None:
                return False
            if "ready" in log.read_text().splitlines():
                return True
            await asyncio.sleep(0.1)
        return False

    async def end(self, member: Member, number: signal.Signals, seconds_max: float = 90.0) -> None:
        """End one and don't start it again."""
        process, member.process = member.process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        try:
            await asyncio.to_thread(process.wait, seconds_max)
        except subprocess.TimeoutExpired:
            # What its tasks wait for goes into its log, and is said with the verdict.
            process.send_signal(signal.SIGUSR1)
            await asyncio.sleep(1)
            said = (self._folder / f"{member.name}.log").read_text()[-6_000:]
            self.ended.append(f"{member.name} didn't end in {seconds_max:g} s; {said}")
            process.kill()
            await asyncio.to_thread(process.wait)

    async def remove(self, member: Member, number: signal.Signals = signal.SIGTERM) -> None:
        await self.end(member, number)
        self.members.remove(member)

    async def end_all(self, number: signal.Signals = signal.SIGTERM, *, roles: Sequence[str] = ()) -> None:
        """End all, or those of these roles."""
        ending = [member for member in self.members if not roles or member.role in roles]
        await asyncio.gather(*(self.end(member, number) for member in ending))

    def launch_all(self) -> None:
        for member in self.members:
            if member.process is None:
                self.launch(member)

    async def watch(self) -> None:
        """Start again what ended by itself, and note it."""
        while True:
            for member in self.members:
                if member.process is not None and (code := member.process.poll()) is not None:
                    self.ended.append(f"{member.name} ended by itself with exit code {code}")
                    self.launch(member)
            await asyncio.sleep(0.5)
