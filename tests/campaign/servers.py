"""The servers of a campaign, each behind a proxy; Postgres can fail over, be backed up and be restored."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from infra.devstack import kafka, postgres, processes
from infra.devstack.places import Choices, free_ports, make_choices, write_choices
from infra.kafka.connection import quiet_aiokafka
from infra.kafka.topics import ensure_topics
from infra.postgres.migrate import migrate
from infra.settings import Settings
from tests.campaign.disk import Disk
from tests.campaign.proxy import Proxy

NAME = "campaign"
_LISTENERS = """
listeners=PLAINTEXT://127.0.0.1:{kafka_port},PROXIED://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{kafka_port},PROXIED://127.0.0.1:{outer}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
"""


def _silent(_line: str) -> None:
    return None


class Servers:
    """One Kafka; one Postgres at a time, `postgres_data` being where it lives now."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.disk = Disk(data / "disk")
        self._choices = make_choices()
        inner, outer, postgres_port, replication_port = free_ports(4)
        self._inner = inner
        self.kafka_proxy = Proxy(outer, inner)
        self.postgres_proxy = Proxy(postgres_port, self._choices.postgres_port)
        self.replication_proxy = Proxy(replication_port, self._choices.postgres_port)
        self._clusters = 0
        self.postgres_data = data / "disk" / "0"
        self.postgres_choices = self._choices
        self.settings = Settings()
        self.direct = Settings()

    async def start(self, shards: int) -> None:
        """Start everything and make an empty ledger: `settings` through the proxies, `direct` past them."""
        self.data.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self.disk.mount)
        # Postgres runs as somebody else, who has to get here.
        for part in (self.data, self.disk.place):
            part.chmod(0o755)
        self.postgres_data.mkdir(exist_ok=True)
        listeners = _LISTENERS.format(
            kafka_port=self._choices.kafka_port, controller_port=self._choices.controller_port,
            inner=self._inner, outer=self.kafka_proxy.port,
        )  # fmt: skip
        (self.data / "kafka.properties").write_text(listeners)
        write_choices(self.data, self._choices)
        await asyncio.gather(self.start_kafka(), self.start_postgres())
        for proxy in (self.kafka_proxy, self.postgres_proxy, self.replication_proxy):
            await proxy.start()
        self.direct = Settings(
            database_url=postgres.address(self._choices),
            kafka_bootstrap=kafka.address(self._choices),
            topic_prefix=f"{NAME}.",
            group_id=NAME,
            client_id=NAME,
            shards=shards,
            parking_patience=1e8,
        )
        quiet_aiokafka(self.direct)
        async with self.connection() as connection:
            # It is killed often, and what it then has to read again should not be much.
            await connection.execute("ALTER SYSTEM SET max_wal_size = '768MB'")
            await connection.execute("SELECT pg_reload_conf()")
        await migrate(self.direct)
        async with self.connection() as connection:
            await ensure_topics(self.direct, connection)
        url = urlsplit(self.direct.need_database_url())
        through = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{self.postgres_proxy.port}")).geturl()
        self.settings = replace(
            self.direct, database_url=through, kafka_bootstrap=f"127.0.0.1:{self.kafka_proxy.port}", client_id=""
        )

    async def stop(self) -> None:
        """End everything; what it kept is removed."""
        for proxy in (self.kafka_proxy, self.postgres_proxy, self.replication_proxy):
            await proxy.stop()
        for directory in self._cluster_places():
            await asyncio.to_thread(postgres.kill, directory)
        await asyncio.to_thread(kafka.kill, self.data)
        self.disk.unmount()
        shutil.rmtree(self.data, ignore_errors=True)

    def _cluster_places(self) -> list[Path]:
        return [self.disk.place / str(number) for number in range(self._clusters + 1)]

    def connection(self) -> Any:
        """A connection of the campaign's own, past the proxy."""
        return asyncpg.create_pool(self.direct.asyncpg_dsn, min_size=1, max_size=1)

    async def empty_database(self, name: str) -> str:
        """The URL of a new database on the same Postgres."""
        async with self.connection() as connection:
            await connection.execute(f'CREATE DATABASE "{name}"')
        return urlsplit(self.direct.need_database_url())._replace(path=f"/{name}").geturl()

    # --- Kafka ------------------------------------------------------------------------------------------------------

    async def start_kafka(self) -> None:
        await asyncio.to_thread(kafka.start, self.data, self._choices, progress=_silent)

    async def kill_kafka(self) -> None:
        await asyncio.to_thread(kafka.kill, self.data)

    # --- Postgres ---------------------------------------------------------------------------------------------------

    async def start_postgres(self) -> None:
        await asyncio.to_thread(postgres.start, self.postgres_data, self.postgres_choices, progress=_silent)

    async def kill_postgres(self) -> None:
        await asyncio.to_thread(postgres.kill, self.postgres_data)

    def postgres_runs(self) -> bool:
        return postgres.find(self.postgres_data) is not None

    async def copy_cluster(self, *, standby: bool = False) -> tuple[Path, Choices]:
        """A base backup of the running Postgres in a place of its own; a standby's follows through its own proxy."""
        self._clusters += 1
        place = self.disk.place / str(self._clusters)
        (port,) = free_ports(1)
        choices = replace(self._choices, postgres_port=port)
        cluster = place / "postgres" / "cluster"
        source = self.replication_proxy.port if standby else self.postgres_choices.postgres_port
        await asyncio.to_thread(self._base_backup, cluster, source, standby)
        return place, choices

    def _base_backup(self, cluster: Path, port: int, standby: bool) -> None:
        user = processes.unprivileged_user()
        cluster.parent.mkdir(parents=True)
        if user is not None:
            os.chown(cluster.parent, user.uid, user.gid)
        cluster.parent.chmod(0o700)
        source = f"postgresql://{postgres.ROLE}:{self._choices.password}@127.0.0.1:{port}/postgres"
        command: list[str | Path] = [postgres._binaries_for(user) / "pg_basebackup", "-D", cluster, "-d", source]
        command += ["-X", "stream", "-c", "fast", "--no-sync"]
        processes.run([*command, *(["-R"] if standby else [])], user=user, cwd=cluster.parent, what="pg_basebackup")
        if standby:
            with (cluster / "postgresql.conf").open("a") as settings:
                settings.write("\nhot_standby = on\nwal_retrieve_retry_interval = 200\nwal_receiver_timeout = 5000\n")

    async def start_cluster(self, place: Path, choices: Choices) -> None:
        await asyncio.to_thread(postgres.start, place, choices, progress=_silent)

    def start_standby(self, place: Path, choices: Choices) -> None:
        """Start a server that follows another: it takes connections some time after this returns."""
        user = processes.unprivileged_user()
        cluster = place / "postgres" / "cluster"
        command: list[str | Path] = [postgres._binaries_for(user) / "postgres", "-D", cluster]
        command += ["-p", str(choices.postgres_port), "-k", ""]
        processes.start(command, user=user, cwd=cluster, log=place / "postgres.log", what="a standby")

    async def switch_to(self, place: Path, choices: Choices) -> None:
        """From now on Postgres is this one, and the one before is gone for good."""
        old = self.postgres_data
        self.postgres_data, self.postgres_choices = place, choices
        for proxy in (self.postgres_proxy, self.replication_proxy):
            proxy.target = choices.postgres_port
            proxy.drop_all()
        self.direct = replace(self.direct, database_url=postgres.address(choices))
        await asyncio.to_thread(postgres.kill, old)
        await asyncio.to_thread(shutil.rmtree, old, True)

    async def discard(self, place: Path) -> None:
        await asyncio.to_thread(postgres.kill, place)
        await asyncio.to_thread(shutil.rmtree, place, True)

    def address(self, choices: Choices) -> str:
        return postgres.address(choices)


async def until(fits: Callable[[], Any], seconds_max: float, what: str) -> None:
    """Return when this is true; it may be a coroutine, and may fail while servers are away."""
    deadline = time.monotonic() + seconds_max
    while True:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, subprocess.SubprocessError):
            found = fits()
            if await found if asyncio.iscoroutine(found) else found:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} not within {seconds_max:g} s")
        await asyncio.sleep(0.05)
