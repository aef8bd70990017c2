"""Our murmur2 is everybody's murmur2: a key that another client wrote stands where we look for it."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka
from hypothesis import given
from hypothesis import strategies as st

from infra.kafka.partitioner import murmur2, partition_of


@given(st.binary(max_size=200))
def test_hash_is_that_of_aiokafka(key: bytes) -> None:
    assert murmur2(key) == murmur2_of_aiokafka(key)


@given(st.binary(max_size=64), st.integers(1, 1024))
def test_partition_is_that_of_the_default_partitioner(key: bytes, partitions: int) -> None:
    everywhere = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere)


def test_hash_is_that_of_java() -> None:
    # Rows of Kafka's own UtilsTest.testMurmur2, as unsigned numbers.
    rows = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    assert {key: murmur2(key) for key in rows} == {key: value % 2**32 for key, value in rows.items()}
