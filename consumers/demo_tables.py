"""What came of the demo, as tables for people."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import orjson
from aiokafka import ConsumerRecord
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from consumers import demo_card_tables as cards
from consumers.demo_reading import Found
from consumers.demo_scribe import Story
from domain.money import in_major_units
from infra.postgres.queries import BalanceLine, natural

TAIL = {"balances": 3, "entries": 2, "decisions": 2, "outcomes": 3, "dead-letters": 1}
"""How many of the last records of which topic are shown."""
BUSIEST = 2


class Show:
    """Prints what was found; each part stands for itself."""

    def __init__(self, console: Console, story: Story, found: Found) -> None:
        self._console, self._story, self._found = console, story, found

    def everything(self) -> None:
        self._went_in()
        self._balances()
        self._trial_balance()
        self._cards()
        self._tail()
        self._outcomes()
        self._verify()

    # --- in ---------------------------------------------------------------------------------------------------------

    def _went_in(self) -> None:
        self._heading("What went in")
        figures = self._found.figures
        rows = [[label, f"{count:,}"] for label, count in figures.published.most_common()]
        ends = [
            ["applied: entries made", f"{figures.entries.total():,}"],
            ["applied: accounts, holds, cards", f"{self._commands_without_entry():,}"],
            ["applied: card payments, no entry", f"{self._of_cards_without_entry():,}"],
            ["left out: they were there before", f"{figures.duplicates:,}"],
            ["rejected", f"{figures.rejected.total():,}"],
            ["still parked", f"{figures.waiting.total():,}"],
            ["dead letters", f"{figures.dead_letters.total():,}"],
            ["", ""],
            [f"of {figures.published.total():,} records", f"{figures.published.total():,}"],
        ]
        both = Table.grid(padding=(0, 6, 0, 0))
        both.add_row(
            _table(("Published", "Records"), rows, right=("Records",)),
            _table(("And how they ended", "Records"), ends, right=("Records",)),
        )
        self._console.print(both)

    def _commands_without_entry(self) -> int:
        figures = self._found.figures
        with_entry = sum(figures.entries[kind] for kind in ("posted", "reversal", "hold_captured"))
        return figures.outputs["command.applied"] - with_entry - self._found.expired["command.applied.v1"]

    def _of_cards_without_entry(self) -> int:
        figures = self._found.figures
        told = figures.outputs["authorization.decided"] + figures.outputs["authorization.changed"]
        with_entry = figures.entries["authorization_captured"] + figures.entries["authorization_refunded"]
        return told - with_entry - self._found.expired["authorization.changed.v1"]

    # --- books ------------------------------------------------------------------------------------------------------

    def _balances(self) -> None:
        self._heading("Balances, in each account's normal direction")
        marked = {leg["account"] for _, entry in self._found.breaches for leg in entry["postings"]}
        for tenant, lines in self._found.accounts.items():
            shown = _worth_showing(lines, marked)
            rows = [
                [
                    line["account"],
                    line["type"],
                    in_major_units(natural(line["type"], line["posted"]), line["currency"]),
                    f"{line['version']:,}",
                ]
                for line in lines
                if line in shown
            ]
            more = len(lines) - len(rows)
            table = _table(("Account", "Type", "Balance", "Changes"), rows, right=("Balance", "Changes"))
            self._console.print(Text(f"{tenant}  ", style="bold cyan").append(f"and {more} more", style="dim"))
            self._console.print(table)

    def _trial_balance(self) -> None:
        self._heading("Trial balance: all debits less all credits")
        debits: dict[tuple[str, str], int] = {}
        for (tenant, _, currency), posted in self._found.figures.balances.items():
            debits[tenant, currency] = debits.get((tenant, currency), 0) + max(posted, 0)
        rows = [
            [
                tenant,
                in_major_units(debits[tenant, currency], currency),
                in_major_units(total - debits[tenant, currency], currency),
                in_major_units(total, currency),
            ]
            for (tenant, currency), total in self._found.figures.trial_balance.items()
        ]
        right = ("Debit balances", "Credit balances", "Sum")
        self._console.print(_table(("Tenant", *right), rows, right=right))

    # --- cards ------------------------------------------------------------------------------------------------------

    def _cards(self) -> None:
        found, story = self._found, self._story
        self._heading("A day of card spending: which payments are of which category")
        self._print(("Category", "Payments with"), cards.categories(found))
        self._heading("May it go ahead? What the card processor was told")
        self._print(("At", "Who and where", "Asked", "Answer", "Why"), cards.decisions(story, found), "Asked", "Answer")
        self._console.print(Text(cards.summary(found.figures.decisions), style="dim"))
        self._heading("What became of what was approved, or taken all the same; in EUR")
        amounts = ("Captured", "Refunded", "Held")
        self._print(("Who and where", "Life", "Status", *amounts), cards.lives(story, found), *amounts)
        self._heading("Lines of credit, and the accounts that cards are paid from")
        self._print(("Line", "Limit", "Spent", "Left"), cards.lines(found), "Limit", "Spent", "Left")
        self._console.print()
        self._print(("Account", "Posted", "Held", "Left"), cards.wallets(found), "Posted", "Held", "Left")

    def _print(self, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *right: str) -> None:
        self._console.print(_table(columns, rows, right=right))

    # --- out --------------------------------------------------------------------------------------------------------

    def _tail(self) -> None:
        figures = self._found.figures
        counts = ", ".join(f"{count:,} {kind}" for kind, count in figures.outputs.most_common())
        self._heading("What a read_committed subscriber sees")
        self._console.print(Text(counts, style="dim"))
        last = [record for name, count in TAIL.items() for record in self._last_of(name, count)]
        rows = [[record.topic, _id(record), _told(record)] for record in last]
        self._console.print(_table(("Topic", "Id", "The last of them"), rows))

    def _last_of(self, topic: str, count: int) -> list[ConsumerRecord]:
        ours = [record for record in self._found.outputs if record.topic.endswith(topic)]
        return sorted(ours, key=lambda record: (record.timestamp, _seq(record)))[-count:]

    # --- outcomes ---------------------------------------------------------------------------------------------------

    def _outcomes(self) -> None:
        found = self._found
        self._heading("Rejected, and why")
        refused = sorted((event for _, event in found.rejections), key=lambda event: event["recorded_at"])
        rows = [
            [event["event"]["type"].removesuffix(".v1"), event["code"], event["message"] or ""] for event in refused
        ]
        self._console.print(_table(("Event", "Code", "Message"), rows))
        self._heading("Facts that broke a rule of the books: posted, and marked")
        rows = [[entry["kind"], ", ".join(entry["breaches"]), _legs(entry["postings"])] for _, entry in found.breaches]
        self._console.print(_table(("Entry", "Breaches", "Postings"), rows))
        self._heading("Parked: they wait for something that is not there yet")
        rows = [
            [tenant, event["event"]["type"].removesuffix(".v1"), event["waits_for"] or "", event["code"]]
            for tenant, event in found.parked
        ]
        self._console.print(_table(("Tenant", "Event", "Waits for", "Rejected in the end as"), rows))
        self._heading("Dead letters: no events at all")
        rows = [[letter["topic"], letter["code"], letter["message"]] for letter in found.dead_letters]
        self._console.print(_table(("Topic", "Code", "Message"), rows[::-1]))

    def _verify(self) -> None:
        checks = self._found.checks
        self._heading("ledgerstream verify --deep")
        failed = [check for check in checks if not check["ok"]]
        if failed:
            rows = [[check["check"], f"{check['rows']:,}", check["detail"]] for check in failed]
            self._console.print(_table(("Check", "Rows", "Detail"), rows, right=("Rows",)))
        self._console.print(f"{len(checks) - len(failed)} of {len(checks)} checks hold.")

    def verdict(self, faults: Sequence[str], seconds: float) -> None:
        """Whether every figure is what it must be, and what to try next."""
        self._heading("And?")
        if faults:
            self._console.print(f"Not what the story says it must be ({len(faults)}):", style="bold red")
            for fault in faults:
                self._console.print(Text(f"  {fault}", style="red"))
        else:
            checked = len(self._story.expected.balances)
            self._console.print(
                f"Every figure is what the story's own arithmetic says: {checked} balances, in the books and in the "
                f"stream, and all counts above. {seconds:.0f} seconds.",
                style="bold green",
            )

    def _heading(self, text: str) -> None:
        self._console.print()
        self._console.print(Rule(Text(text, style="bold"), align="left", style="dim"))


def _worth_showing(lines: Sequence[BalanceLine], marked: Collection[str]) -> list[BalanceLine]:
    """The platform's own accounts, those of a breach, and the busiest customers and merchants."""
    shown = [line for line in lines if line["account"].startswith("platform:") or line["account"] in marked]
    for kind in ("customer_balance:", "merchant_settlement:"):
        others = [line for line in lines if line["account"].startswith(kind) and line not in shown]
        shown += sorted(others, key=lambda line: -(line["version"] or 0))[:BUSIEST]
    return shown


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=column in right, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def _id(record: ConsumerRecord) -> str:
    headers = {name: value.decode() for name, value in record.headers if name.startswith("ledger-")}
    return "-".join(headers[f"ledger-{part}"] for part in ("epoch", "shard", "seq"))


def _seq(record: ConsumerRecord) -> int:
    return int(dict(record.headers)["ledger-seq"])


def _told(record: ConsumerRecord) -> str:
    headers = dict(record.headers)
    if "dlq-code" in headers:
        return f"{headers['dlq-code'].decode()}: {headers['dlq-message'].decode()}"
    event = orjson.loads(record.value)
    data: dict[str, Any] = event["data"]
    match event["type"]:
        case "balance.changed.v1":
            available = in_major_units(natural(data["type"], data["posted"]), data["currency"])
            return f"{data['account']} has {available}, version {data['version']}"
        case "entry.recorded.v1":
            return f"{data['kind']} of {_legs(data['postings'])}"
        case "event.rejected.v1":
            differs = f", another {', '.join(data['differs'])}" if "differs" in data else ""
            return f"{data['event']['type']} {data['event']['id']} rejected: {data['code']}{differs}"
        case "authorization.decided.v1":
            return f"{data['external_id']} of {data['provider']} {data['decision']}"
        case "authorization.changed.v1":
            return f"{data['external_id']} of {data['provider']} is {data['status']} now"
        case "event.parked.v1":
            return f"{data['event']['type']} {data['event']['id']} waits for {data['waits_for']}"
    return f"{data['event']['type']} {data['event']['id']} applied"


def _legs(postings: Iterable[Any]) -> str:
    return ", ".join(
        f"{posting['account']} {in_major_units(posting['amount'], posting['currency'])}" for posting in postings
    )
