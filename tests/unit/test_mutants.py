"""The mutator: what it changes, and that a trial which goes wrong by itself is never taken for a mutant killed."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.mutation import trial
from tests.mutation.mutants import mutants, mutated
from tests.mutation.trial import Verdict, function_changed, verdict_of

SOURCE = '''
LIMIT = 3

class Box:
    size: int = 2

    def fits(self, amount: int) -> bool:
        """Text for people."""
        return amount < LIMIT and not self.closed
'''


def test_each_mutant_changes_one_thing_and_knows_what_must_be_done_anew() -> None:
    found = {mutant.name: mutant for mutant in mutants(SOURCE)}
    assert set(found) == {
        "module | LIMIT = 3 | one more | 1",
        "Box | size: int = 2 | one more | 1",
        "Box.fits | return amount < LIMIT and not self.closed | and to or | 1",
        "Box.fits | return amount < LIMIT and not self.closed | Lt to LtE | 1",
        "Box.fits | return amount < LIMIT and not self.closed | without its sign | 1",
    }
    for name, mutant in found.items():
        changed = function_changed(SOURCE, mutant)
        assert (None if changed is None else changed[0]) == ("Box.fits" if name.startswith("Box.fits") else None)
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
