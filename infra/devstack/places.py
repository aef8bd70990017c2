"""Where a stack keeps what: its data directory, the user's cache, and the ports and secrets it chose for itself."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import random
import secrets
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from infra.devstack.errors import StackError

Progress = Callable[[str], None]
"""Told what is going on, one short line at a time."""

# Below the range from which Linux and macOS take ports for outgoing connections: a port that rests while
# the stack is down isn't taken by somebody's browser.
_PORTS = range(20_000, 32_000)
_DISK_FREE_BYTES_MIN = 500_000_000


def default_data(environ: Mapping[str, str] | None = None) -> Path:
    """The data directory where nobody names one: $LEDGER_DATA, else a folder of the user's."""
    environ = os.environ if environ is None else environ
    if environ.get("LEDGER_DATA"):
        return Path(environ["LEDGER_DATA"])
    home = environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "ledgerstream"


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The user's cache; what is in it can be fetched again."""
    environ = os.environ if environ is None else environ
    home = environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ledgerstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a stack chose when it was made and keeps: it is written to `stack.json` in its data directory."""

    postgres_port: int
    kafka_port: int
    controller_port: int
    password: str
    cluster_id: str


def read_choices(data: Path) -> Choices | None:
    """What the stack in `data` chose; None where there is no stack.

    Raises: StackError where the file is damaged.
    """
    file = data / "stack.json"
    try:
        return Choices(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as exc:
        raise StackError(f'{file} is damaged ({exc}); "ledgerstream stack down --wipe" removes this stack') from exc


def write_choices(data: Path, choices: Choices) -> None:
    """Write the file whole or not at all, readable by its owner only: it has the database's password."""
    file = data / "stack.json"
    partial = file.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(asdict(choices), indent=1))
    partial.replace(file)


def make_choices() -> Choices:
    postgres_port, kafka_port, controller_port = free_ports(3)
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    return Choices(
        postgres_port=postgres_port,
        kafka_port=kafka_port,
        controller_port=controller_port,
        password=secrets.token_hex(16),
        # The storage tool takes a leading dash for an option.
        cluster_id=cluster_id.replace("-", "x", 1) if cluster_id.startswith("-") else cluster_id,
    )


def with_free_ports(choices: Choices, *names: str) -> Choices:
    """The same choices, but each of the named ports that somebody else has taken is chosen anew."""
    taken = [name for name in names if not is_free(getattr(choices, name))]
    fresh: dict[str, Any] = dict(zip(taken, free_ports(len(taken)), strict=True))
    return replace(choices, **fresh)


def free_ports(count: int) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.SystemRandom().choice(_PORTS)
        if port not in chosen and is_free(port):
            chosen.append(port)
    return chosen


def is_free(port: int) -> bool:
    """Whether a server could listen on the port of 127.0.0.1 now."""
    with closing(socket.socket()) as probe:
        # As the servers do themselves: connections of theirs that are closing don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def make_directory(path: Path) -> Path:
    """The directory, made with everything above it.

    Raises: StackError where that is not allowed or where the disk is as good as full.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path).free
    except OSError as exc:
        raise StackError(f"{path} can't be made ({exc.strerror}); name another directory with --data") from exc
    if free < _DISK_FREE_BYTES_MIN:
        raise StackError(f"the disk of {path} has only {free // 1_000_000} MB free, a stack needs 500; make room")
    return path


@contextmanager
def locked(file: Path, *, seconds_max: float = 120.0, progress: Progress | None = None) -> Iterator[None]:
    """Hold the lock of a directory: one process at a time starts, stops or fetches.

    Raises: StackError where somebody else holds it for too long.
    """
    with file.open("a") as handle:
        deadline, told = time.monotonic() + seconds_max, progress is None
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StackError(
                        f"another process has held {file} for {seconds_max:.0f} s; see what it does"
                    ) from None
            if not told and progress is not None:
                progress(f"waiting for another process that works on {file.parent}")
                told = True
            time.sleep(0.05)
        yield
