"""`redrive` of rejections, parked events and dead letters: what an operator sends again, and what is said of it."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.cli_output import as_json, show_json, show_table
from consumers.cli_reads import ask, json_option
from consumers.cli_settings import settings_of_command
from consumers.redrive import (
    CannotRedriveError,
    Document,
    Redrive,
    keys_of,
    redrive_event,
    redrive_letter,
    refuse_held,
    with_values,
)
from infra.kafka.publisher import NotSentError, publish
from infra.postgres import queries
from infra.settings import Settings
from schemas.topics import INPUT_TOPICS

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the operator asked for, whichever of the three it is about."""

    places: Sequence[Place]
    all_of_them: bool
    code: str | None
    values: Sequence[str]
    file: IO[bytes] | None
    in_editor: bool
    who: str
    dry_run: bool
    yes: bool
    json_wanted: bool

    @property
    def edited(self) -> bool:
        return bool(self.values or self.file or self.in_editor)

    def check(self) -> None:
        if bool(self.places) == self.all_of_them:
            raise click.UsageError("give IDs of the list, or --all, with --code as a filter")
        if self.code is not None and not self.all_of_them:
            raise click.UsageError("--code is a filter of --all")
        if (self.file or self.in_editor) and (self.all_of_them or len(self.places) > 1):
            raise click.UsageError("--file and --edit change one; --set changes many alike")


def redrive_options(place_type: click.ParamType[Place]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of the three commands; they come as one `Asked`."""
    options = [
        click.argument("places", metavar="[ID]...", type=place_type, nargs=-1),
        click.option("--all", "all_of_them", is_flag=True, help="All that the list shows."),
        click.option("--code", metavar="CODE", help="With --all: only those with this code."),
        click.option("--set", "values", metavar="PATH=VALUE", multiple=True, help="Change it first: data.amount=5."),
        click.option("--file", type=click.File("rb"), help="Send what stands in this file instead."),
        click.option("--edit", "in_editor", is_flag=True, help="Change it in $EDITOR first."),
        click.option("--by", "who", metavar="NAME", default=getpass.getuser, help="Who does this; else the user."),
        click.option("--dry-run", is_flag=True, help="Only say what would be sent."),
        click.option("--yes", is_flag=True, help="Don't ask."),
        json_option,
    ]  # fmt: skip

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def gathered(**given: Any) -> None:
            named = {name: given.pop(name) for name in Asked.__dataclass_fields__}
            asked = Asked(**named)
            asked.check()
            command(asked, **given)

        gathered.__doc__ = command.__doc__
        for option in reversed(options):
            gathered = option(gathered)
        return gathered

    return decorate


# --- the three ------------------------------------------------------------------------------------------------------


def redrive_rejections(asked: Asked, tenant: str) -> None:
    """Judge refused events again, each as a delivery of its own."""
    now = datetime.now(UTC)

    async def prepare(connection: AsyncConnection) -> list[Redrive | str]:
        places = asked.places
        if asked.all_of_them:
            listed = queries.list_rejections(connection, tenant, code=asked.code)
            places = [_place(each["id"]) async for each in listed]
        prepared: list[Redrive | str] = []
        for place in places:
            told = await queries.rejection(connection, tenant, place)
            try:
                made = redrive_event(told, tenant=tenant, edit=_editor(asked), who=asked.who, now=now)
                held = await queries.held_keys(connection, place[0], keys_of(made))
                before = refuse_held(made, held, shard=place[0])
                prepared.append(f"{told['id']}: {before}" if before else made)
            except CannotRedriveError as fault:
                prepared.append(str(fault))
        return prepared

    _carry_out(asked, ask(prepare))


def redrive_dead_letters(asked: Asked, topic: str | None) -> None:
    """Send dead letters to their topics again, their bytes changed or as they were."""
    now, settings = datetime.now(UTC), settings_of_command()

    async def prepare(connection: AsyncConnection) -> list[Redrive | str]:
        places = asked.places
        if asked.all_of_them:
            places = [_place(each["id"]) async for each in queries.list_dead_letters(connection, code=asked.code)]
        prepared: list[Redrive | str] = []
        for place in places:
            letter = await queries.dead_letter(connection, place)
            try:
                goes_to = topic or _short_name(settings, letter["topic"])
                value = _changed_bytes(asked, letter["value"])
                prepared.append(redrive_letter(letter, topic=goes_to, value=value, who=asked.who, now=now))
            except CannotRedriveError as fault:
                prepared.append(str(fault))
        return prepared

    _carry_out(asked, ask(prepare))


def redrive_parked(asked: Asked, tenant: str, give_up: bool) -> None:
    """Reject waiting events now; with a change, send them again changed."""
    if not give_up:
        raise click.UsageError(
            "a parked event is applied by itself as soon as what it waits for is there, and sent again it would be a "
            "duplicate of itself; --give-up rejects it now, with --set, --file or --edit it is then sent again, changed"
        )
    now = datetime.now(UTC)
    seqs: list[Place] = []

    async def prepare(connection: AsyncConnection) -> list[Redrive | str]:
        places = asked.places
        if asked.all_of_them:
            places = [_place(each["id"]) async for each in queries.list_parked(connection, tenant, code=asked.code)]
        prepared: list[Redrive | str] = []
        for place in places:
            told = await queries.parked_event(connection, tenant, place)
            try:
                made = redrive_event(told, tenant=tenant, edit=_editor(asked), who=asked.who, now=now)
                if asked.edited:
                    held = await queries.held_keys(connection, place[0], keys_of(made))
                    freed = place[1] if made.event is not None and made.event.command.fact else None
                    refuse_held(made, held, shard=place[0], freed=freed)
                prepared.append(made)
                seqs.append(place)
            except CannotRedriveError as fault:
                prepared.append(str(fault))
        return prepared

    prepared = ask(prepare)
    _carry_out(asked, prepared, before=lambda: _give_up(seqs, asked.who), sends=asked.edited)


def _give_up(places: Sequence[Place], who: str) -> None:
    from consumers.give_up import give_up

    count = asyncio.run(give_up(settings_of_command(), places, reason=f"given up by {who}"))
    if count < len(places):
        click.echo(f"{len(places) - count} no longer waited and were left alone", err=True)


# --- changes --------------------------------------------------------------------------------------------------------


def _editor(asked: Asked) -> Callable[[Document], Document]:
    def edit(document: Document) -> Document:
        if asked.file is not None:
            document = _document(asked.file.read())
        if asked.in_editor:
            document = _document((_in_editor(json.dumps(document, indent=2, ensure_ascii=False))).encode())
        return with_values(document, [_value(each) for each in asked.values])

    return edit


def _changed_bytes(asked: Asked, value: bytes | None) -> bytes | None:
    if asked.file is not None:
        value = asked.file.read()
    if asked.in_editor:
        try:
            text = (value or b"").decode()
        except UnicodeDecodeError as error:
            raise CannotRedriveError(
                "its value isn't text: write it to a file with `dead-letters show ID --raw`, mend it, and use --file"
            ) from error
        value = _in_editor(text).encode()
    if asked.values:
        document = with_values(_document(value or b""), [_value(each) for each in asked.values])
        value = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return value


def _in_editor(text: str) -> str:
    edited = click.edit(text, extension=".json")
    if edited is None:
        raise click.ClickException("nothing was changed in the editor; nothing was sent")
    return edited


def _document(content: bytes) -> Document:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise CannotRedriveError(f"it is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CannotRedriveError("it is not a JSON object")
    return document


def _value(text: str) -> tuple[str, Any]:
    path, is_given, value = text.partition("=")
    if not path:
        raise click.UsageError(f"--set {text!r} is not PATH=VALUE")
    if not is_given:
        return path, ...
    try:
        return path, json.loads(value)
    except ValueError:
        return path, value


# --- what is done ---------------------------------------------------------------------------------------------------


def _carry_out(
    asked: Asked, prepared: Sequence[Redrive | str], *, before: Callable[[], None] | None = None, sends: bool = True
) -> None:
    """Say what is left out, ask, and send the rest; 1 where something was left out."""
    ready = [each for each in prepared if isinstance(each, Redrive)]
    for reason in prepared:
        if isinstance(reason, str):
            click.echo(reason, err=True)
    if ready and not asked.dry_run:
        if len(ready) > 1 and not asked.yes:
            click.confirm(f"{len(ready)} events: go on?", abort=True, err=True)
        if before is not None:
            before()
        if sends:
            _send(ready)
    _show(asked, ready, sends=sends)
    if len(ready) < len(prepared):
        sys.exit(1)


def _send(ready: Sequence[Redrive]) -> None:
    messages = (each.message(number) for number, each in enumerate(ready, 1))
    try:
        asyncio.run(publish(settings_of_command(), messages, {each.topic for each in ready}, told=lambda count: None))
    except NotSentError as error:
        raise click.ClickException(str(error)) from error


def _show(asked: Asked, ready: Sequence[Redrive], *, sends: bool) -> None:
    done = not asked.dry_run
    if asked.json_wanted:
        show_json(
            {
                "id": each.of,
                "sent": done and sends,
                "given_up": done and not sends,
                "topic": each.topic if sends else None,
                "event_id": each.event.event_id if each.event is not None and sends else None,
                "changes": [difference._asdict() for difference in each.differences],
            }
            for each in ready
        )
        return
    word = ("Sent as" if sends else "Given up") if done else "Would be sent as" if sends else "Would be given up"
    rows = [[each.of, _sent_as(each) if sends else "-", each.topic, _changes(each)] for each in ready]
    show_table(["Id", word, "Topic", "Changes"], rows, whole=("Id",), empty="nothing to send")


def _sent_as(redrive: Redrive) -> str:
    return "the same record" if redrive.event is None else redrive.event.event_id


def _changes(redrive: Redrive) -> str:
    told = [f"{path}: {_text(before)} → {_text(after)}" for path, before, after in redrive.differences]
    return ", ".join(told) or "none"


def _text(value: Any) -> str:
    return as_json(value) if value is not None else "-"


def _short_name(settings: Settings, topic: str) -> str:
    name = topic.removeprefix(settings.topic_prefix)
    if name not in INPUT_TOPICS or settings.topic(name) != topic:
        raise CannotRedriveError(
            f"{topic} is no input topic with LEDGER_TOPIC_PREFIX={settings.topic_prefix!r}; say --topic"
        )
    return name


def _place(text: str) -> Place:
    shard, seq = text.split("-")
    return int(shard), int(seq)
