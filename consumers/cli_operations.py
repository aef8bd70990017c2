"""The commands that look after a ledger: migrate, verify, lag."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.cli_output import as_json, show_json, show_table
from consumers.cli_reads import ask, json_option
from consumers.cli_settings import settings_of_command
from infra.kafka.lag import reaches
from infra.postgres import queries
from infra.postgres.queries import Unrelayed
from infra.postgres.reading import database_faults, reading
from infra.postgres.verify import Check
from infra.postgres.verify import verify as run_audits
from infra.settings import Settings
from schemas.topics import INPUT_TOPICS


@click.command("migrate")
def migrate() -> None:
    """Bring the database to the newest schema; harmless when it is there."""
    from infra.postgres.migrate import migrate as bring_up_to_date
    from infra.postgres.migrate import newest_revision

    settings = settings_of_command()
    settings.need_database_url()
    with database_faults(settings):
        asyncio.run(bring_up_to_date(settings))
    click.echo(f"The schema is {newest_revision()}, the newest, with {settings.shards} shards.", err=True)


@click.command("verify")
@click.option("--tenant", metavar="T", help="Only this tenant, and what its shard has in common.")
@click.option("--deep", is_flag=True, help="Read every output, in the outbox and on its topic, too.")
@click.option("--rebuild", is_flag=True, help="Build it again from its journal beside itself, too; with no worker up.")
@json_option
def verify(tenant: str | None, deep: bool, rebuild: bool, json_wanted: bool) -> None:
    """Prove the books: recompute everything from the journal. Ends 1 if a check fails."""
    if rebuild and tenant is not None:
        raise click.UsageError("--rebuild is of the whole ledger; leave --tenant out")

    checks: list[Check] = []

    async def answer(connection: AsyncConnection) -> None:
        async for check in run_audits(connection, tenant, deep=deep):
            note(check)
        if deep:
            from infra.verify_streams import stream_checks

            async for check in stream_checks(connection, settings_of_command(), tenant):
                note(check)

    def note(check: Check) -> None:
        checks.append(check)
        if json_wanted:
            click.echo(as_json(check))

    ask(answer)
    if rebuild:
        from consumers.translate import read_command
        from infra.verify_rebuild import rebuild_check

        note(asyncio.run(rebuild_check(settings_of_command(), read_command)))
    faults = sum(not check["ok"] for check in checks)
    if not json_wanted:
        rows = [
            [
                "FAULT" if each["rows"] else "ok",
                each["check"],
                str(each["rows"]),
                each["detail"] if each["rows"] else "",
            ]
            for each in checks
        ]
        show_table(["", "Check", "Rows", "Detail"], rows, right=["Rows"], whole=["Check"])
        click.echo(f"{faults} of {len(checks)} checks failed." if faults else f"All {len(checks)} checks hold.")
    sys.exit(1 if faults else 0)


@click.command("lag")
@json_option
def lag(json_wanted: bool) -> None:
    """What is still to be read, per input partition, and to be published, per shard."""
    settings = settings_of_command()
    positions, shards = asyncio.run(_positions(settings))
    wanted = [settings.topic(name) for name in INPUT_TOPICS]
    found = asyncio.run(reaches(settings, wanted))
    partitions = [
        {
            "topic": topic,
            "partition": partition,
            "lag": max(reach.end - positions.get((topic, partition), reach.beginning), 0),
        }
        for (topic, partition), reach in sorted(found.items(), key=lambda item: (wanted.index(item[0][0]), item[0][1]))
    ]
    if json_wanted:
        show_json(partitions)
        show_json(shards)
        return
    _show_lag(partitions, shards)


async def _positions(settings: Settings) -> tuple[dict[tuple[str, int], int], list[Unrelayed]]:
    async with reading(settings) as connection:
        positions = await queries.input_positions(connection)
        shards = await queries.unrelayed(connection)
    return {(each["topic"], each["partition"]): each["next_offset"] for each in positions}, shards


def _show_lag(partitions: list[dict[str, Any]], shards: list[Unrelayed]) -> None:
    rows = [[each["topic"], str(each["partition"]), f"{each['lag']:,}"] for each in partitions]
    none_yet = "no input topics on the broker yet; `ledgerstream run` makes them"
    show_table(["Topic", "Partition", "Lag"], rows, right=["Partition", "Lag"], empty=none_yet)
    click.echo()
    show_table(
        ["Shard", "Unrelayed"],
        [[str(each["shard"]), f"{each['unrelayed']:,}"] for each in shards],
        right=["Shard", "Unrelayed"],
    )
