"""`make mutants`: change `domain/` in one place after the other; a test without a database must notice each.

The tests: the unit tests of the domain, and histories that were drawn once and go through the domain in memory and
through the model of the contract. A mutant is killed if a test fails; one that goes in circles is counted so, too, and
told apart. A trial that fails by itself (an error of the tool, a machine without memory) counts as neither.

Ends with 0 only if all were tried, none failed, and `survivors.json` says of each that survived, and of no other, why
nothing can notice it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mutation import trial
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.trial import ROOT, Verdict

SURVIVORS = Path(__file__).parent / "survivors.json"
CONTROL_EVERY = 200
"""After so many trials the domain is tried unchanged, in the same way: it must survive."""
STATE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ledgerstream" / "mutants.jsonl"

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
_HISTORIES = 15


class Chosen(NamedTuple):
    """A mutant of a module."""

    module: str
    mutant: Mutant

    @property
    def name(self) -> str:
        return f"{self.module} | {self.mutant.name}"


class Found:
    """The verdicts so far, kept in a file, so that a run that was cut off goes on.

    A mutant stays killed as long as the domain, the model and the test that killed it are what they were; one that
    survived is tried again whenever any test has changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.verdicts: dict[str, Verdict] = {}
        self.killers: dict[str, str] = {}
        """By whom a mutant was killed when the code or the tests were others: who is tried first."""
        self.last: dict[str, str] = {}
        """How each ended when it was last tried."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text().splitlines() if path.exists() else ():
            digest, name, *told = json.loads(line)
            verdict = Verdict(*told)
            self.killers[name], self.last[name] = verdict.by, verdict.kind
            if digest == _digest(verdict):
                self.verdicts[name] = verdict

    def add(self, chosen: Chosen, verdict: Verdict) -> None:
        self.verdicts[chosen.name] = verdict
        self.killers[chosen.name], self.last[chosen.name] = verdict.by, verdict.kind
        with self.path.open("a") as file:
            file.write(json.dumps([_digest(verdict), chosen.name, *verdict]) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", help="of domain/, without .py; by default all")
    parser.add_argument("--sample", type=int, metavar="N", help="only N mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long; the next run goes on")
    parser.add_argument("--state", type=Path, default=STATE, help=f"where verdicts are kept (default {STATE})")
    parser.add_argument("--survivors", action="store_true", help="only those that survived when last tried")
    parser.add_argument("--fresh", action="store_true", help="forget the verdicts that are kept")
    asked = parser.parse_args()
    modules = sorted(file.stem for file in (ROOT / "domain").glob("*.py") if file.stem != "__init__")
    if unknown := set(asked.modules) - set(modules):
        parser.error(f"domain/ has no {', '.join(sorted(unknown))}; it has {', '.join(modules)}")
    every = [Chosen(name, mutant) for name in modules for mutant in mutants(trial.source_of(name))]
    chosen = [each for each in every if not asked.modules or each.module in asked.modules]
    if asked.sample is not None:
        random.Random(asked.seed).shuffle(chosen)
        del chosen[asked.sample :]
    if asked.fresh:
        asked.state.unlink(missing_ok=True)
    found = Found(asked.state)
    if asked.survivors:
        chosen = [each for each in chosen if found.last.get(each.name) == "survived"]
    Campaign(chosen, found, time.monotonic() + asked.seconds).run()
    print_table(chosen, found)
    explained: dict[str, str] = json.loads(SURVIVORS.read_text())
    open_points = list(left_open(chosen, found, explained, {each.name for each in every}))
    print("\n".join(open_points) or f"each that survived is explained in {SURVIVORS.name}")
    return 1 if open_points else 0


def _digest(verdict: Verdict) -> str:
    """Changes with whatever may change a verdict."""
    killer = ROOT / verdict.by.partition("::")[0] if verdict.kind == "killed" else None
    return _digest_with(killer if killer in trial.TESTS else None)


@cache
def _digest_with(killer: Path | None) -> str:
    helpers = ("tests/model.py", "tests/model_cards.py", "tests/fixtures/desk.py", "tests/fixtures/cards.py")
    files = [*(ROOT / "domain").glob("*.py"), *(trial.TESTS if killer is None else [killer])]
    if killer is None or killer.name == "histories.py":
        files += (ROOT / "tests" / "property").glob("test_*.py")
    files += [ROOT / name for name in (*helpers, "tests/unit/wire_samples.py", "consumers/translate.py")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


class Campaign:
    """Tries all that has no verdict yet, in an order of chance: however far it comes, it has tried a fair sample."""

    def __init__(self, chosen: Sequence[Chosen], found: Found, until: float) -> None:
        self.found, self.until, self.tried = found, until, 0
        self.left = [each for each in chosen if found.verdicts.get(each.name, Verdict("failed")).kind == "failed"]
        random.Random(1).shuffle(self.left)
        self.left.sort(key=lambda each: each.name in found.killers)
        self.seconds: dict[str, float] = {}
        self.kills: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def run(self) -> None:
        if not self.left:
            return
        histories = self.found.path.with_suffix(".histories")
        subprocess.run([sys.executable, "-c", _DRAW, str(histories), str(_HISTORIES)], check=True, cwd=ROOT)
        os.environ[trial.HISTORIES_VARIABLE] = str(histories)
        trial.import_what_is_not_ours()
        code, errors = trial.collect_and(self._try_all)
        if errors or code:
            raise SystemExit(f"the run broke off ({code}): {'; '.join(errors)}")

    def _try_all(self, items: Sequence[pytest.Item]) -> None:
        session, early = trial.calls_of(items), trial.called_while_collected()
        self.seconds = session.seconds
        by_name = {item.nodeid: item for item in items}
        trial.freeze()
        self._control(trial.try_anew, "", None)
        for each in self.left:
            if time.monotonic() > self.until:
                return
            changed = trial.function_changed(trial.source_of(each.module), each.mutant)
            if changed is None or (each.module, changed[0]) in early:
                work = partial(trial.try_anew, *each, self._ordered(self.seconds, each))
            else:
                calling = [name for name, calls in session.calls.items() if (each.module, changed[0]) in calls]
                ordered = [by_name[name] for name in self._ordered(calling, each)]
                work = partial(trial.try_in_place, each.module, *changed, ordered)
            self._note(each, trial.verdict_of(work))
            if self.tried % CONTROL_EVERY == 0:
                self._control(trial.run_until_noticed, items)

    def _ordered(self, names: Iterable[str], each: Chosen) -> list[str]:
        """Tests by name: who killed this mutant before, who killed others of its module, then the quick ones."""
        first, kills = self.found.killers.get(each.name), self.kills[each.module]
        return sorted(names, key=lambda name: (name != first, -kills[name], self.seconds[name]))

    def _note(self, each: Chosen, verdict: Verdict) -> None:
        self.found.add(each, verdict)
        self.kills[each.module][verdict.by] += 1
        self.tried += 1
        if verdict.kind in ("survived", "failed"):
            print(f"{verdict.kind}: domain/{each.module}.py:{each.mutant.line} {each.name} {verdict.why}", flush=True)
        if self.tried % 100 == 0:
            print(f"{self.tried:,} of {len(self.left):,} tried", flush=True)

    def _control(self, work: Callable[..., Verdict], *arguments: object) -> None:
        verdict = trial.verdict_of(partial(work, *arguments))
        if verdict.kind != "survived":
            raise SystemExit(f"the tests fail without a mutant: {verdict.by} {verdict.why}")


def print_table(chosen: Sequence[Chosen], found: Found) -> None:
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in chosen:
        verdict = found.verdicts.get(each.name)
        for module in (each.module, "all"):
            kinds[module]["mutants"] += 1
            kinds[module][verdict.kind if verdict else "not tried"] += 1
    print(
        f"{'module':24}{'mutants':>8}{'killed':>8}{'circled':>8}{'survived':>9}{'failed':>7}{'untried':>8}{'score':>7}"
    )
    for module, count in kinds.items():
        if module != "all":
            print(_row(module, count))
    print(_row("all", kinds["all"]))


def left_open(
    chosen: Sequence[Chosen], found: Found, explained: Mapping[str, str], every: Collection[str]
) -> Iterator[str]:
    """What keeps a run from being a good one, a sentence each; `every` is the name of each mutant that there is."""
    ends = Counter(verdict.kind if (verdict := found.verdicts.get(each.name)) else "not tried" for each in chosen)
    for kind in ("failed", "not tried"):
        if ends[kind]:
            yield f"{kind}: {ends[kind]:,}; run it again, it goes on from here"
    for name in (each.name for each in chosen):
        kind = verdict.kind if (verdict := found.verdicts.get(name)) else ""
        if kind == "survived" and name not in explained:
            yield f"not explained in {SURVIVORS.name}: {name}"
        if kind in ("killed", "circled") and name in explained:
            yield f"explained in {SURVIVORS.name} and {kind}: {name}"
    for name in explained.keys() - set(every):
        yield f"explained in {SURVIVORS.name}, and no mutant any more: {name}"


def _score(count: Counter[str]) -> float:
    killed = count["killed"] + count["circled"]
    return killed / max(1, killed + count["survived"])


def _row(module: str, count: Counter[str]) -> str:
    numbers = [count[kind] for kind in ("mutants", "killed", "circled", "survived", "failed", "not tried")]
    widths = (8, 8, 8, 9, 7, 8)
    return f"{module:24}" + "".join(f"{n:>{w}}" for n, w in zip(numbers, widths, strict=True)) + f"{_score(count):7.1%}"


if __name__ == "__main__":
    sys.exit(main())
