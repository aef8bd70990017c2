"""The command that says why: from a record in Kafka through its event to postings and outputs."""

from __future__ import annotations

from uuid import UUID

import click
from sqlalchemy.ext.asyncio import AsyncConnection

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
from infra.settings import Settings


@click.command("explain")
@click.argument("what", metavar="ENTRY_ID|ACCOUNT")
@tenant_option
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Of an account: last entries.")
@json_option
def explain(what: str, tenant: str, limit: int, json_wanted: bool) -> None:
    """Why an entry, or an account's balance, is what it is: from Kafka to postings to outputs."""

    async def answer(connection: AsyncConnection) -> ExplainedEntry | ExplainedAccount:
        if (entry_id := _as_id(what)) is None:
            return await explain_account(connection, tenant, what, limit=limit)
        try:
            return await explain_entry(connection, tenant, entry_id)
        except NotFound as unknown:
            # An account may be named like an id.
            try:
                return await explain_account(connection, tenant, what, limit=limit)
            except NotFound:
                raise unknown from None

    found = ask(answer)
    if json_wanted:
        click.echo(as_json(found))
    elif "entry" in found:
        _show_entry(found, settings_of_command())
    else:
        _show_account(found)


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


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
    if (waited := event.get("parked")) is not None:
        click.echo(f"  waited      since {moment(waited['since'])} for {waited['waits_for']}")
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
