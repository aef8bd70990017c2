"""`ledgerstream asyncapi` and `ledgerstream schemas`: what is said on the wire, for programs in any language."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import click

from infra.settings import SettingsError, read_settings
from schemas.asyncapi import asyncapi as asyncapi_document
from schemas.documents import as_text, documents
from schemas.json_schemas import message_schema, message_types, model_of
from schemas.reference import MARKER, reference
from schemas.registry import EVENT_TYPES, OUTPUT_TYPES

VERSION = version("ledgerstream")


@click.command("asyncapi")
def asyncapi() -> None:
    """Print the AsyncAPI 3.0 document, with the names of your topics."""
    try:
        prefix = read_settings().topic_prefix
    except SettingsError as exc:
        raise click.UsageError(str(exc)) from exc
    click.echo(as_text(asyncapi_document(version=VERSION, prefix=prefix)), nl=False)


@click.command("schemas")
@click.argument("event_type", metavar="[TYPE]", required=False)
@click.option("--json", "as_json", is_flag=True, help="The list as JSON lines.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write all JSON Schemas, examples and the AsyncAPI document into this directory.",
)
def schemas(event_type: str | None, as_json: bool, out: Path | None) -> None:
    """List the types of event, print the JSON Schema of one, or write them all."""
    if event_type is not None and out is not None:
        raise click.UsageError("give a TYPE to print one schema, or --out to write them all, not both")
    if out is not None:
        _write_all(out)
    elif event_type is not None:
        _print_one(event_type)
    else:
        _list(as_json)


def _print_one(event_type: str) -> None:
    if event_type not in message_types():
        raise click.ClickException(f'no type {event_type!r} is known; "ledgerstream schemas" lists them')
    click.echo(as_text(message_schema(event_type)), nl=False)


def _list(as_json: bool) -> None:
    rows = [_row(event_type) for event_type in message_types()]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    for row in [{name: name for name in rows[0]}, *rows]:
        click.echo("  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip())


def _row(event_type: str) -> dict[str, str]:
    known = EVENT_TYPES.get(event_type)
    topic = known.topic if known else OUTPUT_TYPES[event_type].topic
    promise = (model_of(event_type).__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return {"type": event_type, "topic": topic, "direction": "in" if known else "out", "says": promise}


def _write_all(out: Path) -> None:
    files = documents(version=VERSION)
    for path, text in files.items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    page = out / "events.md"
    if page.exists():
        written_by_hand = page.read_text(encoding="utf-8").partition(MARKER)[0]
        page.write_text(written_by_hand + reference(), encoding="utf-8")
    click.echo(f"{len(files)} files in {out}", err=True)
