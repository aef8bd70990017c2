"""Server processes: started so that they outlive us, found by their command line, ended for good."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from infra.devstack.errors import StackError, log_tail

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Under whom a server runs: numbers, because the group list of a name isn't wanted."""

    name: str
    uid: int
    gid: int

    def may_pass(self, directory: Path) -> bool:
        """Whether this user gets into the directory through everything above it."""
        return all(self._may_enter(part) for part in (directory, *directory.parents))

    def _may_enter(self, directory: Path) -> bool:
        found = directory.stat()
        bit = 0o100 if found.st_uid == self.uid else 0o010 if found.st_gid == self.gid else 0o001
        return bool(found.st_mode & bit)


def unprivileged_user() -> User | None:
    """Who stands in for root, under whom Postgres refuses to run; None where we aren't root.

    Raises: StackError where the machine has none.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise StackError('Postgres does not run as root and there is no user "postgres" or "nobody"; run as a plain user')


def run(command: Sequence[str | Path], *, user: User | None, cwd: Path, what: str, stdin: str = "") -> None:
    """Run a command to its end.

    Raises: StackError with its output where it fails.
    """
    done = _spawn(
        subprocess.run, command, user=user, cwd=cwd, what=what,
        input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    if done.returncode != 0:
        tail = "".join(f"\n  | {line}" for line in str(done.stdout).splitlines()[-12:])
        raise StackError(f"{what} failed (exit code {done.returncode}):{tail}")


def start(
    command: Sequence[str | Path], *, user: User | None, cwd: Path, log: Path, what: str
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own: it outlives us, and Ctrl-C in our terminal doesn't reach it."""
    with log.open("ab") as sink:
        process: subprocess.Popen[bytes] = _spawn(
            subprocess.Popen, command, user=user, cwd=cwd, what=what,
            stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    return process


def _spawn(
    how: Callable[..., Any], command: Sequence[str | Path], *, user: User | None, cwd: Path, what: str, **more: Any
) -> Any:
    identity: dict[str, Any] = {"user": user.uid, "group": user.gid, "extra_groups": []} if user else {}
    try:
        return how([str(part) for part in command], cwd=cwd, env=_environment(os.environ), **identity, **more)
    except (OSError, subprocess.SubprocessError) as exc:
        whom = f" as user {user.name}" if user else ""
        raise StackError(f"{what}: {command[0]} can't be run{whom} ({exc})") from exc


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    # What is set for other servers (PGDATA, PGPORT, JAVA_TOOL_OPTIONS, KAFKA_OPTS) must not reach ours.
    return {"PATH": environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def find(*parts: str) -> int | None:
    """The pid of the running process whose command line has all these parts as arguments.

    The process table can't be stale, as a pid file can be after a crash.
    """
    for process in psutil.process_iter(["cmdline", "status"]):
        arguments = process.info["cmdline"] or ()
        if all(part in arguments for part in parts) and process.info["status"] != psutil.STATUS_ZOMBIE:
            return int(process.pid)
    return None


def await_ready(
    process: subprocess.Popen[bytes], *, ready: Callable[[], bool], seconds_max: float, log: Path, what: str
) -> None:
    """Return when the server is ready.

    Raises: StackError with the end of its log, where it ends or takes too long; it is then no longer running.
    """
    deadline = time.monotonic() + seconds_max
    while not ready():
        if (code := process.poll()) is not None:
            raise StackError(f"{what} ended at its start (exit code {code}); the end of {log}:{log_tail(log)}")
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise StackError(f"{what} was not ready after {seconds_max:.0f} s; the end of {log}:{log_tail(log)}")
        time.sleep(_POLL_SECONDS)


def end(pid: int, *, signals: Sequence[int], seconds_each: float) -> None:
    """End a process and all it has started: the signals in turn, each with its patience, then for good."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for signal in signals:
        _send(process, signal)
        if _await_gone([process], seconds_each):
            break
    for member in family:
        _send(member, 9)
    if not _await_gone(family, 10.0):
        raise StackError(f"process {pid} does not end, not even by kill -9; see what it waits for")


def _send(process: psutil.Process, signal: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal)


def _await_gone(processes: Sequence[psutil.Process], seconds_max: float) -> bool:
    deadline = time.monotonic() + seconds_max
    while any(_is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _is_alive(process: psutil.Process) -> bool:
    # A child of ours that ended stays a zombie until it is asked for.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
