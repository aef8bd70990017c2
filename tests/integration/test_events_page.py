"""What docs/events.md says that holds and card payments publish is what they publish."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from domain.rejections import RejectionCode
from infra import outbox
from schemas.examples import TENANT, example
from schemas.registry import EVENT_TYPES, OUTPUT_TYPES
from tests.fixtures.desk import NOON, Desk, envelope, post
from tests.integration.test_cards import asked, events_of, later, story

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8").split("<!-- From here on")[0]
SECTION = PAGE.split("## Holds and card payments")[1].split("\n## ")[0]
ROW = re.compile(r"^\| `([\w.]+)` \|([^|]*)\|([^|]*)\|([^|]*)\|$", re.MULTILINE)
EXPIRY = "hold.expired.v1"
Rows = dict[str, set[str]]


def _codes(text: str) -> set[str]:
    return set(re.findall(r"`([\w.]+)`", text))


def _published() -> Rows:
    """By type: what its rows say that it publishes; a command only says that it was applied."""
    told: defaultdict[str, set[str]] = defaultdict(set)
    for event_type, _, publishes, _ in ROW.findall(SECTION):
        told[event_type] |= {name for name in _codes(publishes) if name in OUTPUT_TYPES} or {"command.applied.v1"}
    return dict(told)


def test_every_type_of_holds_and_cards_has_its_row() -> None:
    families = ("hold", "authorization", "expense_category", "line_of_credit", "card")
    types = {name for name in EVENT_TYPES if name.partition(".")[0] in families}
    assert set(_published()) == types | {EXPIRY}


def test_what_the_rows_name_are_rejection_codes() -> None:
    known = {str(code) for code in RejectionCode} | {"force_post"}
    named = {code for *_, ends in ROW.findall(SECTION) for code in _codes(ends)}
    assert named <= known
    assert len(named) > 10


async def test_what_each_type_publishes_is_what_its_row_says(lone_desk: Desk) -> None:
    documents = [
        *story(),
        asked("early", 5, account="wallet", advice=True),
        asked("early", 5, account="wallet"),
        later("adjusted", "early", amount=9),
        later("released", "early", reason="cancelled"),
        asked("left", 5, account="wallet"),
        asked("left", 5, account="wallet", advice=True),
        asked("hotel", 200, account="wallet", advice=True),
        envelope("hold.created.v1", hold_id="left", account="wallet", amount=1, currency="EUR"),
        envelope("line_of_credit.reset.v1", line_of_credit_id="L1", credits_limit=1, expensed_credits=0),
    ]
    await lone_desk.apply_events(events_of(lone_desk, documents))
    lone_desk.now = NOON + timedelta(days=30)
    assert await lone_desk.ledger.expire_holds(await lone_desk.shard()) > 1
    async with lone_desk.pool.acquire() as connection:
        seen = await _seen(connection)
    told = _published()
    assert {name: outputs for name, outputs in seen.items() if name in told} == told


async def _seen(connection: asyncpg.Connection) -> Rows:
    """By type of what was applied: the types of its outputs."""
    kinds: dict[tuple[int, int], str] = {}
    for row in await connection.fetch("SELECT shard, seq_first, body FROM outbox"):
        for seq, output in enumerate(outbox.unpack(row["body"]), row["seq_first"]):
            kinds[row["shard"], seq] = outbox.TYPES[output.type]
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for row in await connection.fetch("SELECT shard, seq, outputs, type FROM events WHERE outcome = 'applied'"):
        seen[row["type"]] |= {kinds[row["shard"], row["seq"] + more] for more in range(row["outputs"])}
    return dict(seen)


# --- the payment that is told ---------------------------------------------------------------------------------------


def _lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SECTION.split("```jsonl\n")[1].split("```")[0].splitlines()]


async def test_the_payment_of_the_page_goes_in_and_out_as_it_is_told(lone_desk: Desk) -> None:
    """With the examples of the reference as they stand there."""
    said = _lines()
    sent = [line for line in said if "in" in line]
    examples = [example(line["in"]) for line in sent]
    assert all(line["data"].items() <= each["data"].items() for line, each in zip(sent, examples, strict=True))
    lone_desk.now = datetime.fromisoformat(example("authorization.decided.v1")["data"]["decided_at"])
    await lone_desk.apply(*_before(lone_desk.now))
    before = len(await lone_desk.outputs(TENANT))
    for event in events_of(lone_desk, examples):
        command: Any = event.command
        if hasattr(command, "resolution"):
            command.resolution = type(command.resolution)(frozenset({"meals"}), {"meals": "line-12"})
        await lone_desk.apply_events([event])
    outputs = (await lone_desk.outputs(TENANT))[before:]
    expected = [line for line in said if "out" in line]
    assert [output["type"] for output in outputs] == [line["out"] for line in expected]
    for output, line in zip(outputs, expected, strict=True):
        assert {name: output["data"][name] for name in line["data"]} == line["data"]
    decided, changed = (_without_cause(output) for output in (outputs[1], outputs[6]))
    assert decided == _without_cause(example("authorization.decided.v1"))
    assert changed == _without_cause(example("authorization.changed.v1"))


def _without_cause(output: dict[str, Any]) -> dict[str, Any]:
    """Its data but for the event that caused it: the examples are numbered in the order of the types."""
    return {name: value for name, value in output["data"].items() if name != "cause"}


def _before(now: datetime) -> list[dict[str, Any]]:
    """A line of 500.00 with 45.00 left, and 200.00 on the account."""
    line = example("line_of_credit.create.v1")
    return [
        example("expense_category.create.v1"),
        line | {"data": line["data"] | {"expensed_credits": 455_00}},
        envelope("account.create.v1", name="card:8", type="liability", time=now),
        envelope("account.create.v1", name="bank", type="asset", time=now),
        post(("bank", 200_00), ("card:8", -200_00), time=now),
    ]
