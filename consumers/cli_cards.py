"""The commands that read holds, card payments, and what these are judged by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.cli_output import as_json, moment, money, show_table, stream_json
from consumers.cli_reads import ask, json_option, tenant_option
from infra.postgres import queries
from infra.postgres.queries import (
    AuthorizationDocument,
    AuthorizationEvent,
    CardDocument,
    CategoryDocument,
    HoldDocument,
    LineDocument,
)

Find = Callable[[AsyncConnection], AsyncIterator[Any]]


@click.command("hold")
@click.argument("hold_id")
@tenant_option
@json_option
def hold(hold_id: str, tenant: str, json_wanted: bool) -> None:
    """A part of a balance that is set aside, and what became of it.

    The hold of a card payment is its authorization's own: see `ledgerstream authorization`.
    """
    found = ask(lambda connection: queries.hold(connection, tenant, hold_id))
    if json_wanted:
        click.echo(as_json(found))
    else:
        show_hold(found)


def show_hold(found: HoldDocument) -> None:
    """A hold for people."""
    unit = found["currency"]
    click.echo(f"hold {found['hold_id']}: {found['status']}")
    way = "to" if found["direction"] == "in" else "out of"
    facts = {
        "account": f"{found['account']}; what is captured goes {way} it",
        "amount": money(found["amount"], unit),
        "still held": money(found["held"], unit),
        "captured": money(found["captured"], unit),
        "expires": moment(found["expires_at"]) if found["status"] == "pending" else "",
        "payment": found.get("payment_id", ""),
    }
    _show_facts(facts | {f"entry {number}": each for number, each in enumerate(found["entry_ids"], 1)})


@click.command("authorization")
@click.argument("provider")
@click.argument("external_id")
@tenant_option
@json_option
def authorization(provider: str, external_id: str, tenant: str, json_wanted: bool) -> None:
    """A card payment by its provider and the provider's id: the decision with its reasons, and all that came after."""
    found = ask(lambda connection: queries.authorization(connection, tenant, provider, external_id))
    if json_wanted:
        click.echo(as_json(found))
    else:
        show_authorization(found)


def show_authorization(found: AuthorizationDocument) -> None:
    """A card payment for people, with a line for each of its events."""
    unit = found["currency"] or ""
    confirmed = "confirmed" if found["confirmed"] else "not confirmed"
    click.echo(f"{found['provider']} {found['external_id']}: {found['status']}, {confirmed}")
    facts = {
        "decision": _decision(found, unit),
        "reasons": ", ".join(found["reasons"]),
        "categories": ", ".join(found["expense_categories"]),
        "lines": _lines_of(found, unit),
        "account": found["account"] or "",
        "held": money(found["held"], unit) if found["account"] else "",
        "authorized": money(found["authorized"], unit) if unit else "",
        "captured": money(found["captured"], unit) if unit else "",
        "refunded": money(found["refunded"], unit) if unit else "",
        "expires": moment(found["expires_at"]) if found["status"] == "approved" else "",
    }
    _show_facts(facts)
    click.echo()
    columns = ["Seq", "Time", "Event", "Id", "Amount", "Held"]
    rows = [_event_row(event, unit) for event in found["events"]]
    show_table(columns, rows, right=("Seq", "Amount", "Held"), whole=("Time",), title="What happened to it")
    # Below the table, where an id has room to be copied from.
    for event in found["events"]:
        if "entry_id" in event:
            click.echo(f"Entry at seq {event['seq']}: {event['entry_id']}")


def _decision(found: AuthorizationDocument, unit: str) -> str:
    if found["decision"] is None:
        return "none yet"
    if found["decision"] == "declined":
        return f"declined by {found['decided_by']}, {found['reason']}; asked for {money(found['amount'], unit)}"
    partly = f" of {money(found['amount'], unit)}" if found["reason"] == "partial" else ""
    return f"approved by {found['decided_by']}, {money(found['approved_amount'], unit)}{partly}"


def _lines_of(found: AuthorizationDocument, unit: str) -> str:
    lines = ", ".join(found["lines_of_credit"])
    return f"{lines}; {money(found['expensed'], unit)} expensed on each" if lines else ""


def _event_row(event: AuthorizationEvent, unit: str) -> list[str]:
    held = event.get("held_change")
    return [
        str(event["seq"]),
        moment(event["time"]),
        event["type"].removeprefix("authorization.").rpartition(".v")[0],
        event["event_id"] or "",
        money(event.get("amount"), unit) if "amount" in event and unit else "",
        "" if held is None else f"{'+' if held > 0 else ''}{money(held, unit)}",
    ]


@click.command("lines")
@tenant_option
@click.option("--owner-type", required=True, metavar="TYPE", help="What the owner is, such as employee.")
@click.option("--owner-ref", required=True, type=click.UUID, metavar="UUID", help="The owner's id.")
@json_option
def lines(tenant: str, owner_type: str, owner_ref: UUID, json_wanted: bool) -> None:
    """The lines of credit of an owner, and what is left of each."""
    _list(
        lambda connection: queries.list_lines(connection, tenant, owner_type=owner_type, owner_ref=str(owner_ref)),
        json_wanted,
        lambda found: _show_lines(found, empty=f"{owner_type} {owner_ref} has no line of credit"),
    )


@click.command("line")
@click.argument("line_of_credit_id", metavar="ID")
@tenant_option
@json_option
def line(line_of_credit_id: str, tenant: str, json_wanted: bool) -> None:
    """One line of credit, and what is left of it."""
    found = ask(lambda connection: queries.line(connection, tenant, line_of_credit_id))
    if json_wanted:
        click.echo(as_json(found))
        return
    click.echo(f"of {found['owner_type']} {found['owner_ref']}")
    _show_lines([found])


def _show_lines(found: list[LineDocument], *, empty: str = "none") -> None:
    def row(each: LineDocument) -> list[str]:
        amounts = each["credits_limit"], each["expensed_credits"], each["available_credits"]
        ended = ["ended" if each["terminated"] else ""]
        shown = [money(amount, each["currency"]) for amount in amounts]
        return [each["line_of_credit_id"], each["expense_category"], *shown, *ended]

    figures = ["Limit", "Expensed", "Available"]
    show_table(["Line", "Category", *figures, ""], [row(each) for each in found], right=figures, empty=empty)


@click.command("categories")
@tenant_option
@json_option
def categories(tenant: str, json_wanted: bool) -> None:
    """The expense categories, and which payments are of each."""

    def row(found: CategoryDocument) -> list[str]:
        return [found["code"], found["name"], _rules(found["match"]), found["reference"] or ""]

    columns = ["Code", "Name", "Matches", "Reference"]
    _list(
        lambda connection: queries.list_categories(connection, tenant),
        json_wanted,
        lambda found: show_table(columns, map(row, found), empty="no categories"),
    )


def _rules(rules: list[dict[str, Any]]) -> str:
    """Rules for people: any may match, in each all that it says."""
    return " or ".join(map(_rule, rules)) or "none by itself"


def _rule(rule: Mapping[str, Any]) -> str:
    merchants = [f"{each['merchant_id']} of {each['acquirer_id']}" for each in rule.get("merchants", ())]
    said = {"MCC": rule.get("mccs"), "country": rule.get("countries"), "merchant": merchants}
    return " and ".join(f"{name} {', '.join(values)}" for name, values in said.items() if values) or "every payment"


@click.command("cards")
@tenant_option
@json_option
def cards(tenant: str, json_wanted: bool) -> None:
    """The cards that were assigned, and whose each is."""

    def row(found: CardDocument) -> list[str]:
        return [found["card_id"], found["owner_type"], found["owner_ref"]]

    _list(
        lambda connection: queries.list_cards(connection, tenant),
        json_wanted,
        lambda found: show_table(["Card", "Owner", "Id"], map(row, found), empty="no card is assigned to anybody"),
    )


def _list(find: Find, json_wanted: bool, show: Callable[[list[Any]], None]) -> None:
    async def answer(connection: AsyncConnection) -> list[Any] | None:
        if json_wanted:
            await stream_json(find(connection))
            return None
        return [each async for each in find(connection)]

    found = ask(answer)
    if found is not None:
        show(found)


def _show_facts(facts: Mapping[str, str]) -> None:
    told: Iterable[tuple[str, str]] = ((name, value) for name, value in facts.items() if value)
    for name, value in told:
        click.echo(f"  {name:<11} {value}")
