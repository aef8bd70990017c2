"""The commands that run the ledger, and the demo."""

from __future__ import annotations

from pathlib import Path

import click
import uvloop

from consumers.cli_settings import settings_of_command

ROLES = frozenset({"worker", "relay", "clock"})


def _run(roles: frozenset[str]) -> None:
    from consumers.app import run as run_roles

    settings = settings_of_command()
    settings.need_database_url()
    settings.need_kafka_bootstrap()
    uvloop.run(run_roles(settings, roles))


@click.command("run")
def run() -> None:
    """Migrate, make the topics, then worker, relay and clock in one process; prints `ready` when it is."""
    _run(ROLES)


@click.command("worker")
def worker() -> None:
    """Post events to the books."""
    _run(frozenset({"worker"}))


@click.command("relay")
def relay() -> None:
    """Publish what changed, each change once."""
    _run(frozenset({"relay"}))


@click.command("clock")
def clock() -> None:
    """End what has run out, and make room for what comes."""
    _run(frozenset({"clock"}))


@click.command("demo")
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The directory of its stack, which must be empty.  [default: a temporary one]",
)
@click.option("--keep", is_flag=True, help="Leave the servers and the books up, and say how to reach them.")
def demo(data: Path | None, keep: bool) -> None:
    """A week of a small marketplace, from Kafka through the ledger and out again, and what came of it."""
    from consumers.demo import main as run_demo

    raise SystemExit(run_demo(data, keep=keep))
