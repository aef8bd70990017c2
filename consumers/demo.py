"""`ledgerstream demo`: a fresh stack, a week of small marketplaces and a day of cards, each figure of it checked."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from consumers.demo_figures import differences
from consumers.demo_ledger import LedgerEndedError, LedgerProcess, running_ledger
from consumers.demo_publishing import publish_story
from consumers.demo_reading import find
from consumers.demo_scribe import Stage, Story
from consumers.demo_story import HARBOUR, POP_UP, TENANTS, last_monday, write_story
from consumers.demo_tables import Show
from infra.devstack import RunningStack, StackError, down, env_lines, up
from infra.drained import NotDrainedError, Rest, until_drained
from infra.settings import Settings, SettingsError, read_settings

DRAIN_SECONDS_MAX = 60.0


def main(data: Path | None = None, *, keep: bool = False) -> int:
    """Run the demo and give back the exit code: 0 if each figure is what it must be, else 1.

    The stack is stopped and removed at the end, however it ends, unless `keep`. Raises: StackError.
    """
    began = time.monotonic()
    settings = read_settings({name: value for name, value in os.environ.items() if name == "LEDGER_STACK"})
    console, told = Console(width=_width()), Console(stderr=True, highlight=False)
    today = datetime.now(UTC).date()
    story = write_story(last_monday(today), today - timedelta(days=1))
    if "LEDGER_DATABASE_URL" in os.environ or "LEDGER_KAFKA_BOOTSTRAP" in os.environ:
        told.print("The servers that LEDGER_… names are left alone: the demo has its own.", style="dim")
    try:
        with _stack_of_our_own(data, settings, keep=keep, told=told) as stack:
            settings = replace(settings, database_url=stack.database_url, kafka_bootstrap=stack.kafka_bootstrap)
            code = asyncio.run(_demo(settings, story, console, told, began))
            _tell_what_to_try(stack if keep else None, console)
            return code
    except (LedgerEndedError, NotDrainedError, SettingsError) as error:
        told.print(f"The demo can't go on: {error}", style="bold red", soft_wrap=True, markup=False)
        return 1
    except KeyboardInterrupt:
        told.print("Ended early; nothing is left behind.")
        return 130


async def _demo(settings: Settings, story: Story, console: Console, told: Console, began: float) -> int:
    _say(told, began, "starting the ledger: worker, relay and clock")
    async with running_ledger(settings) as ledger:
        published = await tell(settings, story, lambda line: _say(told, began, line), ledger)
        _say(told, began, "reading the books and the streams")
        return await conclude(settings, story, published, console, seconds=lambda: time.monotonic() - began)


async def tell(settings: Settings, story: Story, say: Callable[[str], None], ledger: LedgerProcess) -> Counter[str]:
    """Publish the story stage by stage, each after all that came of the one before; what was acknowledged, by label."""

    async def begin(stage: Stage) -> None:
        if await ledger.run_with(stage.resolver):
            say(f"the ledger was started anew; its categories come from {stage.resolver or 'their rules'}")

    async def drained() -> Rest:
        return await until_drained(settings, seconds_max=DRAIN_SECONDS_MAX, while_true=ledger.check)

    return await publish_story(settings, story, begin=begin, drained=drained, say=say)


async def conclude(
    settings: Settings,
    story: Story,
    published: Counter[str],
    console: Console,
    *,
    seconds: Callable[[], float],
) -> int:
    """Show what came of the story; 0 if each figure is what the story says that it must be, else 1."""
    rest = await until_drained(settings, seconds_max=DRAIN_SECONDS_MAX)
    found = await find(settings, TENANTS, published, rest)
    faults = differences(expected=story.expected, found=found.figures)
    show = Show(console, story, found)
    show.everything()
    show.verdict(faults, seconds())
    return 1 if faults else 0


def _say(told: Console, began: float, line: str) -> None:
    told.print(f"{time.monotonic() - began:5.1f} s  {line}", style="dim", markup=False, soft_wrap=True)


def _width() -> int:
    return max(80, min(shutil.get_terminal_size((96, 24)).columns, 100))


@contextmanager
def _stack_of_our_own(data: Path | None, settings: Settings, *, keep: bool, told: Console) -> Iterator[RunningStack]:
    """A fresh stack in a directory of its own, gone afterwards unless it is kept."""
    if data is not None and data.exists() and any(data.iterdir()):
        raise StackError(f"{data} is not empty, and the demo needs a fresh stack; name another directory")
    directory = Path(tempfile.mkdtemp(prefix="ledgerstream-demo-")) if data is None else data
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield up(directory, kind=settings.stack, progress=lambda line: _say(told, began, line))
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            _remove(directory, settings, told, began)


def _remove(directory: Path, settings: Settings, told: Console, began: float) -> None:
    # A second Ctrl-C must not leave servers behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        _say(told, began, "stopping and removing the stack")
        down(directory, kind=settings.stack, wipe=True)
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _tell_what_to_try(kept: RunningStack | None, console: Console) -> None:
    """Three commands to go on with, as they are: what is to be copied must not break at the terminal's width."""
    program = _program()
    if kept is None:
        print("\nThe stack of the demo is gone. Three commands to try next:")
        _suggest("the same, and keep its servers and books to look around in", f"{program} demo --keep")
        _suggest('a ledger of your own (README, "Five minutes")', f"{program} stack up && {program} run")
        _suggest("the types of event that you can send it", f"{program} schemas")
        return
    print("\nThe servers stay up, the books with them. For this shell:\n")
    print("\n".join(env_lines(kept)))
    print("\nThree commands to try next:")
    _suggest("the stall that was paid out too much", f"{program} statement --tenant {HARBOUR} --account {POP_UP}")
    _suggest("a dispute, from its opening to its end", f"{program} entries --tenant {HARBOUR} --dispute-id dis-ada")
    _suggest("when you have seen enough", f"{program} stack down --wipe --data {kept.data}")


def _suggest(what: str, command: str) -> None:
    print(f"\n  # {what}\n  {command}")


def _program() -> str:
    """What to type for `ledgerstream` here."""
    if shutil.which("ledgerstream"):
        return "ledgerstream"
    beside = Path(sys.executable).parent / "ledgerstream"
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return str(beside)
