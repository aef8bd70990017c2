"""The jars of Kafka: pinned, checked, fetched whole or not at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.devstack import StackError
from infra.devstack.jars import Jar, fetch, pinned

_BYTES = b"the bytes of a jar" * 10_000
_JAR = Jar(coordinate="org.example:thing:1.0", sha256=hashlib.sha256(_BYTES).hexdigest(), size_bytes=len(_BYTES))


class Registry:
    """Stands for the registry: gives each answer in turn, the last one for ever."""

    def __init__(self, *answers: bytes | OSError) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, coordinate: str) -> Iterator[bytes]:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, OSError):
            yield _BYTES[:100]
            raise answer
        yield from (answer[:1000], answer[1000:])


def fetched(cache: Path, registry: Registry) -> bytes:
    folder = fetch(cache, progress=lambda line: None, jars=[_JAR], download=registry)
    return (folder / "thing-1.0.jar").read_bytes()


def test_the_pinned_jars_are_all_of_kafka_4_3_each_once_and_by_hash() -> None:
    jars = pinned()
    assert len(jars) == 46
    assert len({jar.file_name for jar in jars}) == len({jar.sha256 for jar in jars}) == 46
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) and jar.size_bytes > 0 for jar in jars)
    coordinates = {jar.coordinate for jar in jars}
    assert {"org.apache.kafka:kafka_2.13:4.3.0", "org.slf4j:slf4j-simple:1.7.36"} <= coordinates


def test_a_jar_is_fetched_once(tmp_path: Path) -> None:
    registry = Registry(_BYTES)
    assert fetched(tmp_path, registry) == _BYTES
    assert fetched(tmp_path, registry) == _BYTES
    assert registry.asked == 1


def test_a_jar_that_was_damaged_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    registry = Registry(_BYTES)
    fetched(tmp_path, registry)
    next(tmp_path.rglob("thing-1.0.jar")).write_bytes(_BYTES[:-1])
    assert fetched(tmp_path, registry) == _BYTES
    assert registry.asked == 2


def test_a_connection_that_breaks_is_tried_again(tmp_path: Path) -> None:
    assert fetched(tmp_path, Registry(OSError("connection reset"), _BYTES)) == _BYTES


def test_another_jar_than_the_pinned_one_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.devstack.jars._RETRY_SECONDS", 0)
    with pytest.raises(StackError, match=r"org\.example:thing:1\.0 .* pinned is"):
        fetched(tmp_path, Registry(b"not what was pinned"))
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == [".lock"]


def test_a_registry_that_cannot_be_reached_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.devstack.jars._RETRY_SECONDS", 0)
    with pytest.raises(StackError, match=r"no route to host.*HTTPS_PROXY"):
        fetched(tmp_path, Registry(OSError("no route to host")))
