"""Custom resolvers, kept where they can't break or slow the worker: in processes that are killed when they're silent.

A coroutine that waits is no trouble to anyone. Code that blocks, loops, ends its process or takes all memory can't be
stopped from within; here it costs its own payment an answer, and others of its batch a fraction of a second.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from typing import Any

from infra.resolvers.host import FORK, KILL, LENGTH
from infra.resolvers.pending import Answer, Question
from infra.settings import SettingsError

log = logging.getLogger(__name__)

CHILDREN = 3
MEMORY_BYTES = 256 * 1024 * 1024
GRACE_SECONDS = 0.1
"""How much longer than its budget a call may keep its process silent: a busy machine is no fault of the resolver."""
START_SECONDS = 30.0
AGAIN_SECONDS = 2.0
"""How long a replacement may take to get ready."""
ALONE_SECONDS = 1.0
"""How long a batch goes on asking one by one, after one of its payments has cost others their answer."""
ALONE_CALLS = 3
"""Where the budget is large: at least as long as so many calls that take all of their time."""


class ChildLostError(Exception):
    """A child ended, or never got ready; the message says why."""


class Sandbox:
    """Asks custom resolvers, given by role (`categories`, `lines`) as `package.module:Class`."""

    def __init__(self, names: Mapping[str, str], *, budget: float, memory: int = MEMORY_BYTES) -> None:
        self._names = dict(names)
        self._budget = budget
        self._patience = len(self._names) * budget + GRACE_SECONDS
        self._memory = memory
        self._host: Process | None = None
        self._control: socket.socket | None = None
        self._free: asyncio.Queue[_Child | None] = asyncio.Queue()
        self._forking = asyncio.Lock()
        self._children: set[_Child] = set()
        self._closed = False

    async def start(self) -> None:
        """Return when all is ready to be asked. Raises: SettingsError where a name leads to nothing that can be made.

        The worker itself never imports what is named.
        """
        try:
            for _ in range(CHILDREN):
                self._free.put_nowait(await self._new_child(START_SECONDS))
        except ChildLostError as error:
            await self.close()
            settings = {"categories": "LEDGER_EXPENSE_CATEGORY_RESOLVER", "lines": "LEDGER_LINE_OF_CREDIT_RESOLVER"}
            named = " and ".join(f"{settings[role]}={name}" for role, name in self._names.items())
            raise SettingsError(
                f"{named}: {error}; name a class that can be imported, as package.module:Class"
            ) from error

    async def close(self) -> None:
        """End all of its processes; who is asking gets no answer."""
        self._closed = True
        for child in list(self._children):
            child.close()
        if self._control is not None:
            self._control.close()
        if self._host is not None:
            # It ends by itself, and its children with it, unless it is still importing.
            try:
                async with asyncio.timeout(1.0):
                    await self._host.wait()
            except TimeoutError:
                self._host.kill()
                await self._host.wait()
        self._host = self._control = None

    async def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """An answer to each question, in order; never raises for what the custom code does.

        Asked all at once; those that another one kept from their answer are asked again, one by one.
        """
        child = await self._free.get()
        try:
            child = await self._ready(child)
            answers = await child.ask(questions)
            if None in answers:
                child = await self._ask_alone(child, questions, answers)
        except ChildLostError as error:
            log.warning("custom resolvers can't be asked: %s", error)
            return [Answer(failed=str(error))] * len(questions)
        finally:
            self._free.put_nowait(child)
        return [answer or Answer(failed="no answer in time") for answer in answers]

    async def _ask_alone(self, child: _Child, questions: Sequence[Question], answers: list[Answer | None]) -> _Child:
        """Ask one by one those that have no answer yet, for so long at most; the child that is left."""
        loop = asyncio.get_running_loop()
        until = loop.time() + max(ALONE_SECONDS, ALONE_CALLS * self._patience)
        missing = [place for place, answer in enumerate(answers) if answer is None]
        log.warning("a custom resolver blocked or broke its process; %s payments had no answer", len(missing))
        # They are asked in order, so the first of them is the one to suspect; it comes last.
        for place in missing[1:] + missing[:1] if len(questions) > 1 else []:
            if loop.time() >= until:
                break
            child = await self._ready(child)
            (answers[place],) = await child.ask([questions[place]])
        return child

    async def _ready(self, child: _Child | None) -> _Child:
        """The child, or one in its place. Raises: ChildLostError."""
        if child is not None and not child.lost:
            return child
        if child is not None:
            self._children.discard(child)
        return await self._new_child(AGAIN_SECONDS)

    async def _new_child(self, seconds: float) -> _Child:
        """Fork a child. Raises: ChildLostError."""
        async with self._forking:
            if self._closed:
                raise ChildLostError("the worker ends")
            if self._host is None or self._host.returncode is not None:
                await self._start_host()
                seconds = START_SECONDS
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            try:
                assert self._control is not None
                socket.send_fds(self._control, [FORK + LENGTH.pack(0)], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise ChildLostError(f"their process is gone ({error})") from error
            finally:
                theirs.close()
        child = _Child(self._kill, patience=self._patience)
        try:
            await child.begin(ours, seconds)
        except BaseException:
            child.close()
            raise
        self._children.add(child)
        return child

    async def _start_host(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control, theirs = socket.socketpair()
        try:
            self._host = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "infra.resolvers.host",
                str(theirs.fileno()),
                json.dumps(self._names),
                str(self._budget),
                str(self._memory),
                pass_fds=(theirs.fileno(),),
                stdin=DEVNULL,
                # Ctrl-C at the terminal is for the worker; this ends with it.
                start_new_session=True,
            )
        finally:
            theirs.close()

    def _kill(self, pid: int) -> None:
        if self._control is not None:
            try:
                self._control.send(KILL + LENGTH.pack(pid))
            except OSError as error:
                log.debug("the host of the custom resolvers is gone, and its children with it (%s)", error)


class _Child:
    """One process in which custom resolvers run."""

    def __init__(self, kill: Any, *, patience: float) -> None:
        self.lost = False
        self._kill = kill
        self._patience = patience
        self._pid: int | None = None
        self._number = 0
        self._answers: dict[int, Answer | None] = {}
        self._left = 0
        self._heard_at = 0.0
        self._over = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None

    async def begin(self, sock: socket.socket, seconds: float) -> None:
        """Return when it is ready. Raises: ChildLostError."""
        reader, self._writer = await asyncio.open_connection(sock=sock)
        try:
            async with asyncio.timeout(seconds):
                self._pid = (await _read(reader))["pid"]
                fault = (await _read(reader))["fault"]
        except (TimeoutError, EOFError, OSError) as error:
            raise ChildLostError(f"their process wasn't ready within {seconds:g} s") from error
        if fault is not None:
            raise ChildLostError(fault)
        self._listening = asyncio.create_task(self._listen(reader))

    async def ask(self, questions: Sequence[Question]) -> list[Answer | None]:
        """An answer to each, or None where it had no chance: the process was silent for too long, or ended."""
        assert self._writer is not None
        loop = asyncio.get_running_loop()
        first, self._number = self._number, self._number + len(questions)
        self._answers = dict.fromkeys(range(first, self._number))
        self._left = len(questions)
        self._over.clear()
        self._heard_at = loop.time()
        for number, question in enumerate(questions, first):
            content = pickle.dumps((number, question))
            self._writer.write(LENGTH.pack(len(content)) + content)
        while self._left and not self.lost:
            rest = self._heard_at + self._patience - loop.time()
            if rest <= 0:
                self.close()
                break
            try:
                async with asyncio.timeout(rest):
                    await self._over.wait()
            except TimeoutError:
                continue
        return list(self._answers.values())

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                told = await _read(reader)
                self._heard_at = loop.time()
                self.lost = self.lost or told["ends"]
                number = told.pop("number")
                if self._answers.get(number, ...) is None:
                    if not told.get("disturbed") or len(self._answers) == 1:
                        self._answers[number] = _answer(told)
                    self._left -= 1
                if not self._left:
                    self._over.set()
        except (EOFError, OSError, ValueError) as error:
            log.debug("a child of the custom resolvers is gone (%r)", error)
        finally:
            self.lost = True
            self._over.set()

    def close(self) -> None:
        """Kill it, whatever it does."""
        self.lost = True
        if self._listening is not None:
            self._listening.cancel()
        if self._pid is not None:
            self._kill(self._pid)
        if self._writer is not None:
            self._writer.transport.abort()


def _answer(told: Mapping[str, Any]) -> Answer:
    return Answer(frozenset(told.get("categories", ())), told.get("lines"), told.get("failed"))


async def _read(reader: asyncio.StreamReader) -> dict[str, Any]:
    """One message. Raises: EOFError, OSError."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    document: dict[str, Any] = json.loads(await reader.readexactly(length))
    return document
