"""What may happen to a ledger: each a way to do harm, and to undo it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

from tests.campaign.fleet import Fleet
from tests.campaign.groups import delete_offsets, move_offsets
from tests.campaign.proxy import Mode
from tests.campaign.publisher import Publisher
from tests.campaign.recovery import Recovery
from tests.campaign.servers import Servers, until

FROZEN_SECONDS = 12.0
"""Longer than a session with Kafka's group, a Kafka transaction and an idle transaction of Postgres may last."""
_UP_SECONDS = 180.0
_STARTS = 5


@dataclass(slots=True)
class Nemesis:
    """Everything that can be harmed. Each fault tells in a few words what it did."""

    servers: Servers
    fleet: Fleet
    publisher: Publisher
    recovery: Recovery
    rivals: int = 0

    # --- processes --------------------------------------------------------------------------------------------------

    async def kill(self, chance: random.Random) -> str:
        member = self.fleet.draw(chance, "worker", "relay", "clock")
        await self.fleet.end(member, signal.SIGKILL)
        await asyncio.sleep(chance.uniform(0, 2))
        self.fleet.launch(member)
        return f"kill -9 {member.name}"

    async def terminate(self, chance: random.Random) -> str:
        member = self.fleet.draw(chance, "worker", "relay", "clock")
        await self.fleet.end(member, signal.SIGTERM)
        self.fleet.launch(member)
        return f"SIGTERM {member.name}"

    async def freeze(self, chance: random.Random) -> str:
        member = self.fleet.draw(chance, "worker", "relay")
        self.fleet.send(member, signal.SIGSTOP)
        seconds = FROZEN_SECONDS + chance.uniform(0, 4)
        await asyncio.sleep(seconds)
        self.fleet.send(member, signal.SIGCONT)
        return f"froze {member.name} for {seconds:.0f} s"

    async def rebalance(self, chance: random.Random) -> str:
        self.rivals += 1
        member = self.fleet.start("worker", f"worker-{self.rivals}-guest")
        await self.fleet.ready(member)
        await asyncio.sleep(chance.uniform(3, 5))
        await self.fleet.remove(member, chance.choice([signal.SIGTERM, signal.SIGKILL]))
        return "a worker came and went"

    async def rivals_for_a_shard(self, chance: random.Random) -> str:
        self.rivals += 1
        member = self.fleet.start("relay", f"relay-{self.rivals}-rival", CAMPAIGN_GREEDY="1")
        await self.fleet.ready(member)
        await asyncio.sleep(chance.uniform(5, 7))
        await self.fleet.remove(member)
        return "a second relay for every shard"

    async def late_end(self, chance: random.Random) -> str:
        switch = self.fleet.control / "late"
        switch.touch()
        await asyncio.sleep(chance.uniform(2, 4))
        switch.unlink()
        return "each EndTxn came again in the next transaction"

    async def clock(self, chance: random.Random) -> str:
        seconds = chance.choice([-7_200, -60, 30, 900])
        (self.fleet.control / "clock").write_text(str(seconds))
        await asyncio.sleep(chance.uniform(1, 3))
        (self.fleet.control / "clock").write_text("0")
        return f"clocks jumped by {seconds} s and back"

    # --- the network ------------------------------------------------------------------------------------------------

    async def cut_kafka(self, chance: random.Random) -> str:
        return await self._network("kafka", "cut", chance.uniform(0.2, 4))

    async def delay_kafka(self, chance: random.Random) -> str:
        return await self._network("kafka", "delay", chance.uniform(2, 4), chance.uniform(0.05, 0.4))

    async def lose_kafka(self, chance: random.Random) -> str:
        return await self._network("kafka", "swallow", chance.uniform(6, 12))

    async def cut_postgres(self, chance: random.Random) -> str:
        return await self._network("postgres", "cut", chance.uniform(0.2, 4))

    async def delay_postgres(self, chance: random.Random) -> str:
        return await self._network("postgres", "delay", chance.uniform(2, 4), chance.uniform(0.02, 0.2))

    async def lose_postgres(self, chance: random.Random) -> str:
        return await self._network("postgres", "swallow", chance.uniform(6, 12))

    async def _network(self, server: str, mode: Mode, seconds: float, delay: float = 0.0) -> str:
        proxy = self.servers.kafka_proxy if server == "kafka" else self.servers.postgres_proxy
        proxy.set(mode, delay)
        await asyncio.sleep(seconds)
        proxy.set("pass")
        done = {"cut": "was cut", "delay": f"took {delay:.2f} s longer", "swallow": "was half open"}[mode]
        return f"the way to {server} {done} for {seconds:.1f} s"

    # --- the servers ------------------------------------------------------------------------------------------------

    async def kill_postgres(self, chance: random.Random) -> str:
        times = chance.randrange(1, 4)
        for _ in range(times):
            await self.servers.kill_postgres()
            await self.servers.start_postgres()
            await asyncio.sleep(chance.uniform(0.2, 1.5))
        return f"Postgres was killed {times} times"

    async def kill_kafka(self, chance: random.Random) -> str:
        await self.servers.kill_kafka()
        await asyncio.sleep(chance.uniform(0, 3))
        await self.servers.start_kafka()
        return "Kafka was killed"

    async def full_disk(self, chance: random.Random) -> str:
        disk = self.servers.disk
        if not disk.mounted:
            return "no full disk: a file system can't be mounted here"
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(chance.uniform(3, 5))
        await asyncio.to_thread(disk.free)
        # Without room for its log Postgres ends itself.
        await asyncio.sleep(1)
        came_down = not self.servers.postgres_runs()
        await self.servers.start_postgres()
        await until(self._postgres_answers, _UP_SECONDS, "Postgres after a full disk")
        return "Postgres had no room on its disk" + (", and ended" if came_down else "")

    async def _postgres_answers(self) -> bool:
        connection = await asyncpg.connect(self.servers.direct.asyncpg_dsn, timeout=5)
        await connection.close()
        return True

    # --- the records ------------------------------------------------------------------------------------------------

    async def offsets(self, chance: random.Random) -> str:
        """Kafka's committed offsets are wrong when workers come back."""
        workers = self.fleet.of("worker")
        for member in workers:
            await self.fleet.end(member, signal.SIGKILL)
        where = chance.choice(["0", "the end", "none"])
        try:
            async with asyncio.timeout(30):
                if where == "none":
                    await delete_offsets(self.servers.direct)
                else:
                    await move_offsets(self.servers.direct, to_end=where == "the end")
        finally:
            for member in workers:
                self.fleet.launch(member)
        return f"the groups' offsets in Kafka became {where}"

    async def heal(self) -> None:
        """Whatever was harmed works again."""
        for proxy in (self.servers.kafka_proxy, self.servers.postgres_proxy):
            proxy.set("pass")
        self.servers.disk.free()
        for path in ("late", "clock"):
            (self.fleet.control / path).unlink(missing_ok=True)
        await asyncio.gather(*(_started(start) for start in (self.servers.start_kafka, self.servers.start_postgres)))
        for member in self.fleet.of("worker", "relay", "clock"):
            self.fleet.send(member, signal.SIGCONT)
        await self.recovery.finish()
        self.fleet.launch_all()

    async def again(self, chance: random.Random) -> str:
        count = await self.publisher.once_more(chance, 150)
        return f"{count} records again, under other ids and on other partitions"

    # --- databases that lose what they had ----------------------------------------------------------------------------

    async def fail_over(self, chance: random.Random) -> str:
        return await self.recovery.failover(chance)

    async def restore(self, chance: random.Random) -> str:
        return await self.recovery.restore(chance)


async def _started(start: Callable[[], Awaitable[None]]) -> None:
    """Start a server; one that reads much again may need longer than a start is given."""
    for again in reversed(range(_STARTS)):
        try:
            await start()
        except Exception as late:
            if not again:
                raise
            print(f"  not up yet: {late!r}", flush=True)
        else:
            return


FAULTS: dict[str, Callable[[Nemesis, random.Random], Awaitable[str]]] = {
    "kill": Nemesis.kill,
    "term": Nemesis.terminate,
    "freeze": Nemesis.freeze,
    "rebalance": Nemesis.rebalance,
    "rivals": Nemesis.rivals_for_a_shard,
    "late-end": Nemesis.late_end,
    "clock": Nemesis.clock,
    "kafka-cut": Nemesis.cut_kafka,
    "kafka-slow": Nemesis.delay_kafka,
    "kafka-half-open": Nemesis.lose_kafka,
    "postgres-cut": Nemesis.cut_postgres,
    "postgres-slow": Nemesis.delay_postgres,
    "postgres-half-open": Nemesis.lose_postgres,
    "postgres-kill": Nemesis.kill_postgres,
    "kafka-kill": Nemesis.kill_kafka,
    "full-disk": Nemesis.full_disk,
    "failover": Nemesis.fail_over,
    "restore": Nemesis.restore,
    "offsets": Nemesis.offsets,
    "again": Nemesis.again,
}
"""Every fault by its name; each says in a few words what it did."""
