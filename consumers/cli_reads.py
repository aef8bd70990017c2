"""The commands that read the books."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from uuid import UUID

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.cli_output import as_json, moment, money, show_json, show_table, stream_json
from consumers.cli_settings import settings_of_command
from infra.postgres import queries
from infra.postgres.queries import BalanceLine, EntryDocument, EntryFilter, StatementLine
from infra.postgres.queries_statements import Order
from infra.postgres.reading import reading

Answer = TypeVar("Answer")
Command = Callable[..., Any]


class Time(click.ParamType[datetime]):
    """A time of RFC 3339 with an offset, 1970 to 2199."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is not a time; write it like 2026-01-31T12:00:00Z", param, ctx)
        if time.tzinfo is None:
            self.fail(f"{text!r} does not say of which zone; write it like 2026-01-31T12:00:00Z", param, ctx)
        if not 1970 <= time.year <= 2199:
            self.fail(f"{text!r} is outside of 1970 to 2199", param, ctx)
        return time.astimezone(UTC)


tenant_option = click.option("--tenant", required=True, metavar="T", help="The tenant whose books are read.")
json_option = click.option("--json", "json_wanted", is_flag=True, help="JSON for programs: a line per item.")
limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.")
_account_option = click.option("--account", required=True, metavar="NAME", help="The account's name.")
_currency_option = click.option("--currency", metavar="C", help="Only this currency.")
_recursive_option = click.option("--recursive", is_flag=True, help="With all accounts below it.")


def _refuse_unit(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError("--in needs prices, and this ledger keeps none yet; leave it out", ctx)


_unit_option = click.option("--in", metavar="UNIT", callback=_refuse_unit, expose_value=False, hidden=True)


def ask(question: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
    """Put a question to the books: one connection, one snapshot."""

    async def asked() -> Answer:
        async with reading(settings_of_command()) as connection:
            return await question(connection)

    return asyncio.run(asked())


@click.command("balance")
@tenant_option
@_account_option
@_currency_option
@click.option("--at", type=Time(), help="Of what was effective then or before.")
@click.option("--known-at", type=Time(), help="Of what was recorded then or before.")
@_unit_option
@_recursive_option
@json_option
def balance(
    tenant: str,
    account: str,
    currency: str | None,
    at: datetime | None,
    known_at: datetime | None,
    recursive: bool,
    json_wanted: bool,
) -> None:
    """An account's balance, now or at any time: a line per currency."""
    lines = ask(
        lambda connection: queries.balance(
            connection, tenant, account, currency=currency, at=at, known_at=known_at, recursive=recursive
        )
    )
    if json_wanted:
        show_json(lines)
    else:
        _show_balances(account, lines, past=at is not None or known_at is not None, recursive=recursive)


def _show_balances(account: str, lines: list[BalanceLine], *, past: bool, recursive: bool) -> None:
    # What eighty columns have room for: the version is in the JSON, and what is pending is seldom anything.
    pending = any(line["pending"] for line in lines)
    columns = ["Posted", *(["With those below"] if recursive else [])]
    columns += ["Natural"] if past else [*(["Pending"] if pending else []), "Held", "Available", "Updated"]
    rows = [_balance_row(line, columns) for line in lines]
    title = f"{account} ({lines[0]['type']})" if lines else None
    show_table(columns, rows, right=columns, title=title, empty=f"{account}: nothing was posted to it yet")


def _balance_row(line: BalanceLine, columns: list[str]) -> list[str]:
    amounts = {
        "Posted": line["posted"],
        "With those below": line.get("recursive_posted"),
        "Natural": queries.natural(line["type"], line["posted"]),
        "Pending": line["pending"],
        "Held": line["held"],
        "Available": line["available"],
    }
    return [
        moment(line["updated_at"]) if column == "Updated" else money(amounts[column], line["currency"])
        for column in columns
    ]


@click.command("statement")
@tenant_option
@_account_option
@_currency_option
@click.option("--from", "from_time", type=Time(), help="Effective then or later.")
@click.option("--to", "to_time", type=Time(), help="Effective then or before.")
@_unit_option
@click.option("--order", type=click.Choice(["oldest", "youngest"]), default="oldest", show_default=True)
@_recursive_option
@json_option
def statement(
    tenant: str,
    account: str,
    currency: str | None,
    from_time: datetime | None,
    to_time: datetime | None,
    order: str,
    recursive: bool,
    json_wanted: bool,
) -> None:
    """What was posted to an account, and the balance after each."""

    async def answer(connection: AsyncConnection) -> list[StatementLine]:
        lines = queries.statement(
            connection,
            tenant,
            account,
            currency=currency,
            from_time=from_time,
            to_time=to_time,
            order=cast(Order, order),
            recursive=recursive,
        )
        if json_wanted:
            await stream_json(lines)
            return []
        return [line async for line in lines]

    lines = ask(answer)
    if not json_wanted:
        _show_statement(account, lines)


def _show_statement(account: str, lines: list[StatementLine]) -> None:
    def amount(line: StatementLine, side: str) -> str:
        value = cast(dict[str, Any], line)[side]
        return money(value, line["currency"]) if value or side == "balance" else ""

    rows = [
        [
            moment(line["time"]),
            " · ".join(filter(None, (line.get("account"), line["opposing_account"] or "several", line["description"]))),
            *(amount(line, side) for side in ("debit", "credit", "balance")),
        ]
        for line in lines
    ]
    columns = ["Time", "Opposite", "Debit", "Credit", "Balance"]
    show_table(columns, rows, right=columns[2:], title=account, empty=f"{account}: nothing was posted to it then")


@click.command("entries")
@tenant_option
@click.option("--account", metavar="NAME", help="With a posting to this account.")
@click.option("--payment-id", metavar="ID")
@click.option("--refund-id", metavar="ID")
@click.option("--transfer-id", metavar="ID")
@click.option("--payout-id", metavar="ID")
@click.option("--dispute-id", metavar="ID")
@click.option("--kind", metavar="KIND", help="payment, refund, transfer, payout, posted, …")
@click.option("--after", type=Time(), help="Recorded after this time.")
@click.option("--before", type=Time(), help="Recorded before this time.")
@limit_option
@click.option("--cursor", type=click.UUID, metavar="ENTRY_ID", help="Go on after this entry, the last one seen.")
@json_option
def entries(tenant: str, json_wanted: bool, **wanted: Any) -> None:
    """Journal entries, in the order of the ledger."""

    async def answer(connection: AsyncConnection) -> None:
        found = queries.list_entries(connection, tenant, EntryFilter(**wanted))
        if json_wanted:
            await stream_json(found)
            return
        async for document in found:
            _show_entry(document)

    ask(answer)


@click.command("entry")
@tenant_option
@click.argument("entry_id", type=click.UUID)
@json_option
def entry(tenant: str, entry_id: UUID, json_wanted: bool) -> None:
    """One journal entry."""
    document = ask(lambda connection: queries.entry(connection, tenant, entry_id))
    if json_wanted:
        click.echo(as_json(document))
        return
    _show_entry(document)
    cause = document["cause"]
    click.echo(f"    recorded {moment(document['recorded_at'])}, seq {document['seq']}")
    click.echo(f"    caused by {cause['type']} {cause['id']} of {cause['source']}")


def _show_entry(document: EntryDocument) -> None:
    """One entry as a small block: a table of many would not fit eighty columns, and could not be read on the way."""
    click.echo(f"{moment(document['effective_at'])}  {document['entry_id']}  {document['kind']}")
    notes = [f"{name}={value}" for name, value in document["references"].items()]
    notes += [f"breaches {code}" for code in document["breaches"]]
    notes += [text for text in (document.get("description"),) if text is not None]
    if (reverses := document.get("reverses")) is not None:
        notes.append(f"reverses {reverses}")
    for note in notes:
        click.echo(f"    {note}")
    for leg in document["postings"]:
        click.echo(f"    {leg['account']:<46} {money(leg['amount'], leg['currency']):>28}")


@click.command("trial-balance")
@tenant_option
@click.option("--at", type=Time(), help="Of what was effective then or before.")
@json_option
def trial_balance(tenant: str, at: datetime | None, json_wanted: bool) -> None:
    """All accounts, debits against credits; the sums are zero."""
    lines, totals = ask(lambda connection: queries.trial_balance(connection, tenant, at=at))
    if json_wanted:
        show_json(lines)
        show_json(totals)
        return
    rows = [
        [
            line["account"],
            line["type"],
            money(line["posted"], line["currency"]) if line["posted"] > 0 else "",
            money(-line["posted"], line["currency"]) if line["posted"] < 0 else "",
        ]
        for line in lines
    ]
    show_table(["Account", "Type", "Debit", "Credit"], rows, right=("Debit", "Credit"), empty="nothing was posted yet")
    for total in totals:
        click.echo(f"All in {total['currency']}: {money(total['total'], total['currency'])}")
