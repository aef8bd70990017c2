"""The embedded stack: a real Postgres and a real Kafka, started, crashed, stopped, found again and wiped."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.devstack import (
    RunningStack,
    StackError,
    down,
    env_lines,
    kill_kafka,
    kill_postgres,
    named_in_environment,
    postgres,
    restart_kafka,
    status,
    up,
)
from infra.devstack.processes import unprivileged_user


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a stack that these tests may hurt."""
    # Longer than the path of a Unix socket may be.
    directory = tmp_path_factory.mktemp("a-directory-with-a-name-of-a-hundred-letters" + 100 * "x")
    yield directory
    down(directory, wipe=True)


@pytest.fixture
def running(data: Path) -> RunningStack:
    return up(data)


async def config_of_broker(stack: RunningStack) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    await admin.start()
    try:
        [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
    finally:
        await admin.close()
    [(_, _, _, _, entries)] = answer.resources
    return {option: value for option, value, *_ in entries}


async def remember(stack: RunningStack, what: str) -> None:
    """Leave a mark in Postgres and, in a transaction, in Kafka."""
    connection = await asyncpg.connect(stack.database_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS marks (what text)")
    await connection.execute("INSERT INTO marks VALUES ($1)", what)
    await connection.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap)
    await admin.start()
    if "marks" not in await admin.list_topics():
        await admin.create_topics([NewTopic("marks", num_partitions=1, replication_factor=1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=stack.kafka_bootstrap, transactional_id="marks") as producer:
        async with producer.transaction():
            await producer.send_and_wait("marks", what.encode())


async def remembered(stack: RunningStack) -> tuple[list[str], list[str]]:
    """The marks in Postgres, and those that a read_committed subscriber of Kafka sees."""
    connection = await asyncpg.connect(stack.database_url)
    rows = [row["what"] for row in await connection.fetch("SELECT what FROM marks")]
    await connection.close()
    consumer = AIOKafkaConsumer(
        "marks",
        bootstrap_servers=stack.kafka_bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    seen: list[str] = []
    async with consumer:
        async with asyncio.timeout(20):
            while len(seen) < len(rows):
                batches = await consumer.getmany(timeout_ms=200)
                seen += [record.value.decode() for records in batches.values() for record in records]
    return rows, seen


async def test_postgres_promises_what_the_ledger_asks_for(running: RunningStack) -> None:
    connection = await asyncpg.connect(running.database_url)
    settings = {row["name"]: row["setting"] for row in await connection.fetch("SELECT name, setting FROM pg_settings")}
    collation = await connection.fetchval("SELECT datcollate FROM pg_database WHERE datname = current_database()")
    await connection.close()
    assert (settings["fsync"], settings["synchronous_commit"], settings["server_encoding"]) == ("on", "on", "UTF8")
    assert (settings["listen_addresses"], settings["server_version"].split(".")[0], collation) == (
        "127.0.0.1",
        "18",
        "C",
    )


async def test_a_stranger_without_the_password_is_turned_away(running: RunningStack) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(running.database_url, password="guessed")


async def test_no_topic_comes_into_being_by_being_asked_for(running: RunningStack) -> None:
    async with AIOKafkaProducer(bootstrap_servers=running.kafka_bootstrap) as producer:
        await producer.client.force_metadata_update()
        producer.client.add_topic("asked_for")
        await producer.client.force_metadata_update()
    admin = AIOKafkaAdminClient(bootstrap_servers=running.kafka_bootstrap)
    await admin.start()
    topics = await admin.list_topics()
    await admin.close()
    assert "asked_for" not in topics


def test_a_second_up_finds_what_runs(data: Path, running: RunningStack) -> None:
    assert up(data) == running
    assert status(data) == running


def test_ups_at_the_same_time_start_one_stack(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        stacks = list(pool.map(up, [tmp_path / "stack"] * 3))
    down(tmp_path / "stack", wipe=True)
    assert stacks[0] == stacks[1] == stacks[2]


async def test_two_stacks_side_by_side_know_nothing_of_each_other(tmp_path: Path, running: RunningStack) -> None:
    other = up(tmp_path / "other")
    try:
        await remember(running, "mine")
        await remember(other, "theirs")
        assert await remembered(other) == (["theirs"], ["theirs"])
        assert "theirs" not in (await remembered(running))[0]
    finally:
        down(tmp_path / "other", wipe=True)
    assert status(running.data or Path()) == running


async def test_down_keeps_the_data_and_the_addresses(data: Path, running: RunningStack) -> None:
    await remember(running, "before")
    before = await remembered(running)
    down(data)
    assert status(data) is None
    again = up(data)
    assert env_lines(again) == env_lines(running)
    assert again.pids != running.pids
    assert await remembered(again) == before


async def test_what_crashed_is_started_again_with_all_it_had_acknowledged(data: Path, running: RunningStack) -> None:
    await remember(running, "before the crash")
    before = await remembered(running)
    kill_kafka(data)
    kill_postgres(data)
    assert status(data) is None
    again = up(data)
    assert env_lines(again) == env_lines(running)
    assert await remembered(again) == before


async def test_one_crash_leaves_the_other_server_alone(data: Path, running: RunningStack) -> None:
    kill_kafka(data)
    again = up(data)
    assert again.pids["postgres"] == running.pids["postgres"]
    assert again.pids["kafka"] != running.pids["kafka"]
    assert restart_kafka(data) != again.pids["kafka"]


def test_a_pid_file_left_by_a_crash_is_not_believed(data: Path, running: RunningStack) -> None:
    kill_postgres(data)
    # By now the pid belongs to another process of the same user.
    user = unprivileged_user()
    with subprocess.Popen(["sleep", "100"], user=user.uid if user else None) as stranger:
        pid_file = (data / "postgres").resolve() / "cluster" / "postmaster.pid"
        pid_file.write_text(pid_file.read_text().replace(str(running.pids["postgres"]), str(stranger.pid), 1))
        try:
            again = up(data)
        finally:
            stranger.kill()
    assert again.pids["postgres"] not in (running.pids["postgres"], stranger.pid)


def test_a_port_that_was_taken_meanwhile_is_chosen_anew(data: Path, running: RunningStack) -> None:
    down(data)
    port = int(running.kafka_bootstrap.split(":")[1])
    said: list[str] = []
    with closing(socket.socket()) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        moved = up(data, progress=said.append)
    assert moved.kafka_bootstrap != running.kafka_bootstrap
    assert any("read the addresses again" in line for line in said)


def test_wipe_removes_what_is_ours_and_nothing_else(tmp_path: Path) -> None:
    stack = up(tmp_path / "stack")
    place = (tmp_path / "stack" / "postgres").resolve()
    (tmp_path / "stack" / "letter.txt").write_text("not yours")
    down(tmp_path / "stack", wipe=True)
    assert [file.name for file in (tmp_path / "stack").iterdir()] == ["letter.txt"]
    assert not place.exists()
    assert status(tmp_path / "stack") is None
    assert stack.pids


def test_a_stack_of_which_half_cannot_start_leaves_nothing_running(tmp_path: Path) -> None:
    data = tmp_path / "with,comma"  # where Kafka would see two directories
    with pytest.raises(StackError, match="has one; name another directory with --data"):
        up(data)
    assert (data / "postgres").exists()
    assert postgres.find(data.resolve()) is None


def test_a_database_whose_directory_was_removed_by_hand_is_swept_away(tmp_path: Path) -> None:
    up(tmp_path / "first")
    place = (tmp_path / "first" / "postgres").resolve()
    down(tmp_path / "first")
    shutil.rmtree(tmp_path / "first")
    up(tmp_path / "second")
    down(tmp_path / "second", wipe=True)
    assert not place.exists()


def test_a_directory_that_cannot_be_made_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match=r"file/stack .* name another directory with --data"):
        up(tmp_path / "file" / "stack")


def test_one_server_named_without_the_other_is_refused() -> None:
    with pytest.raises(StackError, match="LEDGER_KAFKA_BOOTSTRAP is set, but LEDGER_DATABASE_URL is not"):
        named_in_environment({"LEDGER_KAFKA_BOOTSTRAP": "127.0.0.1:9092"})


async def test_each_test_gets_a_migrated_database_of_its_own(database_url: str, shards: int) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM shards") == shards
    await connection.close()


async def test_a_transaction_does_not_wait_20_ms_for_the_markers_of_the_one_before(running: RunningStack) -> None:
    config = await config_of_broker(running)
    assert config["add.partitions.to.txn.retry.backoff.ms"] == "1"
