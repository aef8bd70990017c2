"""How answers look: JSON lines for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import click

from domain.money import in_major_units
from infra.outputs import rfc3339

Document = Mapping[str, Any]


def as_json(document: Document) -> str:
    """One JSON document on one line; times as in the streams, integers exact."""
    return json.dumps(document, default=_json_value, ensure_ascii=False, separators=(",", ":"))


def _json_value(value: object) -> str:
    match value:
        case datetime():
            return rfc3339(value)
        case date():
            return value.isoformat()
        case UUID():
            return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def show_json(documents: Iterable[Document]) -> None:
    for document in documents:
        click.echo(as_json(document))


async def stream_json(documents: AsyncIterator[Document]) -> None:
    """JSON lines as they are read, however many there are."""
    async for document in documents:
        click.echo(as_json(document))


def money(amount_minor: int | None, currency: str) -> str:
    """An amount for people; a dash for what is not known."""
    return "-" if amount_minor is None else in_major_units(amount_minor, currency)


def moment(time: datetime | None) -> str:
    """A time for people: UTC, to the second."""
    return "-" if time is None else time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show_table(
    columns: Iterable[str],
    rows: Iterable[Iterable[str]],
    *,
    right: Iterable[str] = (),
    whole: Iterable[str] = (),
    title: str | None = None,
    empty: str = "none",
) -> None:
    """A table as wide as the terminal, its cells folded; the columns in `right`, aligned so, and in `whole` never are.

    Nothing to show: one line on stderr that says so.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    cells, right, whole = [list(row) for row in rows], frozenset(right), frozenset(whole)
    if not cells:
        click.echo(empty, err=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left", title=title)
    for place, column in enumerate(columns):
        if column in right or column in whole:
            widest = max(len(cell) for cell in (column, *(row[place] for row in cells)))
            table.add_column(column, justify="right" if column in right else "left", no_wrap=True, min_width=widest)
        else:
            table.add_column(column, overflow="fold")
    for row in cells:
        # Text, so that what stands in brackets in someone's description is not taken for markup.
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    # Figures are never cut: where they don't fit, lines are longer than the terminal is wide.
    console.width = max(console.width, Measurement.get(console, console.options, table).minimum)
    console.print(table)
