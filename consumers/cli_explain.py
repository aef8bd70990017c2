"""The command that says why: from a record in Kafka through its event to postings and outputs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.cli_cards import show_authorization, show_hold
from consumers.cli_output import as_json, moment, money, show_table
from consumers.cli_reads import ask, json_option, tenant_option
from consumers.cli_settings import settings_of_command
from infra.postgres.queries import NotFound
from infra.postgres.queries_explained import (
    ExplainedAccount,
    ExplainedEntry,
    Origin,
    ToldOutput,
    explain_account,
    explain_entry,
)
from infra.postgres.queries_explained_cards import (
    ExplainedAuthorization,
    ExplainedEvent,
    ExplainedHold,
    explain_authorization,
    explain_hold,
)
from infra.settings import Settings

Explained = ExplainedEntry | ExplainedAccount | ExplainedHold | ExplainedAuthorization


@click.command("explain")
@click.argument("what", nargs=-1, required=True, metavar="ENTRY_ID | ACCOUNT | HOLD_ID | PROVIDER EXTERNAL_ID")
@tenant_option
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Of an account: last entries.")
@json_option
def explain(what: tuple[str, ...], tenant: str, limit: int, json_wanted: bool) -> None:
    """Why an entry, a balance, a hold or a card payment is what it is: from Kafka to postings to outputs.

    One name is looked for as an entry's id, then as an account, then as a hold. Two are a card payment.
    """
    if len(what) > 2:
        raise click.UsageError("at most two names: a card payment's provider and external id")

    async def answer(connection: AsyncConnection) -> Explained:
        if len(what) == 2:
            return await explain_authorization(connection, tenant, *what)
        return await _find(connection, tenant, what[0], limit)

    _show(ask(answer), json_wanted)


async def _find(connection: AsyncConnection, tenant: str, name: str, limit: int) -> Explained:
    """What goes by this name. Raises: NotFound, of what it looks like most."""
    unknown: NotFound | None = None
    if (entry_id := _as_id(name)) is not None:
        try:
            return await explain_entry(connection, tenant, entry_id)
        except NotFound as missing:
            # An account or a hold may be named like an id.
            unknown = missing
    try:
        return await explain_account(connection, tenant, name, limit=limit)
    except NotFound as missing:
        unknown = unknown or missing
    try:
        return await explain_hold(connection, tenant, name)
    except NotFound:
        raise NotFound(f"{unknown}, nor a hold of that name") from None


def _show(found: Explained, json_wanted: bool) -> None:
    if json_wanted:
        click.echo(as_json(found))
    elif "entry" in found:
        _show_entry(found, settings_of_command())
    elif "hold" in found:
        show_hold(found["hold"])
        _show_events(found["events"], found["hold"]["currency"], settings_of_command())
    elif "authorization" in found:
        show_authorization(found["authorization"])
        _show_events(found["events"], found["authorization"]["currency"] or "", settings_of_command())
    else:
        _show_account(found)


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _show_events(events: list[ExplainedEvent], unit: str, settings: Settings) -> None:
    """Each event as a block: where it was read, what it was, what was said of it."""
    for each in events:
        event = each["event"]
        click.echo()
        outcome = each["outcome"] if each["code"] is None else f"{each['outcome']} {each['code']}"
        click.echo(f"seq {event['seq']}  {event['type']} {event['id']} of {event['source']}: {outcome}")
        click.echo(f"  read from   {_place(event)}")
        _show_waiting(event)
        click.echo(f"  happened    {moment(event['occurred_at'])}, recorded {moment(event['recorded_at'])}")
        if "superseded" in each:
            amount = money(event["data"]["amount"], unit)
            click.echo(
                f"  adjusted    to {amount}{', superseded by one of a later time' if each['superseded'] else ''}"
            )
        for output in each["outputs"]:
            row = _output_row(output, settings)
            click.echo(f"  published   {row[2]} {row[0]} on {row[1]}: {row[3]}")
            if (said := output.get("said")) is not None:
                click.echo(f"              {_standing(said, unit)}")


def _show_waiting(event: Origin) -> None:
    if (waited := event.get("parked")) is not None:
        click.echo(f"  waited      since {moment(waited['since'])} for {waited['waits_for']}")


def _standing(said: dict[str, Any], unit: str) -> str:
    """How an authorization stood after an event, from what was published then."""
    if "decision" in said:
        approved, asked = money(said["approved_amount"], unit), money(said["amount"], unit)
        reasons = f" ({', '.join(said['reasons'])})" if said["reasons"] else ""
        return f"{said['decision']}{reasons}, {approved} of {asked}"
    amounts = [f"{name} {money(said[name], unit) if unit else '-'}" for name in ("authorized", "captured", "refunded")]
    return ", ".join([said["status"], *amounts, *(["superseded"] if said.get("superseded") else [])])


def _show_account(found: ExplainedAccount) -> None:
    lines = [
        [
            line["currency"],
            money(line["posted"], line["currency"]),
            money(line["held"], line["currency"]),
            money(line["available"], line["currency"]),
            str(line["version"]),
        ]
        for line in found["balances"]
    ]
    figures = ["Posted", "Held", "Available", "Version"]
    show_table(["Currency", *figures], lines, right=figures, title=found["account"], empty="nothing was posted to it")
    rows = [
        [
            str(each["entry"]["entry_id"]),
            each["entry"]["kind"],
            money(leg["amount"], leg["currency"]),
            money(leg["posted_after"], leg["currency"]),
            f"{each['event']['type']} {each['event']['id']}, {_place(each['event'])}",
        ]
        for each in found["entries"]
        for leg in each["entry"]["postings"]
        if leg["account"] == found["account"]
    ]
    click.echo()
    columns = ["Entry", "Kind", "Amount", "Posted after", "Because of"]
    show_table(columns, rows, right=["Amount", "Posted after"], whole=["Entry"], title="Made by, the latest first")
    if found["more"]:
        click.echo("There are older ones: --limit shows more of them, `statement` all.", err=True)


def _show_entry(found: ExplainedEntry, settings: Settings) -> None:
    event, entry = found["event"], found["entry"]
    click.echo(f"{entry['kind']} {entry['entry_id']}, seq {entry['seq']}")
    click.echo(f"  read from   {_place(event)}")
    click.echo(f"  event       {event['type']} {event['id']} of {event['source']}, at seq {event['seq']}")
    _show_waiting(event)
    click.echo(
        f"  happened    {moment(event['occurred_at'])}, effective {moment(entry['effective_at'])}, "
        f"recorded {moment(event['recorded_at'])}"
    )
    for name, value in entry["references"].items():
        click.echo(f"  {name:<11} {value}")
    for code in entry["breaches"]:
        click.echo(f"  breaches    {code}")
    click.echo()
    postings = [
        [leg["account"], money(leg["amount"], leg["currency"]), money(leg["posted_after"], leg["currency"])]
        for leg in entry["postings"]
    ]
    show_table(["Account", "Amount", "Posted after"], postings, right=["Amount", "Posted after"], title="Postings")
    click.echo()
    show_table(
        ["Output", "Topic", "Type", "Published"],
        [_output_row(output, settings) for output in found["outputs"]],
        whole=["Output"],
        title="Outputs of the event",
    )


def _output_row(output: ToldOutput, settings: Settings) -> list[str]:
    if output["topic"] is None:
        return [f"seq {output['seq']}", "no longer in the outbox", "-", "yes" if output["published"] else "no"]
    topic = f"{settings.topic(output['topic'])}[{output['partition']}]"
    return [str(output["id"]), topic, str(output["type"]), "yes" if output["published"] else "not yet"]


def _place(event: Origin) -> str:
    if event["topic"] is None:
        return "no topic: the ledger's own doing"
    return f"{event['topic']}[{event['partition']}] offset {event['offset']}"
