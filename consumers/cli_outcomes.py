"""The commands that show what was not applied: rejections, what is parked, dead letters."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers import cli_redrive
from consumers.cli_output import as_json, moment, show_table, stream_json
from consumers.cli_reads import ask, json_option, limit_option, tenant_option
from consumers.cli_redrive import Asked, redrive_options
from infra.postgres import queries
from infra.postgres.queries import DeadLetter, DeadLetterRecord, ParkedEvent, Rejection
from schemas.topics import INPUT_TOPICS

_code_option = click.option("--code", metavar="CODE", help="Only those with this code.")


class Place(click.ParamType[tuple[int, int]]):
    """Where a row stands: `shard-seq`, as the lists print it; an output's id, `epoch-shard-seq`, does as well."""

    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        parts = str(value).split("-")
        if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(f"{value!r} is not an id of the list, such as 2-1044", param, ctx)
        shard, seq = int(parts[-2]), int(parts[-1])
        if shard > 32_767 or seq >= 2**63:
            self.fail(f"{value!r} is beyond every shard and seq", param, ctx)
        return shard, seq


_place_argument = click.argument("place", metavar="ID", type=Place())


Find = Callable[[AsyncConnection], AsyncIterator[Any]]


class Look(NamedTuple):
    """How documents become a table, and what is said when there is none."""

    columns: list[str]
    row: Callable[[Any], list[str]]
    empty: str


@click.group("rejections")
def rejections() -> None:
    """Events that were refused, and why."""


@rejections.command("list")
@tenant_option
@_code_option
@limit_option
@json_option
def list_rejections(tenant: str, code: str | None, limit: int | None, json_wanted: bool) -> None:
    """A tenant's refused events, the last first."""

    def row(found: Rejection) -> list[str]:
        return [found["id"], found["code"], _event(found["event"]), found["message"] or ""]

    _list(
        lambda connection: queries.list_rejections(connection, tenant, code=code, limit=limit),
        json_wanted,
        Look(["Id", "Code", "Event", "Message"], row, "nothing was refused"),
    )


@rejections.command("show")
@tenant_option
@_place_argument
@json_option
def show_rejection(tenant: str, place: tuple[int, int], json_wanted: bool) -> None:
    """One refused event, with its data."""
    _show(ask(lambda connection: queries.rejection(connection, tenant, place)), json_wanted)


@rejections.command("redrive")
@tenant_option
@redrive_options(Place())
def redrive_rejections(asked: Asked, tenant: str) -> None:
    """Have refused events judged again, changed or as they were.

    Each is sent as a delivery of its own, whose id and source say where it comes from and who sent it. A refused
    request has used up its idempotencykey: --set idempotencykey=NEW.
    """
    cli_redrive.redrive_rejections(asked, tenant)


@click.group("parked")
def parked() -> None:
    """Events that wait for something that is not there yet."""


@parked.command("list")
@tenant_option
@_code_option
@limit_option
@json_option
def list_parked(tenant: str, code: str | None, limit: int | None, json_wanted: bool) -> None:
    """A tenant's waiting events, the first first."""

    def row(found: ParkedEvent) -> list[str]:
        waits_for = found["waits_for"] or ""
        return [found["id"], waits_for, _event(found["event"]), moment(found["since"])]

    _list(
        lambda connection: queries.list_parked(connection, tenant, code=code, limit=limit),
        json_wanted,
        Look(["Id", "Waits for", "Event", "Since"], row, "nothing is parked"),
    )


@parked.command("show")
@tenant_option
@_place_argument
@json_option
def show_parked(tenant: str, place: tuple[int, int], json_wanted: bool) -> None:
    """One waiting event, with its data."""
    _show(ask(lambda connection: queries.parked_event(connection, tenant, place)), json_wanted)


@parked.command("redrive")
@tenant_option
@click.option("--give-up", is_flag=True, help="Reject it now instead of when its patience is over.")
@redrive_options(Place())
def redrive_parked(asked: Asked, tenant: str, give_up: bool) -> None:
    """Stop waiting: reject events now, and with a change send them again changed."""
    cli_redrive.redrive_parked(asked, tenant, give_up)


@click.group("dead-letters")
def dead_letters() -> None:
    """Records that were no events, byte for byte."""


@dead_letters.command("list")
@_code_option
@limit_option
@json_option
def list_dead_letters(code: str | None, limit: int | None, json_wanted: bool) -> None:
    """The dead letters, the last of each shard first."""

    def row(found: DeadLetter) -> list[str]:
        place = f"{found['topic']}[{found['partition']}]@{found['offset']}"
        return [found["id"], found["code"], place, found["message"]]

    _list(
        lambda connection: queries.list_dead_letters(connection, code=code, limit=limit),
        json_wanted,
        Look(["Id", "Code", "Record", "Message"], row, "no dead letters"),
    )


@dead_letters.command("show")
@_place_argument
@click.option("--raw", is_flag=True, help="Only the value, byte for byte.")
@json_option
def show_dead_letter(place: tuple[int, int], raw: bool, json_wanted: bool) -> None:
    """One dead letter, with its bytes."""
    letter = ask(lambda connection: queries.dead_letter(connection, place))
    if raw:
        sys.stdout.buffer.write(letter["value"] or b"")
        return
    _show(_readable(letter), json_wanted)


@dead_letters.command("redrive")
@click.option("--topic", type=click.Choice(INPUT_TOPICS), help="Send to this topic instead of the one it came on.")
@redrive_options(Place())
def redrive_dead_letters(asked: Asked, topic: str | None) -> None:
    """Send records to their topics again, changed or, once this program reads them, as they were."""
    cli_redrive.redrive_dead_letters(asked, topic)


def _readable(letter: DeadLetterRecord) -> dict[str, Any]:
    """Bytes as text where they are text; else in base 64, under a name that says so."""
    document: dict[str, Any] = {**letter}
    for name in ("key", "value"):
        content = document.pop(name)
        document |= _bytes_as(name, content)
    document["headers"] = [
        {"name": name, **_bytes_as("value", None if content is None else bytes.fromhex(content))}
        for name, content in json.loads(letter["headers"] or b"[]")
    ]
    return document


def _bytes_as(name: str, content: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if content is None else content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content or b"").decode()}


def _event(event: Mapping[str, Any]) -> str:
    return f"{event['type']} {event['id']}"


def _list(find: Find, json_wanted: bool, look: Look) -> None:
    async def answer(connection: AsyncConnection) -> list[list[str]]:
        found = find(connection)
        if json_wanted:
            await stream_json(found)
            return []
        return [look.row(document) async for document in found]

    rows = ask(answer)
    if not json_wanted:
        show_table(look.columns, rows, whole=("Id", "Code", "Since"), empty=look.empty)


def _show(document: Mapping[str, Any], json_wanted: bool) -> None:
    text = as_json(document)
    click.echo(text if json_wanted else json.dumps(json.loads(text), indent=2, ensure_ascii=False))
