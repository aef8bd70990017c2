"""Postgres and Kafka of one data directory, started together and kept until they are wiped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.devstack import kafka, postgres
from infra.devstack.errors import StackError
from infra.devstack.places import (
    Choices,
    Progress,
    locked,
    make_choices,
    make_directory,
    read_choices,
    with_free_ports,
    write_choices,
)
from infra.devstack.running import RunningStack, silent

_SERVERS = ("postgres", "kafka")


def up(data: Path, *, progress: Progress = silent) -> RunningStack:
    """The running stack of this directory: what doesn't run is started, and goes on running when we end.

    Raises: StackError, with the way out.
    """
    data = make_directory(data).resolve()
    with locked(data / "lock", progress=progress):
        if (running := status(data)) is not None:
            return running
        choices = _choices_for(data, progress)
        were_running = {server: server.find(data) is not None for server in (postgres, kafka)}
        try:
            with ThreadPoolExecutor(2) as pool:
                starting = [pool.submit(server.start, data, choices, progress=progress) for server in were_running]
                postgres_pid, kafka_pid = (start.result() for start in starting)
        except BaseException:
            # Half a stack serves nobody, and nobody would look for it.
            for server, was_running in were_running.items():
                if not was_running:
                    server.stop(data)
            raise
        return _running(data, choices, postgres_pid, kafka_pid)


def down(data: Path, *, wipe: bool = False) -> None:
    """End what runs in this directory; its data stays, unless wiped. Nothing where there is no stack.

    Raises: StackError where a process doesn't end.
    """
    data = data.resolve()
    if not data.is_dir():
        return
    with locked(data / "lock"):
        kafka.stop(data)
        postgres.stop(data)
        if wipe:
            postgres.wipe(data)
            kafka.wipe(data)
            (data / "stack.json").unlink(missing_ok=True)
    if wipe:
        (data / "lock").unlink(missing_ok=True)
        # Only what is ours is removed: somebody may have named a directory with other things in it.
        if not any(data.iterdir()):
            data.rmdir()


def status(data: Path) -> RunningStack | None:
    """The stack of this directory where all of it runs, else None."""
    data = data.resolve()
    choices = read_choices(data)
    if choices is None:
        return None
    postgres_pid, kafka_pid = postgres.find(data), kafka.find(data)
    if postgres_pid is None or kafka_pid is None:
        return None
    return _running(data, choices, postgres_pid, kafka_pid)


def start_postgres(data: Path, *, progress: Progress = silent) -> int:
    """Start only Postgres, on the port it had; its pid."""
    data = data.resolve()
    with locked(data / "lock"):
        return postgres.start(data, _choices_of(data), progress=progress)


def start_kafka(data: Path, *, progress: Progress = silent) -> int:
    """Start only Kafka, on the port it had; its pid."""
    data = data.resolve()
    with locked(data / "lock"):
        return kafka.start(data, _choices_of(data), progress=progress)


def stop_postgres(data: Path) -> None:
    """End only Postgres, in order."""
    postgres.stop(data.resolve())


def stop_kafka(data: Path) -> None:
    """End only Kafka, in order."""
    kafka.stop(data.resolve())


def kill_postgres(data: Path) -> None:
    """`kill -9` only Postgres and its children; they are gone when this returns."""
    postgres.kill(data.resolve())


def kill_kafka(data: Path) -> None:
    """`kill -9` only Kafka; it is gone when this returns."""
    kafka.kill(data.resolve())


def restart_postgres(data: Path) -> int:
    """Stop and start only Postgres; the new pid."""
    stop_postgres(data)
    return start_postgres(data)


def restart_kafka(data: Path) -> int:
    """Stop and start only Kafka; the new pid."""
    stop_kafka(data)
    return start_kafka(data)


def _choices_of(data: Path) -> Choices:
    choices = read_choices(data)
    if choices is None:
        raise StackError(f'there is no stack in {data}; make one with "ledgerstream stack up --data {data}"')
    return choices


def _choices_for(data: Path, progress: Progress) -> Choices:
    """What the stack chose before, or chooses now; a port that somebody took meanwhile is chosen anew."""
    kept = read_choices(data)
    choices = make_choices() if kept is None else kept
    resting = [] if postgres.find(data) else ["postgres_port"]
    resting += [] if kafka.find(data) else ["kafka_port", "controller_port"]
    choices = with_free_ports(choices, *resting)
    if kept is not None and choices != kept:
        progress("a port of this stack was taken meanwhile, so it has a new one: read the addresses again")
    if choices != kept:
        write_choices(data, choices)
    return choices


def _running(data: Path, choices: Choices, postgres_pid: int, kafka_pid: int) -> RunningStack:
    return RunningStack(
        kind="embedded",
        database_url=postgres.address(choices),
        kafka_bootstrap=kafka.address(choices),
        pids=dict(zip(_SERVERS, (postgres_pid, kafka_pid), strict=True)),
        data=data,
    )
