"""`ledgerstream replay journal`: the journal into an empty database."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from consumers.cli_output import as_json
from consumers.cli_reads import json_option
from consumers.cli_settings import settings_of_command
from infra.settings import Settings, SettingsError

if TYPE_CHECKING:
    from infra.rebuild_shard import Plan

LOOK_SECONDS = 0.5


@click.command("journal")
@click.option("--into", metavar="URL", required=True, help="An empty database, or one that an earlier replay began.")
@click.option("--processes", type=click.IntRange(1), help="Shards rebuilt side by side.  [default: one a core]")
@json_option
def journal(into: str, processes: int | None, json_wanted: bool) -> None:
    """Build the ledger again from its journal, each event decided anew and held against the record.

    Goes on where it was cut off. Ends 1 at the first row that doesn't give what was recorded.
    """
    from infra.journal import JournalDifferenceError
    from infra.rebuild import finish, prepare

    settings = settings_of_command()
    settings.need_database_url()
    began = time.monotonic()
    workers = min(processes or os.cpu_count() or 1, settings.shards)
    try:
        with _processes(workers) as pool:
            plan = asyncio.run(prepare(settings, into))
            _rebuild(settings, into, plan, pool)
        same = asyncio.run(finish(settings, into, plan))
    except JournalDifferenceError as difference:
        click.echo(str(difference), err=True)
        raise SystemExit(1) from difference
    seconds = time.monotonic() - began
    if json_wanted:
        click.echo(as_json({"outputs": plan.outputs, "seconds": round(seconds, 1), "same": bool(same)}))
    elif same:
        click.echo(f"{plan.outputs:,} outputs rebuilt in {seconds:.1f} s; all {len(same)} tables are the same.")
    else:
        click.echo(f"{plan.outputs:,} outputs rebuilt in {seconds:.1f} s. The ledger went on meanwhile: run it again.")


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes that have what they need loaded; none where one shard goes after the other."""
    if workers == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_load) as pool:
        # They begin to load while this process makes the target ready.
        for _ in range(workers):
            pool.submit(os.getpid)
        yield pool


def _rebuild(settings: Settings, into: str, plan: Plan, pool: ProcessPoolExecutor | None) -> None:
    if pool is None:
        for shard in sorted(plan.until):
            rebuild_one(settings, into, plan, shard)
        return
    tasks = [pool.submit(rebuild_one, settings, into, plan, shard) for shard in sorted(plan.until)]
    if sys.stderr.isatty():
        _show_progress(into, plan, tasks)
    try:
        for task in tasks:
            task.result()
    except BrokenProcessPool as fault:
        raise SettingsError("a process of the replay was killed; run it again, it goes on from there") from fault


def _load() -> None:
    import consumers.translate  # noqa: F401
    import infra.rebuild_shard  # noqa: F401


def rebuild_one(settings: Settings, into: str, plan: Plan, shard: int) -> None:
    """Rebuild one shard, in a process of its own."""
    import gc

    import uvloop

    from consumers.translate import read_command
    from infra.rebuild_shard import rebuild_shard, rules_of

    gc.freeze()
    gc.set_threshold(1_000_000, 10, 10)
    uvloop.run(rebuild_shard(settings, into, plan, rules_of(settings, plan), read_command, shard))


def _show_progress(into: str, plan: Plan, tasks: Sequence[Future[None]]) -> None:
    from infra.rebuild import rebuilt_outputs

    at = asyncio.run(rebuilt_outputs(into))
    with click.progressbar(length=plan.outputs, label="outputs", file=sys.stderr) as bar:
        bar.update(at)
        while wait(tasks, LOOK_SECONDS).not_done:
            now = asyncio.run(rebuilt_outputs(into))
            bar.update(now - at)
            at = now
