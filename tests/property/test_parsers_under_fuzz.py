"""A short run of `make fuzz`: no record raises, and each ends as an event or as a dead letter."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.fixtures.raw_batches import RawRecord, batch_of
from tests.fuzz.ends import Ends
from tests.fuzz.records import RawBatch, record
from tests.fuzz.samples import TYPES

SEED, RECORDS = 20_260_302, 4_000


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
def test_every_record_ends_as_an_event_or_a_dead_letter() -> None:
    ends = Ends()
    for number in range(RECORDS):
        try:
            ends.count(record(SEED, number))
        except Exception as fault:
            pytest.fail(f"python -m tests.fuzz --seed {SEED} --only {number}: {fault!r}")
    assert set(ends.events) == set(TYPES), "a type of which nothing valid was made is not tried at all"
    assert {"malformed", "unknown_type", "wrong_topic", "too_large"} <= set(ends.dead_letters)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", [b"a\x00\xff", b"\x1b[2J\xff", b"\xff" * 1_000])
def test_a_header_name_that_is_no_text_makes_a_dead_letter_that_can_be_stored(name: bytes) -> None:
    ends = Ends()
    ends.count(RawBatch("payments", batch_of([RawRecord(b"{}", headers=[(name, None)])])))
    assert ends.dead_letters == {"malformed": 1}
