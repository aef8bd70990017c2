"""`ledgerstream bench`: how fast it is on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from consumers.cli_output import show_json, show_table
from consumers.cli_reads import json_option
from infra.devstack import RunningStack, down, named_in_environment, up

_TOOK = ("p50", "p90", "p99", "max", "times_control", "per_second", "payments_per_second")
_WAYS = ("to_kafka", "to_decision", "to_subscriber")


@click.group("bench")
def bench() -> None:
    """How fast it is on this machine."""


@bench.command("decisions")
@click.option("--rate", default=200, show_default=True, type=click.IntRange(1), help="Requests a second.")
@click.option("--seconds", default=20, show_default=True, type=click.IntRange(1), help="Of each measurement.")
@click.option("--payments", default=3_000, show_default=True, type=click.IntRange(1), help="A second, beside them.")
@click.option("--backlog", default=20_000, show_default=True, type=click.IntRange(1_000), help="Requests that wait.")
@click.option(
    "--shards", type=click.IntRange(1), help="Of the ledger.  [default: one for every two cores, as all share them]"
)
@json_option
def decisions(rate: int, seconds: int, payments: int, backlog: int, shards: int | None, json_wanted: bool) -> None:
    """From publishing a card payment's request to reading the decision as a read_committed subscriber.

    On a ledger of its own, on the servers that LEDGER_… names, else on an embedded stack that is removed after.
    """
    import uvloop

    try:
        from consumers.bench_decisions import measure
    except ModuleNotFoundError as exc:
        raise click.ClickException(
            f"{exc.name} is not installed, which publishes and reads here; pip install 'ledgerstream[bench]'"
        ) from exc

    def say(line: str) -> None:
        click.echo(line, err=True)

    cores = os.cpu_count() or 1
    shards = shards or max(1, cores // 2)
    with _stack() as stack:
        rows = uvloop.run(
            measure(stack, rate=rate, seconds=seconds, payments=payments, backlog=backlog, shards=shards, say=say)
        )
    if json_wanted:
        show_json(rows)
        return
    on = f"{shards} {'shard' if shards == 1 else 'shards'}, {cores} cores for everything"
    _show(f"Milliseconds, {on}, load {os.getloadavg()[0]:.1f}", rows, _TOOK)
    _show("The middle of each part of the way", [row for row in rows if _WAYS[0] in row], _WAYS)


def _show(title: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    table = [[row["what"], *(str(row.get(name, "")) for name in names)] for row in rows]
    show_table(["", *names], table, right=names, title=title)


@contextmanager
def _stack() -> Iterator[RunningStack]:
    named = named_in_environment(os.environ)
    if named is not None:
        yield named
        return
    data = Path(tempfile.mkdtemp(prefix="ledgerstream-bench-"))
    stack = up(data, progress=lambda line: click.echo(line, err=True))
    try:
        yield stack
    finally:
        down(data, wipe=True)
