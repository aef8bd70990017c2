"""The process in which custom resolvers are imported, and its children in which they run.

It is started by the worker as `python -m infra.resolvers.host` and forks a child whenever the worker hands it a
socket, so that one that had to be killed is replaced within milliseconds. It ends with the worker, and its children
with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import isawaitable
from pathlib import Path
from typing import Any

from infra.resolvers.pending import Question

FORK, KILL = b"F", b"K"
LENGTH = struct.Struct("!I")
CODES_MAX = 100
TEXT_MAX = 200
ABANDONED_MAX = 50
"""How many calls that don't heed their cancellation a child carries along before it gives way to a new one."""
_REAP_SECONDS = 1.0


LATE_SECONDS = 0.02
"""By how much a call may outlast its budget and have nobody else to thank for it."""


class NonsenseError(Exception):
    """A resolver answered what is no answer."""


class DisturbedError(Exception):
    """A call has had no fair chance: another one, or this one, held up all that its process does."""


def find_class(name: str) -> Any:
    """The class of `package.module:Class`. Raises: whatever its import raises; NonsenseError where it names none."""
    module_name, _, class_name = name.partition(":")
    found = getattr(import_module(module_name), class_name, None)
    if found is None:
        raise NonsenseError(f"{module_name} has no {class_name}")
    return found


# --- the host -------------------------------------------------------------------------------------------------------


def main(control_fd: int, names: Mapping[str, str], budget: float, memory: int) -> None:
    """Import the resolvers once, then fork on demand until the worker is gone."""
    # What custom code prints is no output of ours.
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=control_fd)
    classes, fault = _import_all(names)
    children: set[int] = set()
    try:
        while True:
            _reap(children)
            if not select.select([control], [], [], _REAP_SECONDS)[0]:
                continue
            message, fds, _, _ = socket.recv_fds(control, 1 + LENGTH.size, 1)
            if not message:
                return
            if message[:1] == KILL:
                _kill(LENGTH.unpack(message[1:])[0], children)
                continue
            pid = os.fork()
            if pid == 0:
                control.close()
                _be_child(socket.socket(fileno=fds[0]), classes, fault, budget, memory)
            os.close(fds[0])
            children.add(pid)
    finally:
        for pid in list(children):
            _kill(pid, children)


def _import_all(names: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    classes = {}
    for role, name in names.items():
        try:
            classes[role] = find_class(name)
        except BaseException as error:
            return {}, f"{name}: {_told(error)}"
    return classes, None


def _reap(children: set[int]) -> None:
    for pid in list(children):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                continue
        children.discard(pid)


def _kill(pid: int, children: set[int]) -> None:
    """End a child and what it started; one that was reaped may be another's process by now."""
    if pid not in children:
        return
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


# --- a child --------------------------------------------------------------------------------------------------------


def _be_child(sock: socket.socket, classes: Mapping[str, Any], fault: str | None, budget: float, memory: int) -> None:
    """Answer questions until the worker closes the socket; never returns."""
    try:
        os.setsid()
        # First of all, so that the worker can have it killed even if it never gets ready.
        sock.sendall(_frame({"pid": os.getpid()}))
        _bound_memory(memory)
        resolvers = {}
        for role, made in classes.items():
            try:
                resolvers[role] = made()
            except BaseException as error:
                fault = f"{getattr(made, '__qualname__', made)}: can't be made: {_told(error)}"
        sock.sendall(_frame({"fault": fault}))
        if fault is None:
            asyncio.run(_Child(resolvers, budget).serve(sock))
    finally:
        os._exit(0)


def _bound_memory(memory: int) -> None:
    """Let it take so many bytes more than it has, where the system tells and bounds that."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


class _Child:
    """Asks the resolvers, all questions at once, each call within the budget."""

    def __init__(self, resolvers: Mapping[str, Any], budget: float) -> None:
        self._resolvers = resolvers
        self._budget = budget
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                number, question = pickle.loads(await reader.readexactly(length))
                task = asyncio.create_task(self._answer(number, question, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        # What doesn't heed its cancellation would keep the loop from ending.
        os._exit(0)

    async def _answer(self, number: int, question: Question, writer: asyncio.StreamWriter) -> None:
        worn_out = False
        try:
            told = await self._resolve(question)
        except BaseException as error:
            worn_out = isinstance(error, MemoryError)
            told = {"failed": _told(error), "disturbed": worn_out or isinstance(error, DisturbedError)}
        ends = worn_out or len(self._abandoned) > ABANDONED_MAX
        # Said before it is done, so that nobody is asked by a process that is about to end.
        writer.write(_frame({"number": number, "ends": ends, **told}))
        if ends:
            os._exit(1)

    async def _resolve(self, question: Question) -> dict[str, Any]:
        pending, categories = question.pending, question.categories
        told: dict[str, Any] = {}
        if "categories" in self._resolvers:
            resolver = self._resolvers["categories"]
            categories = _codes(await self._within_budget(lambda: resolver.resolve_expense_categories(pending)))
            told["categories"] = sorted(categories)
        if "lines" in self._resolvers and categories:
            asked, resolver = categories, self._resolvers["lines"]
            lines = await self._within_budget(lambda: resolver.resolve_lines_of_credit(asked, pending))
            told["lines"] = _lines(lines, asked)
        return told

    async def _within_budget(self, call: Callable[[], Any]) -> Any:
        """What a resolver says in time. Raises: TimeoutError, DisturbedError, whatever it raises."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = asyncio.create_task(_awaited(call))
        done, _ = await asyncio.wait({task}, timeout=self._budget)
        if not done:
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            task.cancel()
        elif loop.time() - began <= self._budget or task.cancelled() or task.exception() is not None:
            return task.result()
        why = f"no answer within {self._budget:g} s"
        if loop.time() - began > self._budget + LATE_SECONDS:
            raise DisturbedError(why)
        raise TimeoutError(why)


async def _awaited(call: Callable[[], Any]) -> Any:
    try:
        answer = call()
        return await answer if isawaitable(answer) else answer
    except (SystemExit, KeyboardInterrupt) as error:
        # These would end the loop, and with it the answers of all others.
        raise NonsenseError(f"raised {type(error).__name__}") from error


def _codes(answer: object) -> frozenset[str]:
    if answer is None:
        return frozenset()
    if not isinstance(answer, frozenset | set) or len(answer) > CODES_MAX or not all(map(_is_text, answer)):
        raise NonsenseError(f"not a set of at most {CODES_MAX} codes of categories: {type(answer).__name__}")
    return frozenset(answer)


def _lines(answer: object, categories: frozenset[str]) -> dict[str, str]:
    """The lines of these categories; what wasn't asked for is left out."""
    if answer is None:
        return {}
    if not isinstance(answer, Mapping):
        raise NonsenseError(f"not a mapping of categories to lines of credit: {type(answer).__name__}")
    lines = {code: answer[code] for code in categories if code in answer}
    if not all(map(_is_text, lines.values())):
        raise NonsenseError("the id of a line of credit is not a text of 1 to 200 characters")
    return lines


def _is_text(value: object) -> bool:
    """Whether it can be an id of the wire, and so be kept."""
    if type(value) is not str or not 1 <= len(value) <= TEXT_MAX:
        return False
    return not any(c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in value)


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except BaseException:
        return type(error).__name__


def _frame(document: Mapping[str, Any]) -> bytes:
    content = json.dumps(document).encode()
    return LENGTH.pack(len(content)) + content


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
