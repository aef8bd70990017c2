"""Nothing that a publisher writes stops a partition, and nothing before or after it is lost."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from infra.drained import until_drained
from infra.settings import Settings
from tests.coherence import assert_coherent
from tests.fixtures.programs import running
from tests.fixtures.raw_batches import RawRecord, batch_of, produce_raw
from tests.fixtures.relay import books
from tests.fixtures.subscriber import committed
from tests.fixtures.traffic import outputs, payment

__all__ = ["books"]


def paid(number: int) -> RawRecord:
    return RawRecord(payment(number).value)


ODD = {
    "a header's name is not UTF-8": RawRecord(payment(2).value, headers=[(b"\xfftrace", b"1"), (b"good", b"\xfe")]),
    "a record has attributes": RawRecord(payment(2).value, attributes=0x80),
    "a record has another offset than its place": RawRecord(payment(2).value, offset_delta=400),
    "a header's name has a NUL, its value is null": RawRecord(b"?", headers=[(b"a\0b", None)]),
}
LOST_BEFORE = {
    "a header's name is not UTF-8": [("malformed", 2)],
    "a header's name has a NUL, its value is null": [("malformed", 2)],
}


@pytest.mark.shards(2)
@pytest.mark.parametrize("odd", ODD)
async def test_what_no_parser_expects_ends_once_and_the_rest_goes_on(
    books: asyncpg.Connection, settings: Settings, tmp_path: Path, odd: str
) -> None:
    topic = settings.topic("payments")
    async with running(settings, "run", tmp_path / "log", LEDGER_BATCH_ROWS_MAX="2"):
        for partition in (0, 1):
            assert await produce_raw(settings, topic, partition, batch_of([paid(10 * partition)])) == 0
        assert await produce_raw(settings, topic, 0, batch_of([paid(1), ODD[odd], paid(3)])) == 0
        for number in range(4, 8):
            assert await produce_raw(settings, topic, 0, batch_of([paid(number)])) == 0
        assert await produce_raw(settings, topic, 1, batch_of([paid(11)])) == 0
        await until_drained(settings, seconds_max=90)
    letters = [(row["code"], row["offset"]) for row in await books.fetch('SELECT code, "offset" FROM dead_letters')]
    assert letters == LOST_BEFORE.get(odd, [])
    applied = {row["event_id"] for row in await books.fetch("SELECT event_id FROM events WHERE outcome = 'applied'")}
    expected = {0, 1, 3, 4, 5, 6, 7, 10, 11} | (set() if letters else {2})
    assert applied == {f"pay-{number}" for number in expected}
    await assert_coherent(books, await outputs(settings))
    dead = await committed(settings, "dead-letters")
    assert [record.value for record in dead] == ([ODD[odd].value] if letters else [])
