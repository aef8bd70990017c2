"""The composition root: everything that runs is put together here."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import asyncpg
from aiokafka.errors import KafkaError

from consumers import authorizations, commands, disputes, payments, payouts, refunds, transfers
from consumers.beginning import patient_pool, prepare_database, topics_as_made
from consumers.clock import run_clock
from consumers.translate import read_command, translator
from infra.kafka.announcer import Announcer
from infra.kafka.connection import check_libraries, wait_for_kafka
from infra.kafka.intake import Intake, StreamStalledError
from infra.kafka.relay import run_relay
from infra.kafka.wakeups import RelayWakeups
from infra.ledger import Ledger, LedgerRules
from infra.patience import Patience, any_of, sleep_unless
from infra.postgres.load_credit import credit_reader
from infra.resolvers.resolving import Resolvers
from infra.settings import Settings, SettingsError
from infra.telemetry import Progress, configure_logging
from schemas.topics import OUTPUT_TOPICS, TOPICS

log = logging.getLogger(__name__)

ROLES = frozenset({"worker", "relay", "clock"})
STREAMS = (payments, refunds, transfers, payouts, disputes, authorizations, commands)
PROGRESS_SECONDS = 10.0
ENDING_SECONDS = 15.0
"""How long a part of this program may take to end, before it is cut off."""


async def run(
    settings: Settings,
    roles: frozenset[str] = ROLES,
    *,
    ready: Callable[[], None] = lambda: print("ready", flush=True),
    stop: asyncio.Event | None = None,
) -> None:
    """Run these roles until `stop` is set or the process is told to end; `ready` is called when all of them work.

    Waits for Kafka and Postgres as long as they are away, at the start and later.
    Writes: with all roles, the schema and the topics too. Raises: SettingsError, for what an operator must mend.
    """
    configure_logging(settings)
    check_libraries()
    _settle_memory()
    settings.need_kafka_bootstrap()
    if stop is None:
        stop = asyncio.Event()
        _stop_on_signals(stop)
    if await prepare_database(settings, stop, make=roles == ROLES) and not stop.is_set():
        await wait_for_kafka(settings, stop)
        async with patient_pool(settings, stop) as pool:
            if pool is not None and not stop.is_set():
                await _run_roles(settings, roles, pool, ready, stop)


def _settle_memory() -> None:
    """Let the garbage collector wait until a million objects have come to stay.

    A batch makes a hundred thousand and lets them go again, none of them in a cycle; by default the collector went
    through them all while they were at work.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000_000, 10, 10)


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _run_roles(
    settings: Settings, roles: frozenset[str], pool: asyncpg.Pool, ready: Callable[[], None], stop: asyncio.Event
) -> None:
    counts = await topics_as_made(settings, stop)
    if stop.is_set():
        return
    async with _resolvers(settings, pool, wanted="worker" in roles) as resolvers:
        await _all_until_stop(_work(settings, roles, pool, counts, resolvers, ready, stop), stop)


@contextlib.asynccontextmanager
async def _resolvers(settings: Settings, pool: asyncpg.Pool, *, wanted: bool) -> AsyncIterator[Resolvers]:
    """The resolvers that the settings name, ready where they are wanted. Raises: SettingsError."""
    resolvers = Resolvers(
        credit_reader(pool),
        categories=settings.expense_category_resolver,
        lines=settings.line_of_credit_resolver,
        budget=settings.resolver_timeout,
    )
    if wanted:
        await resolvers.start()
    try:
        yield resolvers
    finally:
        await resolvers.close()


def _work(
    settings: Settings,
    roles: frozenset[str],
    pool: asyncpg.Pool,
    counts: Mapping[str, int],
    resolvers: Resolvers,
    ready: Callable[[], None],
    stop: asyncio.Event,
) -> list[Coroutine[Any, Any, None]]:
    """All that these roles do at the same time."""
    wakeups = RelayWakeups()
    announcer = Announcer(pool)
    ledger = Ledger(
        pool,
        ledger_rules(settings, {name: counts[settings.topic(name)] for name in OUTPUT_TOPICS}),
        read_command,
        committed=wakeups.hand_over if "relay" in roles else announcer.announce,
        resolvers=resolvers,
    )
    work: list[Coroutine[Any, Any, None]] = [_watch_kafka(settings, stop)]
    joined = asyncio.Event()
    if "worker" in roles:
        work.append(_consume(settings, ledger, pool, joined, stop))
    else:
        joined.set()
    if "relay" in roles:
        work.append(run_relay(settings, pool=pool, wakeups=wakeups, stop=stop))
    if "clock" in roles:
        work.append(run_clock(settings, ledger, pool, stop))
    if "relay" not in roles:
        work.append(announcer.run(stop))
    work.append(_say_ready(joined, ready, stop))
    return work


def ledger_rules(settings: Settings, partitions: Mapping[str, int]) -> LedgerRules:
    """What the settings say of the ledger; `partitions` of the output topics by their short names."""
    return LedgerRules(
        shards=settings.shards,
        partitions=partitions,
        value_bytes_max={name: TOPICS[name].max_message_bytes for name in OUTPUT_TOPICS},
        registered_only=settings.tenants == "registered",
        patience_seconds=settings.parking_patience,
        hold_expiry_seconds=settings.hold_expiry,
        accounts_cached_max=settings.accounts_cached_max,
        group=settings.group_id,
        batch_seconds_max=settings.batch_seconds_max,
    )


async def _say_ready(joined: asyncio.Event, ready: Callable[[], None], stop: asyncio.Event) -> None:
    await any_of(joined, stop)
    if joined.is_set():
        ready()
    await stop.wait()


async def _all_until_stop(work: list[Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
    """Run these side by side; the first that fails ends all, and its error is raised.

    After `stop` each has some seconds to come to its end, and is cut off then: where reading goes on is in Postgres.
    """
    tasks = [asyncio.create_task(each) for each in work]
    for task in tasks:
        # None of them ends before `stop` but by a failure.
        task.add_done_callback(lambda _: stop.set())
    try:
        await stop.wait()
    finally:
        stop.set()
        _, pending = await asyncio.wait(tasks, timeout=ENDING_SECONDS)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=ENDING_SECONDS)
    for task in tasks:
        if task.done() and not task.cancelled() and (fault := task.exception()) is not None:
            raise fault


async def _consume(
    settings: Settings, ledger: Ledger, pool: asyncpg.Pool, joined: asyncio.Event, stop: asyncio.Event
) -> None:
    """Read all input streams into the ledger until `stop`; begins anew when Kafka or a stream fails."""
    patience = Patience("Kafka's input streams")
    while not stop.is_set():
        intake = Intake(settings, ledger, pool)
        translate = translator(settings.shards)
        for stream in STREAMS:
            stream.subscribe(intake, translate)
        try:
            await _read_on(intake, patience, joined, stop)
        except SettingsError:
            raise
        except (KafkaError, OSError, StreamStalledError) as fault:
            await patience.wait(f"they can't be read ({fault!r})", stop)
        except Exception as fault:
            await patience.wait(f"they can't be read ({fault!r})", stop, unforeseen=fault)


async def _read_on(intake: Intake, patience: Patience, joined: asyncio.Event, stop: asyncio.Event) -> None:
    async def tell_joined() -> None:
        await intake.joined()
        patience.over()
        joined.set()

    helpers: list[asyncio.Task[None]] = []
    try:
        await intake.start()
        helpers = [asyncio.create_task(_say_progress(intake)), asyncio.create_task(tell_joined())]
        await intake.watch(stop)
    finally:
        for helper in helpers:
            helper.cancel()
        await intake.stop()


async def _say_progress(intake: Intake) -> None:
    progress = Progress()
    started = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        now = time.monotonic()
        progress.say(intake.counts, now - started)
        started = now


async def _watch_kafka(settings: Settings, stop: asyncio.Event) -> None:
    """Say once when Kafka goes away, and once when it is back: the clients go on by themselves."""
    while not stop.is_set():
        await sleep_unless(stop, 5.0)
        if not stop.is_set():
            await wait_for_kafka(settings, stop)
