"""docs/guarantees.md: what it names as shown is shown somewhere."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_a_guarantee_names_is_there() -> None:
    told = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "guarantees.md").read_text())
    tests = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert told
    assert not sorted(set(told) - tests)


def test_every_promise_names_a_test() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    tables = [part.split("\n\n")[0] for part in text.split("| Promise |")[1:]]
    rows = [row for table in tables for row in table.splitlines()[2:]]
    assert len(rows) > 25
    assert not [row for row in rows if "`test_" not in row]
