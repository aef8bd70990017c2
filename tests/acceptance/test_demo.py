"""The demo: that it passes and leaves nothing behind, and that it would not pass if any figure were another."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from consumers.demo import conclude, tell
from consumers.demo_figures import Figures, differences
from consumers.demo_ledger import running_ledger
from consumers.demo_reading import find
from consumers.demo_scribe import Story
from consumers.demo_story import TENANTS, last_monday, write_story
from domain.deciding import REASONS
from infra.drained import Rest
from infra.settings import Settings

pytestmark = pytest.mark.timeout(240)

MONDAY, CARDS_ON = date(2026, 3, 2), date(2026, 3, 9)


def test_the_demo_passes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    stack = tmp_path / "stack"
    rest = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    done = subprocess.run(
        [sys.executable, "-m", "consumers.cli", "demo", "--data", str(stack)],
        env=rest | {"COLUMNS": "80", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every figure is what the story's own arithmetic says" in done.stdout
    assert "checks hold" in done.stdout
    assert max(len(line) for line in done.stdout.partition("Three commands")[0].splitlines()) <= 80
    assert not stack.exists()
    assert _processes_of(str(stack)) == []


def _processes_of(text: str) -> list[list[str]]:
    return [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(text in word for word in process.info["cmdline"] or ())
    ]


async def test_the_demo_fails_if_any_one_figure_is_not_what_the_story_says(settings: Settings) -> None:
    today = datetime.now(UTC).date()
    story = write_story(last_monday(today), today - timedelta(days=1))
    async with running_ledger(settings) as ledger:
        published = await tell(settings, story, lambda line: None, ledger)
        await assert_each_figure_counts(settings, story, published)


async def assert_each_figure_counts(settings: Settings, story: Story, published: Counter[str]) -> None:

    async def told(expected: Figures) -> tuple[int, str]:
        shown = io.StringIO()
        another = Story(story.stages, expected, story.titles)
        code = await conclude(settings, another, published, Console(file=shown, width=100), seconds=lambda: 0.0)
        return code, shown.getvalue()

    code, text = await told(story.expected)
    assert code == 0, text
    code, text = await told(_wrong_by_one(story.expected, "balances"))
    assert code == 1
    assert "Not what the story says it must be (1):" in text, text

    found = await find(settings, TENANTS, published, Rest(0, 0))
    for each in fields(Figures):
        wrong = differences(expected=_wrong_by_one(story.expected, each.name), found=found.figures)
        assert len(wrong) == 1, f"{each.name}: {wrong}"


def _wrong_by_one(figures: Figures, name: str) -> Figures:
    """The same figures but for one, which is wrong by one in its last place."""
    broken = copy.deepcopy(figures)
    figure = getattr(broken, name)
    if isinstance(figure, int):
        setattr(broken, name, figure + 1)
    else:
        figure[list(figure)[-1]] += 1
    return broken


def test_the_same_week_is_written_the_same_twice() -> None:
    assert write_story(MONDAY, CARDS_ON) == write_story(MONDAY, CARDS_ON)
    assert write_story(MONDAY, CARDS_ON) != write_story(MONDAY, CARDS_ON, seed=1)


def test_the_demo_wants_a_directory_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("something else")
    done = subprocess.run(
        [sys.executable, "-m", "consumers.cli", "demo", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert (tmp_path / "mine").exists()


def test_the_day_of_cards_has_each_answer_that_a_processor_can_get() -> None:
    told = set(write_story(MONDAY, CARDS_ON).expected.decisions)
    alone = ("expired_before_decision", "resolver_failed")
    approved = {"approved", "approved in part", "approved by stand_in"}
    assert told == approved | {f"declined, {reason}" for reason in (*REASONS, *alone)}
