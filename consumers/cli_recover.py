"""`ledgerstream recover`: after a database was restored."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from consumers.cli_output import as_json, show_table
from consumers.cli_reads import json_option
from consumers.cli_settings import settings_of_command
from infra.settings import Settings

if TYPE_CHECKING:
    from infra.recover import InputFinding, Recovery, ShardFinding

_STATES = {
    "fits": "the streams and the books fit",
    "books_behind": "the streams have what the books haven't",
    "diverged": "the streams have something else than the books",
    "streams_behind": "Kafka lost what was published: it is published again",
}


@click.command("recover")
@click.option("--force", is_flag=True, help="Begin a new epoch even if nothing differs, or if nothing fits.")
@click.option("--dry-run", is_flag=True, help="Only say what differs, and what would be done.")
@json_option
def recover(force: bool, dry_run: bool, json_wanted: bool) -> None:
    """After a database was restored: a new epoch, and what the streams have that the books haven't.

    Stop every worker, relay and clock before. Ends 1 if inputs of what was lost are gone from Kafka.
    """
    settings = settings_of_command()
    settings.need_database_url()
    settings.need_kafka_bootstrap()
    recovery = asyncio.run(_recover(settings, force=force, dry_run=dry_run, json_wanted=json_wanted))
    if not json_wanted:
        _show(recovery, dry_run=dry_run)
    sys.exit(1 if any(each.gone for each in recovery.inputs) else 0)


async def _recover(settings: Settings, *, force: bool, dry_run: bool, json_wanted: bool) -> Recovery:
    from infra.recover import lost_outputs
    from infra.recover import recover as begin_anew

    recovery = await begin_anew(settings, force=force, dry_run=dry_run)
    if json_wanted:
        for finding in recovery.shards:
            click.echo(as_json(_document(finding)))
        for each in recovery.inputs:
            click.echo(as_json(_input_document(each)))
        async for output in lost_outputs(settings, recovery):
            click.echo(as_json(output))
    return recovery


def _document(finding: ShardFinding) -> dict[str, object]:
    names = ("shard", "state", "epoch_old", "epoch_new", "seq_books", "seq_streams", "agreed", "lost", "renamed")
    return {name: getattr(finding, name) for name in names}


def _input_document(each: InputFinding) -> dict[str, object]:
    return {name: getattr(each, name) for name in ("topic", "partition", "next_offset", "unread", "gone")}


def _show(recovery: Recovery, *, dry_run: bool) -> None:
    if recovery.finished_before:
        click.echo("A recovery that was cut off has been brought to its end.")
    behind = any(finding.state == "streams_behind" for finding in recovery.shards)
    if recovery.epoch is None and not behind:
        click.echo("Nothing to recover: the streams and the books fit.")
        return
    columns = ["Shard", "Epoch", "Books end at", "Streams end at", "Same up to", "Lost", "Renamed", ""]
    rows = [
        [
            str(finding.shard),
            f"{finding.epoch_old} -> {finding.epoch_new}",
            f"{finding.seq_books:,}",
            f"{finding.seq_streams:,}",
            f"{finding.agreed:,}",
            f"{finding.lost:,}",
            f"{finding.renamed:,}",
            _STATES[finding.state],
        ]
        for finding in recovery.shards
    ]
    show_table(columns, rows, right=columns[:-1])
    if recovery.epoch is not None:
        verb = "would begin" if dry_run else "has begun"
        click.echo(f"Epoch {recovery.epoch} {verb} on every shard. Start the workers and relays again.")
    _show_inputs(recovery)


def _show_inputs(recovery: Recovery) -> None:
    lost = sum(finding.lost for finding in recovery.shards)
    if not lost:
        return
    unread, gone = sum(each.unread for each in recovery.inputs), [each for each in recovery.inputs if each.gone]
    click.echo(
        f"{lost:,} outputs are in the streams only (--json lists them). Their inputs are read again: {unread:,} records"
        " of the input topics are unread by these books, and each fact is applied once."
    )
    for each in gone:
        click.echo(
            f"GONE: {each.gone:,} records of {each.topic}[{each.partition}] from offset {each.next_offset} on were "
            "deleted from Kafka and are not in these books. Publish them again from their source "
            "(docs/operating.md, Lost input).",
            err=True,
        )
