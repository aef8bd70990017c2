"""`ledgerstream digest`: one hash of all ledger tables."""

from __future__ import annotations

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from consumers.cli_output import as_json, show_table
from consumers.cli_reads import ask, json_option


@click.command("digest")
@click.option("--tables", is_flag=True, help="A line for each table, too: to find where two ledgers differ.")
@json_option
def digest(tables: bool, json_wanted: bool) -> None:
    """One hash of all that the ledger knows: the same for the same history, however it lies on disk."""
    from infra.digest import TableDigest, table_digests, whole_digest

    found: list[TableDigest] = []

    async def answer(connection: AsyncConnection) -> None:
        async for each in table_digests(connection):
            found.append(each)

    ask(answer)
    whole = whole_digest(found)
    if json_wanted:
        for each in found if tables else ():
            click.echo(as_json(each))
        click.echo(as_json({"digest": whole}))
        return
    if tables:
        rows = [[each["table"], f"{each['rows']:,}", each["digest"]] for each in found]
        show_table(["Table", "Rows", "Digest"], rows, right=["Rows"], whole=["Digest"])
    click.echo(whole)
