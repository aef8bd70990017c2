"""The CPU time and memory of the processes of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.devstack import RunningStack
from infra.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a ledger process of this run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGER_")}
    return kept | {
        "LEDGER_DATABASE_URL": settings.need_database_url(),
        "LEDGER_KAFKA_BOOTSTRAP": settings.need_kafka_bootstrap(),
        "LEDGER_TOPIC_PREFIX": settings.topic_prefix,
        "LEDGER_SHARDS": str(settings.shards),
        "LEDGER_GROUP_ID": settings.group_id,
    }


@contextmanager
def role(name: str, settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A ledger process of one role, until the end of the block."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "consumers.cli", name], env=environment(settings), stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@dataclass(slots=True)
class Usage:
    """CPU seconds since the start of the measurement, and the most memory seen, in MB, by process."""

    watched: Mapping[str, int]
    _before: dict[str, float] = field(default_factory=dict)
    _memory_at: float = 0.0
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        self._before = {name: _cpu(pid) for name, pid in self.watched.items()}

    def look(self) -> None:
        """Read the counters of CPU time, and of memory at most every two seconds: looking costs time, too."""
        for name, pid in self.watched.items():
            self.cpu_seconds[name] = _cpu(pid) - self._before[name]
        if time.monotonic() < self._memory_at:
            return
        self._memory_at = time.monotonic() + 2
        for name, pid in self.watched.items():
            self.memory_mb[name] = max(self.memory_mb.get(name, 0.0), _memory_mb(pid))


def watched(stack: RunningStack, **processes: subprocess.Popen[bytes]) -> Usage:
    return Usage({**{name: process.pid for name, process in processes.items()}, **stack.pids})


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu(pid: int) -> float:
    total = 0.0
    for process in _family(pid):
        try:
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue
    return total


def _memory_mb(pid: int) -> float:
    """Resident memory; what a process's children share with it is counted once."""
    total = 0
    for process in _family(pid):
        try:
            memory = process.memory_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += memory.rss if process.pid == pid else memory.rss - memory.shared
    return total / 1e6
