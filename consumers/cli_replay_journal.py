"""`ledgerstream replay journal`: the journal into an empty database."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

import click

from consumers.cli_output import as_json
from consumers.cli_reads import json_option
from consumers.cli_settings import settings_of_command
from infra.settings import Settings, SettingsError

if TYPE_CHECKING:
    from infra.rebuild import Plan

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
    plan = asyncio.run(prepare(settings, into))
    workers = min(processes or os.cpu_count() or 1, len(plan.until))
    try:
        _rebuild(settings, into, plan, workers)
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


def _rebuild(settings: Settings, into: str, plan: Plan, workers: int) -> None:
    if workers == 1:
        for shard in sorted(plan.until):
            rebuild_one(settings, into, plan, shard)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        tasks = [pool.submit(rebuild_one, settings, into, plan, shard) for shard in sorted(plan.until)]
        _show_progress(into, plan, lambda: all(task.done() for task in tasks))
        try:
            for task in tasks:
                task.result()
        except BrokenProcessPool as fault:
            raise SettingsError("a process of the replay was killed; run it again, it goes on from there") from fault


def rebuild_one(settings: Settings, into: str, plan: Plan, shard: int) -> None:
    """Rebuild one shard, in a process of its own."""
    import gc

    import uvloop

    from consumers.translate import read_command
    from infra.rebuild import rebuild_shard, rules_of

    gc.freeze()
    gc.set_threshold(1_000_000, 10, 10)
    uvloop.run(rebuild_shard(settings, into, plan, rules_of(settings, plan), read_command, shard))


def _show_progress(into: str, plan: Plan, done: Callable[[], bool]) -> None:
    from infra.rebuild import rebuilt_outputs

    at = asyncio.run(rebuilt_outputs(into))
    with click.progressbar(length=plan.outputs, label="outputs", file=sys.stderr) as bar:
        bar.update(at)
        while not done():
            time.sleep(LOOK_SECONDS)
            now = asyncio.run(rebuilt_outputs(into))
            bar.update(now - at)
            at = now
