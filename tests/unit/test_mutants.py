"""The mutator: what it changes, and that a trial which goes wrong by itself is never taken for a mutant killed."""

from __future__ import annotations

import ast
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.mutation import trial
from tests.mutation.__main__ import Chosen, Found, left_open
from tests.mutation.mutants import mutants, mutated
from tests.mutation.trial import Verdict, function_changed, verdict_of

SOURCE = '''
LIMIT = 3

class Box:
    size: int = 2

    def fits(self, amount: int) -> bool:
        """Text for people."""
        return amount < LIMIT and not self.closed

    def grow(self, opened: bool) -> None:
        if opened:
            self.size += LIMIT

    def copies(self, boxes: list[Box]) -> list[Box]:
        return [Box(each.size, lid=0) for each in boxes if max(each.size, self.size)]
'''
COPIES = "Box.copies | return [Box(each.size, lid=0) for each in boxes if max(each.size, self.size)]"


def test_each_mutant_changes_one_thing_and_knows_what_must_be_done_anew() -> None:
    found = {mutant.name: mutant for mutant in mutants(SOURCE)}
    assert set(found) == {
        "module | LIMIT = 3 | one more | 1",
        "module | LIMIT = 3 | one less | 1",
        "Box | size: int = 2 | one more | 1",
        "Box | size: int = 2 | one less | 1",
        "Box.fits | return amount < LIMIT and not self.closed | returns nothing | 1",
        "Box.fits | return amount < LIMIT and not self.closed | and to or | 1",
        "Box.fits | return amount < LIMIT and not self.closed | without part 1 | 1",
        "Box.fits | return amount < LIMIT and not self.closed | without part 2 | 1",
        "Box.fits | return amount < LIMIT and not self.closed | Lt to LtE | 1",
        "Box.fits | return amount < LIMIT and not self.closed | without its sign | 1",
        "Box.grow | if opened: | the other way | 1",
        "Box.grow | if opened: | always | 1",
        "Box.grow | if opened: | never | 1",
        "Box.grow | self.size += LIMIT | Add to the opposite | 1",
        "Box.grow | self.size += LIMIT | not done | 1",
        f"{COPIES} | returns nothing | 1",
        f"{COPIES} | one less | 1",
        f"{COPIES} | argument 1 left out | 1",
        f"{COPIES} | lid left out | 1",
        f"{COPIES} | one more | 1",
        f"{COPIES} | without its condition | 1",
        f"{COPIES} | max to min | 1",
    }
    for name, mutant in found.items():
        changed = function_changed(SOURCE, mutant)
        where = name.split(" | ")[0]
        assert (None if changed is None else changed[0]) == (where if "." in where else None)
    for name, left in (
        ("Box.fits | return amount < LIMIT and not self.closed | without part 1 | 1", "return not self.closed"),
        ("Box.fits | return amount < LIMIT and not self.closed | without part 2 | 1", "return amount < LIMIT"),
        ("Box.grow | if opened: | always | 1", "if True:"),
        ("Box.grow | if opened: | never | 1", "if False:"),
        (f"{COPIES} | returns nothing | 1", "return None"),
        (f"{COPIES} | argument 1 left out | 1", "[Box(None, lid=0) for each in boxes if max("),
        (f"{COPIES} | lid left out | 1", "[Box(each.size) for each in boxes if max("),
        (f"{COPIES} | without its condition | 1", "[Box(each.size, lid=0) for each in boxes]"),
        (f"{COPIES} | max to min | 1", "if min(each.size, self.size)]"),
    ):
        assert left in ast.unparse(mutated(SOURCE, found[name]))
    made: dict[str, Any] = {}
    exec(compile(mutated(SOURCE, found["module | LIMIT = 3 | one more | 1"]), "toy", "exec"), made)
    assert made["LIMIT"] == 4


def _circles() -> Verdict:
    while True:
        pass


def _breaks() -> Verdict:
    raise ImportError("the tool's own")


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (lambda: Verdict("killed", "test_a", "AssertionError"), "killed"),
        (lambda: Verdict("survived"), "survived"),
        (_circles, "circled"),
        (_breaks, "failed"),
        (lambda: os._exit(3), "failed"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "failed"),
    ],
)
def test_how_a_trial_ended_is_told_apart(monkeypatch: pytest.MonkeyPatch, work: Any, kind: str) -> None:
    monkeypatch.setattr(trial, "CPU_SECONDS_MAX", 1)
    assert verdict_of(work).kind == kind


@pytest.mark.parametrize("fault", [OSError("too many files"), MemoryError(), AssertionError("no"), KeyError("x")])
def test_a_machine_that_has_no_more_of_something_kills_no_mutant(fault: Exception) -> None:
    assert trial.says_something(repr(fault)) == isinstance(fault, AssertionError | KeyError)


def test_what_no_test_calls_survives() -> None:
    assert trial.run_until_noticed([]) == Verdict("survived", "", "no test calls it")


ONE, TWO = (Chosen("toy", mutant) for mutant in list(mutants(SOURCE))[:2])


@pytest.mark.parametrize(
    ("verdicts", "explained", "said"),
    [
        ({ONE: Verdict("killed", "test"), TWO: Verdict("circled")}, [], []),
        ({ONE: Verdict("killed", "test"), TWO: Verdict("survived")}, [TWO.name], []),
        ({ONE: Verdict("killed", "test"), TWO: Verdict("survived")}, [], ["not explained"]),
        ({ONE: Verdict("killed", "test"), TWO: Verdict("failed")}, [], ["failed: 1"]),
        ({ONE: Verdict("killed", "test")}, [], ["not tried: 1"]),
        ({ONE: Verdict("killed", "test"), TWO: Verdict("survived")}, [ONE.name, TWO.name], ["and killed"]),
        ({ONE: Verdict("killed", "test"), TWO: Verdict("circled")}, ["toy | gone"], ["no mutant any more"]),
    ],
)
def test_a_run_is_good_if_all_were_tried_and_only_what_is_explained_survived(
    tmp_path: Path, verdicts: dict[Chosen, Verdict], explained: list[str], said: list[str]
) -> None:
    found = Found(tmp_path / "state.jsonl")
    for chosen, verdict in verdicts.items():
        found.add(chosen, verdict)
    told = list(left_open([ONE, TWO], found, dict.fromkeys(explained, "why"), {ONE.name, TWO.name}))
    assert len(told) == len(said) and all(part in line for part, line in zip(said, told, strict=True))
