"""`ledgerstream republish`: outputs once more, for a subscriber who lost them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import datetime

import click
from aiokafka.errors import KafkaError

from consumers.cli_output import as_json, show_table
from consumers.cli_reads import Time, json_option
from consumers.cli_settings import settings_of_command
from infra.kafka.connection import quiet_aiokafka
from infra.republish import Range, Republished
from infra.republish import republish as send_again
from infra.settings import Settings, SettingsError


class Seqs(click.ParamType[tuple[int, int]]):
    """`A..B`, both ends included."""

    name = "seqs"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        first, dots, last = str(value).partition("..")
        if not dots or not all(each.isascii() and each.isdigit() for each in (first, last)):
            self.fail(f"{value!r} is not A..B, such as 1200..1300", param, ctx)
        if not 1 <= int(first) <= int(last) < 2**63:
            self.fail(f"{value!r} is no range of seqs: they count from 1, the smaller first", param, ctx)
        return int(first), int(last)


@click.command("republish")
@click.option("--from", "since", type=Time(), metavar="TIME", help="What was recorded then or later.")
@click.option("--to", "until", type=Time(), metavar="TIME", help="What was recorded then or earlier.")
@click.option("--shard", type=click.IntRange(min=0), metavar="N", help="Of this shard, with --seq.")
@click.option("--seq", "seqs", type=Seqs(), metavar="A..B", help="These seqs, both ends included.")
@json_option
def republish(
    since: datetime | None, until: datetime | None, shard: int | None, seqs: tuple[int, int] | None, json_wanted: bool
) -> None:
    """Publish again what was published: the same bytes, ids, keys and headers, and the header ledger-replay.

    Subscribers that drop what they know by its id notice nothing. To the balances topic, which keeps the last state of
    each key, only states go that are still the last. What has left the outbox can't be published again.
    """
    by_time, by_seq = since is not None and until is not None, shard is not None and seqs is not None
    if by_time == by_seq or (since is None) != (until is None) or (shard is None) != (seqs is None):
        raise click.UsageError("say which outputs: --from and --to, or --shard and --seq")
    if by_time:
        wanted = Range(since=since, until=until)
    else:
        assert seqs is not None
        wanted = Range(shard=shard, seq_first=seqs[0], seq_last=seqs[1])
    settings = settings_of_command()
    settings.need_database_url()
    settings.need_kafka_bootstrap()
    quiet_aiokafka(settings)
    _show(_send(settings, wanted), json_wanted)


def _send(settings: Settings, wanted: Range) -> Republished:
    try:
        return asyncio.run(send_again(settings, wanted, told=_counting()))
    except (KafkaError, OSError) as fault:
        raise SettingsError(f"it broke off ({fault!r}); run it again: what was sent twice has the same id") from fault


def _counting() -> Callable[[int], None]:
    """How many were read so far, for whoever looks on; how many they will be isn't known before."""
    total = 0

    def told(count: int) -> None:
        nonlocal total
        total += count
        click.echo(f"\r{total:,} outputs", err=True, nl=False)

    return told if sys.stderr.isatty() else lambda count: None


def _show(done: Republished, json_wanted: bool) -> None:
    if json_wanted:
        click.echo(as_json({"published": dict(sorted(done.topics.items())), "outdated_balances": done.outdated}))
        return
    rows = [[topic, f"{count:,}"] for topic, count in sorted(done.topics.items())]
    show_table(["Topic", "Published again"], rows, right=["Published again"], empty="nothing was published then")
    if done.outdated:
        click.echo(f"{done.outdated:,} balances have a later state and were left out.", err=True)
