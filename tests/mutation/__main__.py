"""`make mutants`: change `domain/` in one place after the other; a test without a database must notice each.

A child process per mutant: everything that isn't ours is imported once, before. First the domain runs against the
model of the contract on histories that were drawn once, then the unit tests. What is known to survive, and why, stands
in `survivors.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from tests.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).parent / "survivors.json"
KILLED_MIN = 0.9
CPU_SECONDS_MAX = 60
"""A mutant that goes in circles; of CPU time, so that a busy machine kills none."""
HISTORIES = 15
OURS = ("consumers", "domain", "infra", "tests")
UNIT_TESTS = (
    "test_refusals_in_order.py", "test_keys_ids_and_money.py", "test_outputs_are_as_published.py", "test_holds.py",
    "test_authorizations.py", "test_authorization_states.py", "test_domain_corners.py",
)  # fmt: skip
# What only the loaders look at: it says what is fetched, and the tests on Postgres fail without it.
NOT_DECIDING = (".needs |", ".needs.")

_DRAW = """
import pickle, sys
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.property.test_ledger_against_model import histories
drawn = []
@settings(max_examples=int(sys.argv[2]), deadline=None, derandomize=True, database=None,
          phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(history=histories, seed=st.integers(0, 2**32))
def draw(history, seed):
    drawn.append((history, seed))
draw()
pickle.dump(drawn, open(sys.argv[1], "wb"))
"""


class _Mutated(MetaPathFinder, Loader):
    """Gives out one module changed."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name, self._code = name, code

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return spec_from_loader(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", help="of domain/, without .py; by default all")
    parser.add_argument("--sample", type=int, metavar="N", help="only N mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="stop after so long")
    asked = parser.parse_args()
    names = asked.modules or sorted(each.stem for each in (ROOT / "domain").glob("*.py") if each.stem != "__init__")
    chosen = [
        (name, mutant)
        for name in names
        for mutant in mutants((ROOT / "domain" / f"{name}.py").read_text())
        if not any(part in mutant.name for part in NOT_DECIDING)
    ]
    random.Random(asked.seed).shuffle(chosen)
    return _run(chosen[: asked.sample], asked.seconds or float("inf"))


def _run(chosen: list[tuple[str, Mutant]], seconds: float) -> int:
    explained: dict[str, str] = json.loads(SURVIVORS.read_text())
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "histories"
        subprocess.run([sys.executable, "-c", _DRAW, str(drawn), str(HISTORIES)], check=True, cwd=ROOT)
        histories = pickle.loads(drawn.read_bytes())
    _import_what_is_not_ours()
    assert _killed(None, None, histories) is False, "the tests fail without a mutant"
    begun, tried, survived = time.monotonic(), 0, []
    for name, mutant in chosen:
        if time.monotonic() - begun > seconds:
            break
        tried += 1
        if tried % 25 == 0:
            print(f"{tried:,} of {len(chosen):,} tried, {len(survived)} survived", flush=True)
        if not _killed(name, mutant, histories):
            survived.append(f"{name} | {mutant.name}")
            note = "" if survived[-1] in explained else "  <- not explained"
            print(f"survived: domain/{name}.py:{mutant.line} {mutant.name}{note}", flush=True)
    killed = tried - len(survived)
    print(f"{killed:,} of {tried:,} mutants killed ({killed / max(tried, 1):.1%}), of {len(chosen):,} chosen")
    print(
        f"{len([each for each in survived if each not in explained])} survivors are not explained in {SURVIVORS.name}"
    )
    return 0 if killed >= KILLED_MIN * tried else 1


def _import_what_is_not_ours() -> None:
    """Import all that the tests need, then forget what is ours: each child imports that anew, changed."""
    import pytest  # noqa: F401

    import tests.property.test_domain_against_model  # noqa: F401

    for name in [
        each for each in sys.modules if each.partition(".")[0] in OURS and not each.startswith("tests.mutation")
    ]:
        if name != "tests":
            del sys.modules[name]


def _killed(name: str | None, mutant: Mutant | None, histories: list[Any]) -> bool:
    child = os.fork()
    if child == 0:
        _try(name, mutant, histories)
    _, status = os.waitpid(child, 0)
    return status != 0


def _try(name: str | None, mutant: Mutant | None, histories: list[Any]) -> None:
    """In the child: 0 if no test notices."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    code = 1
    try:
        if mutant is not None:
            sys.meta_path.insert(0, _Mutated(f"domain.{name}", compile(mutant.tree, f"domain/{name}.py", "exec")))
        from tests.property.test_domain_against_model import agree

        for history, seed in histories:
            agree(history, seed)
        import pytest

        files = [str(file) for each in UNIT_TESTS if (file := ROOT / "tests" / "unit" / each).exists()]
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", *files]))
    except BaseException:
        code = 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
