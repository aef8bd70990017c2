"""`ledgerstream run` as a process of its own, for as long as the demo needs it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import IO

from infra.settings import Settings

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 20.0
RESOLVER_SECONDS = 5.0
"""More than the usual budget of a resolver: what the demo shows must not hang on how busy this machine is."""
_LOG_TAIL_BYTES = 2_000


class LedgerEndedError(Exception):
    """The ledger's process has ended, or never got ready; the message has the end of what it said."""


class LedgerProcess:
    """A running ledger, and what it says."""

    def __init__(self, settings: Settings, log: IO[bytes]) -> None:
        self._settings = settings
        self._log = log
        self._process: Process | None = None

    async def run_with(self, category_resolver: str | None) -> bool:
        """Start it, or start it anew where it runs with another category resolver; whether it was started.

        Ready when this returns. Raises: LedgerEndedError.
        """
        settings = replace(self._settings, expense_category_resolver=category_resolver)
        if self._process is not None and settings == self._settings:
            return False
        await self.stop()
        self._settings = settings
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "consumers.cli",
            "run",
            env=_environment(settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=self._log,
            # Ctrl-C at the terminal is for us; we tell the ledger in our own time.
            start_new_session=True,
        )
        await self._until_ready(self._process)
        return True

    async def check(self) -> None:
        """Raises: LedgerEndedError, if it runs no more."""
        if self._process is not None and self._process.returncode is not None:
            raise self._ended(f"it ended with exit code {self._process.returncode}")

    async def _until_ready(self, process: Process) -> None:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_SECONDS_MAX):
                while line := await process.stdout.readline():
                    if line.strip() == b"ready":
                        return
                await process.wait()
        except TimeoutError:
            raise self._ended(f"it wasn't ready within {READY_SECONDS_MAX:g} s") from None
        await self.check()

    async def stop(self) -> None:
        """End it as an operator would; by force if that isn't heard."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _ended(self, why: str) -> LedgerEndedError:
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _LOG_TAIL_BYTES))
        said = self._log.read().decode(errors="replace").strip()
        return LedgerEndedError(f"the ledger doesn't run: {why}; the end of what it said:\n{said or '(nothing)'}")


@asynccontextmanager
async def running_ledger(settings: Settings) -> AsyncIterator[LedgerProcess]:
    """Worker, relay and clock in a process of their own, ready; stopped afterwards. Raises: LedgerEndedError."""
    with tempfile.TemporaryFile() as log:
        ledger = LedgerProcess(settings, log)
        try:
            await ledger.run_with(settings.expense_category_resolver)
            yield ledger
        finally:
            await asyncio.shield(ledger.stop())


def _environment(settings: Settings) -> dict[str, str]:
    """Ours, without any setting in it that isn't this ledger's."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    ours = {
        "LEDGER_DATABASE_URL": settings.need_database_url(),
        "LEDGER_KAFKA_BOOTSTRAP": settings.need_kafka_bootstrap(),
        "LEDGER_TOPIC_PREFIX": settings.topic_prefix,
        "LEDGER_GROUP_ID": settings.group_id,
        "LEDGER_SHARDS": str(settings.shards),
    }
    if settings.expense_category_resolver is not None:
        ours["LEDGER_EXPENSE_CATEGORY_RESOLVER"] = settings.expense_category_resolver
        ours["LEDGER_RESOLVER_TIMEOUT"] = str(RESOLVER_SECONDS)
    return rest | ours
