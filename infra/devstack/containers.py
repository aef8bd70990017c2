"""The same two servers as containers, for who has Docker and wants the official images."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.devstack import kafka, postgres
from infra.devstack.errors import StackError
from infra.devstack.jars import KAFKA_VERSION
from infra.devstack.places import (
    Choices,
    Progress,
    locked,
    make_choices,
    make_directory,
    read_choices,
    write_choices,
)
from infra.devstack.running import RunningStack, silent

POSTGRES_IMAGE = "postgres:18"
KAFKA_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
_SERVERS = ("postgres", "kafka")
_START_SECONDS = 120.0


def up(data: Path, *, progress: Progress = silent) -> RunningStack:
    """The running containers of this directory: what is stopped is started, what lacks is made.

    Raises: StackError, with the way out.
    """
    folder = make_directory(data / "containers").resolve()
    with locked(folder / "lock", progress=progress):
        choices = read_choices(folder) or make_choices()
        write_choices(folder, choices)
        for server, make in {"postgres": _make_postgres, "kafka": _make_kafka}.items():
            _start(_name_of(folder, server), lambda make=make: make(choices), progress)  # type: ignore[misc]
        deadline = time.monotonic() + _START_SECONDS
        _await(lambda: _takes_connections(folder, choices), "Postgres", _name_of(folder, "postgres"), deadline)
        _await(lambda: kafka.is_ready(choices.kafka_port), "Kafka", _name_of(folder, "kafka"), deadline)
        return _running(folder, choices)


def down(data: Path, *, wipe: bool = False) -> None:
    """Stop the containers of this directory; what they hold stays, unless wiped. Nothing where there are none."""
    folder = (data / "containers").resolve()
    if read_choices(folder) is None:
        return
    with locked(folder / "lock"):
        for server in _SERVERS:
            if (container := _find(_name_of(folder, server))) is not None:
                container.remove(force=True, v=True) if wipe else container.stop(timeout=30)
    if wipe:
        for file in ("stack.json", "lock"):
            (folder / file).unlink(missing_ok=True)
        folder.rmdir()
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def status(data: Path) -> RunningStack | None:
    """The stack of this directory where both containers run, else None."""
    folder = (data / "containers").resolve()
    choices = read_choices(folder)
    if choices is None:
        return None
    found = [_find(_name_of(folder, server)) for server in _SERVERS]
    running = all(container is not None and container.status == "running" for container in found)
    return _running(folder, choices) if running else None


def _start(name: str, make: Callable[[], Any], progress: Progress) -> None:
    if (container := _find(name)) is not None:
        if container.status != "running":
            progress(f"starting the container {name}")
            container.start()
        return
    made = make().with_name(name)
    progress(f"starting {made.image} as the container {name}")
    try:
        made.start()
    except Exception as exc:
        raise StackError(f"{made.image} can't be started: {exc}") from exc


def _make_postgres(choices: Choices) -> Any:
    container = _container(POSTGRES_IMAGE, {5432: choices.postgres_port})
    container.with_envs(
        POSTGRES_USER=postgres.ROLE,
        POSTGRES_PASSWORD=choices.password,
        POSTGRES_DB=postgres.DATABASE,
        POSTGRES_INITDB_ARGS="--encoding=UTF8 --locale=C",
    )
    return container.with_command(["-c", "max_connections=200", "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB"])


def _make_kafka(choices: Choices) -> Any:
    return _container(KAFKA_IMAGE, {9092: choices.kafka_port}).with_envs(
        CLUSTER_ID=choices.cluster_id,
        KAFKA_NODE_ID="1",
        KAFKA_PROCESS_ROLES="broker,controller",
        KAFKA_CONTROLLER_QUORUM_VOTERS="1@localhost:9093",
        KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
        # A door of its own for the broker itself: it sends the markers that end transactions to its advertised
        # address, and inside the container nobody listens on our port.
        KAFKA_LISTENERS="PLAINTEXT://0.0.0.0:9092,CONTROLLER://localhost:9093,BROKER://localhost:9094",
        KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://127.0.0.1:{choices.kafka_port},BROKER://localhost:9094",
        KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT",
        KAFKA_INTER_BROKER_LISTENER_NAME="BROKER",
        KAFKA_AUTO_CREATE_TOPICS_ENABLE="false",
        # One broker can't hold the three replicas that these topics have by default: no transaction would ever begin.
        KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
        KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
        KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
        KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
    )


def _container(image: str, ports: dict[int, int]) -> Any:
    try:
        from testcontainers.core.config import testcontainers_config
        from testcontainers.core.container import DockerContainer
    except ImportError as exc:
        raise StackError(
            'LEDGER_STACK=containers needs the package "testcontainers": pip install testcontainers'
        ) from exc
    # Its reaper would remove the containers when our process ends; a stack stays until it is taken down.
    testcontainers_config.ryuk_disabled = True
    try:
        container = DockerContainer(image)
    except Exception as exc:
        raise StackError(
            f"Docker can't be reached ({exc}); start it, or unset LEDGER_STACK for a stack without it"
        ) from exc
    for inside, outside in ports.items():
        container.ports[f"{inside}/tcp"] = ("127.0.0.1", outside)  # type: ignore[assignment]
    return container


def _find(name: str) -> Any:
    """The container of this name, else None."""
    client = _container(POSTGRES_IMAGE, {}).get_docker_client().client
    found = client.containers.list(all=True, filters={"name": f"^/?{name}$"})
    return found[0] if found else None


def _takes_connections(folder: Path, choices: Choices) -> bool:
    # The image starts a first server without TCP to set the database up, which this can't mistake for the real one.
    container = _find(_name_of(folder, "postgres"))
    command = ["pg_isready", "-h", "127.0.0.1", "-U", postgres.ROLE, "-d", postgres.DATABASE]
    return container is not None and container.exec_run(command).exit_code == 0


def _await(ready: Callable[[], bool], what: str, name: str, deadline: float) -> None:
    while not ready():
        container = _find(name)
        if container is None or container.status == "exited" or time.monotonic() > deadline:
            log = container.logs(tail=12).decode(errors="replace") if container is not None else ""
            tail = "".join(f"\n  | {line}" for line in log.splitlines())
            raise StackError(f"{what} did not start in the container {name}; the end of its log:{tail}")
        time.sleep(0.1)


def _name_of(folder: Path, server: str) -> str:
    return f"ledgerstream-{hashlib.sha256(str(folder).encode()).hexdigest()[:10]}-{server}"


def _running(folder: Path, choices: Choices) -> RunningStack:
    return RunningStack(
        kind="containers",
        database_url=postgres.address(choices),
        kafka_bootstrap=kafka.address(choices),
        data=folder.parent,
    )
