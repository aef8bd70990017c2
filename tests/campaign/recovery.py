"""Databases that lost their last commits: a failover to a standby behind, a backup restored; then `recover`."""

# Small files of the campaign's own, and looking again: nothing here waits for anybody.
# ruff: noqa: ASYNC110

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys

import asyncpg

from tests.campaign.fleet import Fleet
from tests.campaign.seen import Place
from tests.campaign.servers import Servers, until
from tests.fixtures.programs import environment_of

_UP_SECONDS = 180.0
_RECOVERED_SECONDS = 600.0


class Recovery:
    """Takes the database back, and does what the operator has to do then; `lost` is what recover reported."""

    def __init__(self, servers: Servers, fleet: Fleet) -> None:
        self.servers = servers
        self.fleet = fleet
        self.lost: set[Place] = set()
        self._owed = False

    async def failover(self, chance: random.Random) -> str:
        """To a standby that hasn't got what was committed last."""
        servers = self.servers
        place, choices = await servers.copy_cluster(standby=True)
        try:
            await asyncio.to_thread(servers.start_standby, place, choices)
            await until(lambda: self._caught_up(servers.address(choices)), _UP_SECONDS, "a standby")
        except Exception:
            await servers.discard(place)
            raise
        servers.replication_proxy.set("swallow")
        await asyncio.sleep(chance.uniform(0.5, 2))
        await servers.kill_postgres()
        connection = await asyncpg.connect(servers.address(choices), timeout=10)
        try:
            await connection.fetchval("SELECT pg_promote(true, 30)")
        finally:
            await connection.close()
        self._owed = True
        await servers.switch_to(place, choices)
        servers.replication_proxy.set("pass")
        # Nobody notices at once: the books go on, and the relays stop.
        await asyncio.sleep(chance.uniform(0, 2))
        return "Postgres failed over to a standby that was behind: " + await self._recover(signal.SIGTERM)

    async def restore(self, chance: random.Random) -> str:
        """From a backup of some seconds ago."""
        place, choices = await self.servers.copy_cluster()
        await asyncio.sleep(chance.uniform(2, 5))
        await self.fleet.end_all(signal.SIGKILL)
        await self.servers.kill_postgres()
        await self.servers.start_cluster(place, choices)
        self._owed = True
        await self.servers.switch_to(place, choices)
        return "Postgres was restored from a backup: " + await self._recover(signal.SIGKILL)

    async def finish(self) -> None:
        """Recover now, if a database went back and that was not brought to its end."""
        if self._owed:
            await self._recover(signal.SIGKILL)

    async def _caught_up(self, address: str) -> bool:
        connection = await asyncpg.connect(address, timeout=5)
        try:
            return bool(
                await connection.fetchval("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'")
            )
        finally:
            await connection.close()

    async def _recover(self, how: signal.Signals) -> str:
        await self.fleet.end_all(how)
        before = len(self.lost)
        async with asyncio.timeout(_RECOVERED_SECONDS):
            while not await self._ran_recover():
                await asyncio.sleep(1)
        self._owed = False
        self.fleet.launch_all()
        return f"{len(self.lost) - before} outputs of lost commits"

    async def _ran_recover(self) -> bool:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "consumers.cli", "recover", "--json",
            env=environment_of(self.servers.direct), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, errors = await process.communicate()
        if process.returncode:
            print(f"  recover: {errors.decode().strip()[-300:]}", flush=True)
            return False
        for document in map(json.loads, said.splitlines()):
            if "state" in document and document["state"] in ("books_behind", "diverged"):
                old, shard = document["epoch_old"], document["shard"]
                gone = range(document["agreed"] + 1, document["seq_streams"] + 1)
                self.lost |= {(old, shard, seq) for seq in gone}
        return True
