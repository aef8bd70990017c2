"""`ledgerstream replay`: input topics again, or the journal into an empty database."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import asyncpg
import click
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from consumers.cli_output import as_json, moment, money, show_table
from consumers.cli_reads import Time, json_option
from consumers.cli_replay_journal import journal
from consumers.cli_settings import settings_of_command
from infra.ledger import BatchResult
from infra.postgres.errors import TransientError
from infra.replay_changes import Changes
from infra.replay_topics import Stretch, Wanted
from infra.settings import Settings, SettingsError
from schemas.topics import READ_TOPICS

COUNTED = ("applied", "duplicates", "rejected", "parked", "dead_letters")
Told = Callable[[int], None]


@click.group("replay")
def replay() -> None:
    """Read again what was read before: harmless, because what is known stays as it is."""


replay.add_command(journal)


class Offset(click.ParamType[tuple[str, int, int]]):
    """`TOPIC:PARTITION:OFFSET`."""

    name = "offset"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int, int]:
        if isinstance(value, tuple):
            return value
        topic, *numbers = str(value).rsplit(":", 2)
        if len(numbers) != 2 or not all(number.isascii() and number.isdigit() for number in numbers):
            self.fail(f"{value!r} is not TOPIC:PARTITION:OFFSET, such as payments:0:1200", param, ctx)
        return topic, int(numbers[0]), int(numbers[1])


@replay.command("topics")
@click.option("--from-beginning", is_flag=True, help="All that Kafka still has.")
@click.option("--from-offset", "offsets", multiple=True, type=Offset(), metavar="TOPIC:PARTITION:OFFSET",
              help="This partition only, from there on; as often as wanted.")  # fmt: skip
@click.option("--from", "since", type=Time(), metavar="TIME", help="What was published then or later.")
@click.option("--tenant", metavar="T", help="Only this tenant's events; no dead letters.")
@click.option("--type", "type_name", metavar="TYPE", help="Only events of this type; no dead letters.")
@click.option("--dry-run", is_flag=True, help="Say what would change; ends 1 if anything would.")
@json_option
def topics(
    from_beginning: bool,
    offsets: Sequence[tuple[str, int, int]],
    since: datetime | None,
    tenant: str | None,
    type_name: str | None,
    dry_run: bool,
    json_wanted: bool,
) -> None:
    """Apply the input topics again, up to where they end now.

    What was applied is a duplicate and stays as it is; what was missed is applied. The workers may run meanwhile, and
    their positions are left alone. A dry run copies the ledger into a scratch database on the same server.
    """
    if sum((from_beginning, bool(offsets), since is not None)) != 1:
        raise click.UsageError("say where to begin: one of --from-beginning, --from-offset and --from")
    settings = settings_of_command()
    settings.need_database_url()
    settings.need_kafka_bootstrap()
    named = {TopicPartition(_full_name(settings, topic), number): offset for topic, number, offset in offsets}
    wanted = Wanted(offsets=named, since=since, tenant=tenant, type=type_name)
    try:
        result, changes, differs = asyncio.run(_replay(settings, wanted, dry_run=dry_run))
    except (KafkaError, TransientError, OSError) as fault:
        raise SettingsError(f"it broke off ({fault}); run it again: what was applied is then a duplicate") from fault
    _show(result, changes, json_wanted)
    sys.exit(1 if differs else 0)


def _full_name(settings: Settings, topic: str) -> str:
    return settings.topic(topic) if topic in READ_TOPICS else topic


async def _replay(settings: Settings, wanted: Wanted, *, dry_run: bool) -> tuple[BatchResult, Changes | None, bool]:
    from infra.postgres.scratch import scratch_copy
    from infra.replay_changes import anything_since, changes_since, remember
    from infra.replay_topics import stretches

    # Where the topics end is found out first: what comes meanwhile is the workers'.
    waiting = await stretches(settings, wanted)
    if not dry_run:
        return await _apply(settings, waiting, wanted), None, False
    async with scratch_copy(settings) as copy:
        books = await asyncpg.connect(copy.asyncpg_dsn)
        try:
            await remember(books)
            result = await _apply(copy, waiting, wanted)
            return result, await changes_since(books), await anything_since(books)
        finally:
            await books.close()


async def _apply(settings: Settings, waiting: Sequence[Stretch], wanted: Wanted) -> BatchResult:
    from consumers.app import ledger_rules
    from consumers.translate import read_command, translator
    from infra.kafka.topics import describe_topics
    from infra.ledger import Ledger
    from infra.postgres.engine import open_pool
    from infra.replay_topics import replay_topics
    from schemas.topics import OUTPUT_TOPICS

    states = await describe_topics(settings, [settings.topic(name) for name in OUTPUT_TOPICS])
    partitions = {name: states[settings.topic(name)].partitions for name in OUTPUT_TOPICS}
    pool = await open_pool(settings, name="replay")
    try:
        ledger = Ledger(pool, ledger_rules(settings, partitions), read_command)
        with progress(sum(stretch.end - stretch.offset for stretch in waiting), "Replaying") as told:
            return await replay_topics(settings, ledger, waiting, wanted, translator(settings.shards), told=told)
    finally:
        await pool.close()


def progress(total: int, label: str) -> AbstractContextManager[Told]:
    """A bar for whoever looks on; nothing in a log."""

    @contextmanager
    def bar() -> Iterator[Told]:
        if not sys.stderr.isatty():
            yield lambda count: None
            return
        with click.progressbar(length=total, label=label, file=sys.stderr) as shown:
            yield shown.update

    return bar()


def _show(result: BatchResult, changes: Changes | None, json_wanted: bool) -> None:
    counts: dict[str, Any] = {name: asdict(result)[name] for name in COUNTED}
    if json_wanted:
        click.echo(as_json(counts | (changes or {})))
        return
    show_table(["Ended as", "Events"], [[name.replace("_", " "), f"{n:,}"] for name, n in counts.items()],
               right=["Events"])  # fmt: skip
    if changes is None:
        return
    accounts = [
        [each["tenant"], each["account"], *(money(each[name], each["currency"]) for name in
         ("posted_before", "posted", "held_before", "held"))]
        for each in changes["accounts"]
    ]  # fmt: skip
    entries = [
        [str(each["entry_id"]), each["tenant"], each["kind"], moment(each["effective_at"])]
        for each in changes["entries"]
    ]
    click.echo()
    figures = ["Posted", "Would be", "Held", "Would be held"]
    show_table(["Tenant", "Account", *figures], accounts, right=figures, empty="no balance would change")
    show_table(["Entry", "Tenant", "Kind", "Effective"], entries, whole=["Entry"], empty="there would be no new entry")
