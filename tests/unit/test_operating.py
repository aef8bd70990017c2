"""docs/operating.md names every setting there is, with its default."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from infra.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(LEDGER_\w+)` \| (.*?) \|", PAGE, re.MULTILINE))


def test_every_setting_is_in_the_table_and_no_other() -> None:
    assert set(ROWS) == {f"LEDGER_{field.name.upper()}" for field in fields(Settings)}


def test_the_defaults_in_the_table_are_those_of_the_program() -> None:
    told = {name: default.strip("`") for name, default in ROWS.items() if default.startswith("`")}
    settings = Settings()
    defaults = {f"LEDGER_{field.name.upper()}": getattr(settings, field.name) for field in fields(Settings)}
    meant = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in defaults.items()}
    # The directory is the user's own, and found when it is asked for.
    assert {name: default for name, default in told.items() if name != "LEDGER_DATA" and meant[name] != default} == {}


def test_every_link_within_the_page_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\(#([\w-]+)\)", PAGE)) <= anchors
