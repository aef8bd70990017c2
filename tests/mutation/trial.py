"""One mutant tried in a process of its own: the code changed, the tests run until the first that notices.

What is changed inside a function is changed in place, in a fork of a process that has collected all tests before. What
isn't (a constant, a default, a table), or is in a function that is called while modules are imported, is imported anew
with everything that depends on it.
"""

from __future__ import annotations

import ast
import gc
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Literal, NamedTuple

import hypothesis
import pytest
from _pytest.runner import runtestprotocol

from tests.mutation.mutants import Mutant, mutated

ROOT = Path(__file__).parents[2]
OURS = ("consumers", "domain", "infra", "tests")
_TOOL = ("tests.mutation.trial", "tests.mutation.mutants", "tests.mutation.__main__")
HISTORIES_VARIABLE = "LEDGERSTREAM_MUTATION_HISTORIES"
CPU_SECONDS_MAX = 60
"""A mutant that goes in circles; of CPU time, so that a busy machine kills none."""
BYTES_MAX = 4 << 30
# A machine that has no more of something says nothing about a mutant.
NOT_A_VERDICT = ("OSError", "BlockingIOError", "MemoryError", "KeyboardInterrupt", "DeadlineExceeded", "Flaky")

TESTS = [
    ROOT / "tests" / "mutation" / "histories.py",
    *(
        ROOT / "tests" / "unit" / name
        for name in (
            "test_refusals_in_order.py",
            "test_keys_ids_and_money.py",
            "test_holds.py",
            "test_authorizations.py",
            "test_authorization_states.py",
            "test_domain_corners.py",
            "test_domain_kept.py",
            "test_domain_needs_and_keys.py",
            "test_domain_nothing_left.py",
            "test_domain_postings.py",
            "test_domain_waiting.py",
            "test_card_translations.py",
        )
    ),
]

Place = tuple[str, str]
"""A function: module and qualified name."""


class Verdict(NamedTuple):
    """How a mutant ended. `failed`: nothing can be said, the trial itself went wrong."""

    kind: Literal["killed", "circled", "survived", "failed"]
    by: str = ""
    why: str = ""


class Session(NamedTuple):
    """The collected tests, which functions of the domain each calls, and how long each takes."""

    items: Sequence[pytest.Item]
    calls: dict[str, set[Place]]
    seconds: dict[str, float]


# --- in a fork ------------------------------------------------------------------------------------------------------


@cache
def source_of(module: str) -> str:
    """A module of the domain as it was when the run began, whoever edits it meanwhile."""
    return (ROOT / "domain" / f"{module}.py").read_text()


def in_fork(work: Callable[[], Any]) -> tuple[Any, int]:
    """What the work gives, done in a fork; None where the fork ended before. And how it ended, as `wait` says it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _work_in_child(work, reading, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return (json.loads(told) if told else None), status


def _work_in_child(work: Callable[[], Any], reading: int, writing: int) -> None:
    try:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (BYTES_MAX, BYTES_MAX))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        told = work()
    except BaseException as error:
        told = ["failed", "", f"{type(error).__name__}: {error}"]
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(json.dumps(told).encode())
        pipe.flush()
    os._exit(0)


def verdict_of(work: Callable[[], Any]) -> Verdict:
    """Try in a fork."""
    told, status = in_fork(work)
    if told is not None:
        return Verdict(*told)
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if ended in (signal.SIGXCPU, signal.SIGKILL):
        return Verdict("circled", "", f"more than {CPU_SECONDS_MAX} s of CPU time")
    return Verdict("failed", "", f"the fork ended with status {status}")


def run_until_noticed(items: Sequence[pytest.Item]) -> Verdict:
    """Run tests in order; the first that fails has noticed. What no test calls, none can notice."""
    if not items:
        return Verdict("survived", "", "no test calls it")
    for item, following in zip(items, [*items[1:], None], strict=True):
        for report in runtestprotocol(item, log=False, nextitem=following):
            if report.failed:
                crash = getattr(report.longrepr, "reprcrash", None)
                why = str(getattr(crash, "message", report.longrepr)).splitlines()[0][:200]
                return Verdict("killed" if says_something(why) else "failed", item.nodeid, why)
    return Verdict("survived")


def says_something(why: str) -> bool:
    """Whether this fault of a test says anything about the mutant."""
    return re.split(r"[:(]", why.rpartition("errors.")[2])[0] not in NOT_A_VERDICT


# --- changed in place -----------------------------------------------------------------------------------------------


def function_changed(source: str, mutant: Mutant) -> tuple[str, CodeType] | None:
    """The qualified name and the new code of the one function that a mutant changes; None if it isn't one."""
    before = _compiled(source)
    after = compile(mutated(source, mutant), "domain", "exec")
    found = list(_differing(before, after))
    return None if len(found) != 1 or found[0] is None else (found[0].co_qualname, found[0])


@lru_cache(1)
def _compiled(source: str) -> CodeType:
    return compile(ast.parse(source), "domain", "exec")


def _differing(before: CodeType, after: CodeType) -> Iterator[CodeType | None]:
    """The functions that differ; None for what differs outside of any."""
    if _own(before) != _own(after):
        yield None
        return
    for old, new in zip(before.co_consts, after.co_consts, strict=True):
        if isinstance(old, CodeType) and isinstance(new, CodeType) and old != new:
            if old.co_flags & CO_OPTIMIZED:
                yield new
            else:
                yield from _differing(old, new)


def _own(code: CodeType) -> tuple[Any, ...]:
    constants = [each.co_name if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants


def change_in_place(module: str, name: str, code: CodeType) -> None:
    """Give a function of a loaded module other code, wherever it is used already."""
    found: Any = sys.modules[f"domain.{module}"]
    for part in name.split("."):
        found = found.__dict__[part]
    function = getattr(found, "fget", None) or getattr(found, "__func__", found)
    assert isinstance(function, FunctionType), f"{module}.{name} is no function"
    function.__code__ = code


def try_in_place(module: str, name: str, code: CodeType, items: Sequence[pytest.Item]) -> Verdict:
    """In a fork that has everything loaded: change one function and run tests."""
    change_in_place(module, name, code)
    return run_until_noticed(items)


# --- imported anew --------------------------------------------------------------------------------------------------


class _Ours(MetaPathFinder, Loader):
    """Gives out our modules as they were compiled once, one of them changed."""

    def __init__(self) -> None:
        self.codes: dict[str, tuple[CodeType, str, list[str] | None]] = {}

    def keep(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None and spec.origin is not None and isinstance(spec.loader, InspectLoader):
            code = spec.loader.get_code(spec.name)
            if code is not None:
                self.codes[spec.name] = (code, spec.origin, spec.submodule_search_locations)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname not in self.codes:
            return None
        _, origin, folders = self.codes[fullname]
        spec = ModuleSpec(fullname, self, origin=origin, is_package=folders is not None)
        spec.has_location = True
        spec.submodule_search_locations = folders
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(self.codes[module.__name__][0], module.__dict__)


_ours = _Ours()


def import_what_is_not_ours() -> None:
    """Import all that the tests need, then forget what is ours: each fork executes that anew, changed."""
    # A busy machine is no defect, and each trial draws the same.
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    for file in TESTS:
        __import__(".".join(file.relative_to(ROOT).with_suffix("").parts))
    for name, module in sys.modules.items():
        if _is_ours(name) and not name.startswith("tests.mutation"):
            _ours.keep(module)
    forget_ours()
    sys.meta_path.insert(0, _ours)


def forget_ours() -> None:
    for name in [each for each in sys.modules if _is_ours(each)]:
        del sys.modules[name]


def _is_ours(name: str) -> bool:
    """Whether a module may have been made with the help of the domain; the tool itself stays."""
    return name.partition(".")[0] in OURS and name not in ("tests", "tests.mutation", *_TOOL)


def try_anew(module: str, mutant: Mutant | None, ordered: Sequence[str] = ()) -> Verdict:
    """In a fork: import the mutant and all that depends on it, and run all tests, by name in this order."""
    forget_ours()
    if mutant is not None:
        tree = mutated(source_of(module), mutant)
        name = f"domain.{module}"
        _, origin, folders = _ours.codes[name]
        _ours.codes[name] = (compile(tree, origin, "exec"), origin, folders)
        try:
            __import__(name)
        except Exception as error:
            # Importing it is the first that any test does.
            return Verdict("killed", "import", f"{type(error).__name__}: {error}"[:200])
    verdicts: list[Verdict] = []

    def loop(items: Sequence[pytest.Item]) -> None:
        places = {name: place for place, name in enumerate(ordered)}
        verdicts.append(run_until_noticed(sorted(items, key=lambda item: places.get(item.nodeid, 0))))

    code, errors = collect_and(loop)
    if verdicts:
        return verdicts[0]
    why = f"the tests can't be collected ({code}): {'; '.join(errors)}"[:300]
    # Tests are written down with the help of the domain; what only breaks that was noticed, too.
    ours = mutant is not None and errors and not any("ImportError" in each for each in errors)
    return Verdict("killed", "collection", why) if ours else Verdict("failed", "", why)


# --- the tests ------------------------------------------------------------------------------------------------------


class _Loop:
    """Hands the collected tests over instead of running them."""

    def __init__(self, work: Callable[[Sequence[pytest.Item]], None]) -> None:
        self._work = work
        self.errors: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(str(report.longrepr)[-300:])

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if not session.testsfailed:
            self._work(session.items)
        return True


def collect_and(work: Callable[[Sequence[pytest.Item]], None]) -> tuple[int, list[str]]:
    """Collect the tests and give them to the work; how pytest ended, and what could not be collected."""
    loop = _Loop(work)
    # Nothing but what these tests need: a trial begins with it.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-s", "--noconftest", "--assert=plain", "-W", "ignore", "-o", "addopts="]
    options += ["-p", "no:cacheprovider", "-p", "no:terminal"]
    files = [str(file) for file in TESTS if file.exists()]
    return int(pytest.main([*options, *files], plugins=[loop])), loop.errors


def calls_of(items: Sequence[pytest.Item]) -> Session:
    """Run every test once, unchanged, and note which functions of the domain it calls. Raises: RuntimeError."""
    told, status = in_fork(lambda: _calls_of(items))
    if not isinstance(told, dict):
        raise RuntimeError(f"the tests fail without a mutant: {told or status}")
    calls = {name: {tuple(place) for place in places} for name, (_, places) in told.items()}
    return Session(items, calls, {name: seconds for name, (seconds, _) in told.items()})


def called_while_collected() -> set[Place]:
    """Functions whose work is done before any test runs: to change them afterwards changes nothing."""

    def collect() -> list[Place]:
        forget_ours()
        with traced() as called:
            collect_and(lambda items: None)
        return sorted(called)

    told, status = in_fork(collect)
    if told is None:
        raise RuntimeError(f"the tests can't be collected: {status}")
    return {tuple(place) for place in told}


@contextmanager
def traced() -> Iterator[set[Place]]:
    """The functions of the domain that are called in the block."""
    folder, called = str(ROOT / "domain") + "/", set[Place]()

    def trace(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if code.co_filename.startswith(folder) and code.co_flags & CO_OPTIMIZED:
            called.add((Path(code.co_filename).stem, code.co_qualname))

    sys.settrace(trace)
    try:
        yield called
    finally:
        sys.settrace(None)


def _calls_of(items: Sequence[pytest.Item]) -> Any:
    found: dict[str, Any] = {}
    for item in items:
        begun = time.process_time()
        with traced() as called:
            verdict = run_until_noticed([item])
        if verdict.kind != "survived":
            return list(verdict)
        found[item.nodeid] = (time.process_time() - begun, sorted(called))
    return found


def freeze() -> None:
    """Leave what was loaded out of the garbage collection, so that forks share it."""
    gc.collect()
    gc.freeze()
