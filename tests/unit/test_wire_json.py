from __future__ import annotations

import json

import pytest

from schemas.wire import NESTING_MAX, Malformed, read
from tests.unit.wire_samples import PAYMENT, event, malformed, read_data, record

VALUE = record()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b" ",
        b"hello",
        b"null",
        b"[]",
        b"17",
        b'"text"',
        b"{",
        VALUE[:-1],
        VALUE + b"x",
        VALUE + VALUE,
        b"\xef\xbb\xbf" + VALUE,
        VALUE.decode().encode("utf-16"),
        VALUE.replace(b"cus_1", b"\xff\xfe"),
        VALUE.replace(b"cus_1", b"\xc3"),
        VALUE.replace(b"cus_1", b"\xed\xa0\x80"),
        VALUE.replace(b"cus_1", b"\\ud800"),
        VALUE.replace(b"cus_1", b"\\udc00\\ud800"),
        VALUE.replace(b"cus_1", b"\x00"),
        VALUE.replace(b"cus_1", b"\\u0000"),
        VALUE.replace(b"cus_1", b"\\x41"),
        VALUE.replace(b"1234", b"NaN"),
        VALUE.replace(b"1234", b"Infinity"),
        VALUE.replace(b"1234", b"-Infinity"),
        VALUE.replace(b"1234", b"01234"),
        VALUE.replace(b"1234", b"+1234"),
        VALUE.replace(b"1234", b"0x10"),
        VALUE.replace(b"1234", b"1_000"),
        VALUE.replace(b"1234", b"1" * 5000),
        VALUE.replace(b'"EUR"', b"'EUR'"),
        VALUE.replace(b'"amount"', b"amount"),
        VALUE.replace(b"}", b",}"),
    ],
)
def test_what_is_not_json_is_malformed(value: bytes | None) -> None:
    malformed(read(value, (), "payments"))


@pytest.mark.parametrize(
    "twice",
    [
        VALUE.replace(b'"id"', b'"id": "evt-0", "id"'),
        VALUE.replace(b'"amount"', b'"amount": 1234, "amount"'),
        VALUE.replace(b'"amount"', b'"\\u0061mount": 1234, "amount"'),
        VALUE.replace(b'"amount"', b'"metadata": {"a": [{"b": 1, "b": 1}]}, "amount"'),
        VALUE.replace(b'"id"', b'"extension": {"a": 1, "a": 2}, "id"'),
    ],
)
def test_a_key_twice_in_any_object_is_malformed(twice: bytes) -> None:
    assert "duplicate key" in malformed(read(twice, (), "payments"))


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return record(extension="HERE").replace(b'"HERE"', opening * levels + closing * levels)


def test_sixty_four_levels_are_read_and_one_more_is_malformed() -> None:
    event(read(nested(NESTING_MAX - 1), (), "payments"))
    assert "inside each other" in malformed(read(nested(NESTING_MAX), (), "payments"))


def test_many_objects_beside_each_other_are_not_deep() -> None:
    event(read_data(PAYMENT | {"metadata": {"list": [{}] * 500}}))


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]"), (b"[", b"")])
def test_ten_thousand_levels_are_malformed_and_nothing_more(opening: bytes, closing: bytes) -> None:
    malformed(read(nested(10_000, opening, closing), (), "payments"))
    malformed(read(opening * 10_000, (), "payments"))


@pytest.mark.parametrize("where", ["payment_id", "customer_id", "currency", "provider", "description", "cash_account"])
def test_nul_is_malformed_in_every_text(where: str) -> None:
    assert "U+0000" in malformed(read_data(PAYMENT | {where: "a\x00b"}))


@pytest.mark.parametrize(
    "metadata", [{"a": "\x00"}, {"\x00": 1}, {"a": ["\x00"]}, {"a": [{"b": {"\x00": 1}}]}, {"a": {"b": "x\x00"}}]
)
def test_nul_is_malformed_anywhere_in_metadata(metadata: dict[str, object]) -> None:
    assert "U+0000" in malformed(read_data(PAYMENT | {"metadata": metadata}))


def test_nul_is_malformed_as_an_attribute_too() -> None:
    assert "U+0000" in malformed(read(record(id="a\x00"), (), "payments"))
    assert "U+0000" in malformed(read(record(extension="a\x00"), (), "payments"))


def test_a_written_out_escape_is_no_nul() -> None:
    assert event(read_data(PAYMENT | {"description": "\\u0000"})).data.description == "\\u0000"  # type: ignore[attr-defined]


def test_a_pair_of_surrogates_is_one_character() -> None:
    value = VALUE.replace(b"cus_1", b"\\ud83d\\ude00")
    assert json.loads(event(read(value, (), "payments")).data_json)["customer_id"] == "😀"


def test_a_message_is_one_short_printable_line() -> None:
    hostile = [
        VALUE.replace(b'"amount"', b'"' + b"k" * 100_000 + b'": 1, "amount"'),
        VALUE.replace(b'"amount"', '"\n\x7f\u202e\u2028": 1, "amount"'.encode().replace(b"\n", b"\\n")),
        record("a\n\x1b[31m\u202e".replace("\n", "")),
        record("\ue000" * 150),
        VALUE.replace(b'"amount"', b'"x\\ny": 1, "x\\ny": 2, "amount"'),
    ]
    for value in hostile:
        result = read(value, (), "payments")
        assert isinstance(result, Malformed)
        assert 0 < len(result.message) <= 500
        assert result.message.isprintable()
