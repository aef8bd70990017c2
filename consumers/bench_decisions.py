"""How long a card payment waits for its decision: from publishing the request to reading the answer, committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from consumers.bench_clients import Acknowledged, Publisher, Subscriber
from consumers.bench_controls import measure_controls
from consumers.bench_ledger import ledger_to_measure, reuse_wal
from consumers.bench_load import Load, Message
from consumers.demo_ledger import running_ledger
from infra.devstack import RunningStack
from infra.settings import Settings

# A broker's compiler is about done with this traffic after so long; before, a good part of what it takes is its.
WARM_SECONDS = WARM_BESIDE_SECONDS = 120
CONTROL_SECONDS = 4
DRAIN_SECONDS = 60.0
PAYER_LINGERS_MS = 5
"""Payments have a publisher of their own, which gathers them: nobody waits for theirs."""
PARTS = {"p50": 50, "p90": 90, "p99": 99}

Figures = dict[str, Any]
Say = Callable[[str], None]


@dataclass(slots=True)
class _Asked:
    """When a request was sent, when the broker had it, decided it was and read; seconds since 1970."""

    sent: float
    acknowledged: float = 0.0
    decided: float = 0.0
    read: float = 0.0


class Bench:
    """A publisher of requests, one of payments, and a read_committed subscriber of decisions."""

    def __init__(self, settings: Settings, load: Load) -> None:
        self._settings = settings
        self._load = load
        self._asked: dict[str, _Asked] = {}
        self._unread: set[str] = set()
        self._answered = asyncio.Event()
        self.declined = 0
        self.paid = 0
        self._asker = Publisher(settings, linger_ms=0)
        self._payer = Publisher(settings, linger_ms=PAYER_LINGERS_MS)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Connected to Kafka for the block, the subscriber reading."""
        loop = asyncio.get_running_loop()

        def read(values: list[bytes]) -> None:
            loop.call_soon_threadsafe(self._note, values, time.time())

        subscriber = Subscriber(self._settings, self._settings.topic("decisions"), read)
        with self._asker.connected(), self._payer.connected(), subscriber.connected():
            yield

    def _note(self, values: list[bytes], read: float) -> None:
        for value in values:
            data = orjson.loads(value)["data"]
            asked = self._asked.get(data["external_id"])
            if asked is None or "decision" not in data:
                continue
            asked.read, asked.decided = read, datetime.fromisoformat(data["decided_at"]).timestamp()
            self.declined += data["decision"] != "approved"
            self._unread.discard(data["external_id"])
        if not self._unread:
            self._answered.set()

    async def make_cards(self) -> None:
        """Publish the cards and their credit, and wait until a card can pay in each shard."""
        for message in self._load.cards():
            self._send(self._asker, "commands", message)
        await asyncio.to_thread(self._asker.flush)
        while True:
            before = self.declined
            await self.ask(per_second=20, seconds=1)
            if self.declined == before:
                break
        self.declined = 0

    async def ask(self, *, per_second: float, seconds: float, payments: int = 0) -> list[_Asked]:
        """Send requests at a steady rate, one by one, payments beside them; all, when they are answered."""
        asked: list[_Asked] = []
        beside = asyncio.create_task(self._pay(payments)) if payments else None
        begin = time.perf_counter()
        try:
            for number in range(int(per_second * seconds)):
                await asyncio.sleep(max(0.0, begin + number / per_second - time.perf_counter()))
                asked.append(self._ask_one())
            await self._until_answered()
        finally:
            if beside is not None:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)
        return asked

    def _ask_one(self) -> _Asked:
        message = self._load.request()
        one = self._asked[message[1]] = _Asked(time.time())
        self._unread.add(message[1])
        self._answered.clear()

        def note() -> None:
            one.acknowledged = time.time()

        self._send(self._asker, "authorizations", message, note)
        return one

    async def _until_answered(self) -> None:
        async with asyncio.timeout(DRAIN_SECONDS):
            await self._answered.wait()

    async def _pay(self, per_second: int) -> None:
        begin, sent = time.perf_counter(), 0
        while True:
            due = int((time.perf_counter() - begin) * per_second)
            for _ in range(due - sent):
                self._send(self._payer, "payments", self._load.payment())
                self.paid += 1
            sent = due
            await asyncio.sleep(0.01)

    async def pile_up(self, count: int) -> None:
        """Publish so many requests while no ledger runs."""
        for _ in range(count):
            self._ask_one()
        await asyncio.to_thread(self._asker.flush)

    async def work_off(self) -> float:
        """Decisions a second, from the first that was decided to the last that was read."""
        await self._until_answered()
        done = [asked for asked in self._asked.values() if asked.read]
        return len(done) / (max(asked.read for asked in done) - min(asked.decided for asked in done))

    def forget(self) -> None:
        self._asked.clear()

    def _send(self, by: Publisher, topic: str, message: Message, acknowledged: Acknowledged | None = None) -> None:
        tenant, _, value = message
        by.send(self._settings.topic(topic), value, key=tenant.encode(), acknowledged=acknowledged)


async def measure(
    stack: RunningStack, *, rate: int, seconds: int, payments: int, backlog: int, shards: int, say: Say
) -> list[Figures]:
    """The three measurements, each a row of figures."""
    rows: list[Figures] = []
    await reuse_wal(stack)
    async with ledger_to_measure(stack, shards=shards) as settings:
        bench = Bench(settings, Load(settings.shards))
        async with bench.connected():
            async with running_ledger(settings):
                say(f"making cards, then {WARM_SECONDS} s to warm up the broker's compiler")
                await bench.make_cards()
                await bench.ask(per_second=rate, seconds=WARM_SECONDS)
                say(f"{rate} requests a second for {seconds} s")
                rows.append(figures(f"{rate}/s", await bench.ask(per_second=rate, seconds=seconds)))
                say("the same servers without the ledger")
                rows += await _controls(settings, rows[0])
                say(f"the same, with {payments} payments a second on the same shards")
                await bench.ask(per_second=rate, seconds=WARM_BESIDE_SECONDS, payments=payments)
                before, begin = await _payments_read(settings), time.perf_counter()
                beside = await bench.ask(per_second=rate, seconds=seconds, payments=payments)
                applied = (await _payments_read(settings) - before) / (time.perf_counter() - begin)
                what = f"{rate}/s beside {payments} payments/s"
                rows.append(figures(what, beside) | {"payments_per_second": round(applied)})
                await _until_paid(settings, bench.paid)
            say(f"a backlog of {backlog} requests")
            bench.forget()
            await bench.pile_up(backlog)
            async with running_ledger(settings):
                per_second = await bench.work_off()
            rows.append({"what": f"a backlog of {backlog}", "per_second": round(per_second)})
    return rows


async def _payments_read(settings: Settings) -> int:
    """How many payments are in the books."""
    connection = await asyncpg.connect(settings.asyncpg_dsn)
    try:
        read: int = await connection.fetchval(
            "SELECT coalesce(sum(next_offset), 0)::bigint FROM input_offsets WHERE topic = $1",
            settings.topic("payments"),
        )
        return read
    finally:
        await connection.close()


async def _until_paid(settings: Settings, payments: int) -> None:
    """Return when so many are in the books: what is measured next isn't to wait for them."""
    async with asyncio.timeout(DRAIN_SECONDS):
        while True:
            if await _payments_read(settings) >= payments:
                return
            await asyncio.sleep(0.1)


async def _controls(settings: Settings, decided: Figures) -> list[Figures]:
    """What of it any program pays on these servers; `decided` gets how many times all of that it took."""
    controls = await measure_controls(settings, seconds=CONTROL_SECONDS)
    rows: list[Figures] = [
        {"what": what, "requests": len(took), **_parts([second * 1_000 for second in took])}
        for what, took in controls.items()
    ]
    decided["times_control"] = round(decided["p50"] / sum(row["p50"] for row in rows), 2)
    return rows


def figures(what: str, asked: list[_Asked]) -> Figures:
    """Milliseconds from sending to reading, and the middle of each part of the way."""
    row: Figures = {"what": what, "requests": len(asked)}
    row |= _parts([(one.read - one.sent) * 1_000 for one in asked])
    ways = {
        "to_kafka": [one.acknowledged - one.sent for one in asked],
        "to_decision": [one.decided - one.sent for one in asked],
        "to_subscriber": [one.read - one.decided for one in asked],
    }
    return row | {name: round(_part(sorted(way), 50) * 1_000, 1) for name, way in ways.items()}


def _parts(took: list[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {name: round(_part(ordered, part), 1) for name, part in PARTS.items()} | {"max": round(ordered[-1], 1)}


def _part(ordered: list[float], part: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * part // 100)]
