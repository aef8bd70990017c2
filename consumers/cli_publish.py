"""`ledgerstream publish`: events from a file onto their topics, all of them checked before the first is sent."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click
import orjson

from consumers.cli_output import show_json, show_table
from consumers.cli_reads import json_option
from consumers.cli_settings import settings_of_command
from infra.kafka.publisher import Message, NotSentError
from infra.kafka.publisher import publish as send
from schemas.registry import EVENT_TYPES
from schemas.topics import INPUT_TOPICS
from schemas.wire import Malformed, read

SPOOL_BYTES = 16 * 1024 * 1024


@click.command("publish")
@click.argument("file", type=click.File("rb", lazy=False), metavar="FILE|-")
@click.option("--no-validate", is_flag=True, help="Send all lines as they are.")
@click.option("--topic", type=click.Choice(INPUT_TOPICS), help="Send to this topic, not to the one of the type.")
@json_option
def publish(file: IO[bytes], no_validate: bool, topic: str | None, json_wanted: bool) -> None:
    """Check JSON lines of events, one event a line, and publish them; an invalid one, and nothing is sent.

    Each goes to the topic of its type, keyed by its tenant. The ledger applies an event once however often it is sent.
    """
    settings = settings_of_command()
    settings.need_kafka_bootstrap()
    with _twice(file) as lines:
        topics, faults = _check(lines, topic, validate=not no_validate)
        if faults:
            raise click.ClickException(f"{faults} of the lines can't be sent as they are; nothing was sent")
        if not topics:
            raise click.ClickException("there is nothing to send")
        lines.seek(0)
        with _progress(topics.total()) as told:
            sent = _send(settings, _messages(lines, topic), topics, told)
    _show(sent, json_wanted)


def _send(settings: Any, messages: Iterator[Message], topics: Counter[str], told: Any) -> Counter[str]:
    try:
        return asyncio.run(send(settings, messages, topics, told=told))
    except NotSentError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _twice(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file from its beginning, as often as wanted; what can't go back is kept aside."""
    if file.seekable():
        yield file
        return
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as kept:
        for line in file:
            kept.write(line)
        kept.seek(0)
        yield kept


def _check(lines: IO[bytes], topic: str | None, *, validate: bool) -> tuple[Counter[str], int]:
    """How many lines go to each topic, and how many can't; each of those is told with its number, code and reason."""
    topics: Counter[str] = Counter()
    faults = 0
    for message in _messages(lines, topic):
        fault = _fault_of(message) if validate else _fault_of_place(message)
        if fault is None:
            topics[message.topic] += 1
        else:
            faults += 1
            click.echo(f"line {message.number}: {fault}", err=True)
    return topics, faults


def _fault_of(message: Message) -> str | None:
    found = read(message.value, (), message.topic or INPUT_TOPICS[0])
    return f"{found.code}: {found.message}" if isinstance(found, Malformed) else None


def _fault_of_place(message: Message) -> str | None:
    return None if message.topic else "it has no type that is known here; say where to with --topic"


def _messages(lines: IO[bytes], topic: str | None) -> Iterator[Message]:
    """Every line that is not blank, with its topic ("" if it has none) and its key, as far as they can be read."""
    for number, line in enumerate(lines, 1):
        value = line.strip(b" \t\r\n")
        if value:
            envelope = _envelope(value)
            known = EVENT_TYPES.get(_text(envelope, "type"))
            tenant = _text(envelope, "tenantid")
            yield Message(number, topic or (known.topic if known else ""), tenant.encode() or None, value)


def _envelope(value: bytes) -> dict[str, Any]:
    try:
        envelope = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return envelope if isinstance(envelope, dict) else {}


def _text(envelope: dict[str, Any], name: str) -> str:
    value = envelope.get(name)
    return value if isinstance(value, str) else ""


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar for whoever looks on; nothing in a log."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    with click.progressbar(length=total, label="Publishing", file=sys.stderr) as bar:
        yield bar.update


def _show(sent: Counter[str], json_wanted: bool) -> None:
    if json_wanted:
        show_json({"topic": topic, "published": count} for topic, count in sorted(sent.items()))
    else:
        show_table(["Topic", "Published"], [[name, f"{n:,}"] for name, n in sorted(sent.items())], right=["Published"])
