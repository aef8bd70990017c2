"""Every command that the documentation names is one, with the options that it is shown with."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from consumers.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"(?:^|`|\")ledgerstream ((?:[\w-]+ ?)[^`\"\n#|&]*)", re.MULTILINE)


def _shown(page: Path) -> list[str]:
    return [found.strip() for found in NAMED.findall(page.read_text(encoding="utf-8"))]


def _faults(shown: str) -> list[str]:
    """What is not known of a command line as it is shown."""
    first, *rest = shown.split()
    names = first.split("|")
    if unknown := [name for name in names if name not in COMMANDS]:
        return unknown
    command = cli.get_command(click.Context(cli), names[0])
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        parts, rest = rest[0].split("|"), rest[1:]
        if unknown := [part for part in parts if part not in command.commands]:
            return unknown
        command = command.commands[parts[0]]
    assert command is not None
    known = {"--help", *(option for parameter in command.params for option in parameter.opts)}
    return [word for word in re.findall(r"--[\w-]+", " ".join(rest)) if word not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_is_there_with_its_options(page: Path) -> None:
    assert {shown: faults for shown in _shown(page) if (faults := _faults(shown))} == {}


def test_what_is_not_a_command_or_an_option_is_found() -> None:
    assert _faults("balances --tenant acme") == ["balances"]
    assert _faults("balance --tenants acme") == ["--tenants"]
    assert _faults("parked lists") == ["lists"]
    assert _faults("parked list --code x") == []
    assert len(_shown(ROOT / "README.md")) > 15
