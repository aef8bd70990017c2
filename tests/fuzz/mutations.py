"""What goes wrong on the way: events bent in their values, their JSON, their bytes and their headers."""

from __future__ import annotations

import gzip
import json
import struct
from random import Random
from typing import Any

import zstandard
from aiokafka.record.default_records import DefaultRecordBase
from aiokafka.record.util import calc_crc32c

from schemas.topics import INPUT_TOPICS
from tests.fuzz.samples import TEXTS, TYPES, Document, from_schema, metadata

Headers = list[tuple[str, bytes | None]]

_LENGTH, _ATTRIBUTES, _RECORDS = 8, DefaultRecordBase.ATTRIBUTES_OFFSET, DefaultRecordBase.HEADER_STRUCT.size

NASTY_TEXTS = (
    "", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "a\nb", "\x7f", "\x85", "\u2028", "\ufeff", "\u202e", "x" * 201,
    "x" * 1_025, "é" * 150, "10000-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-03-01T24:00:00Z", "1767225600",
    "9" * 50, "1e400", "NaN", "-0", "0x10", "1_000", "１２３", "19.99", "__class__", "{}", "[]", "../../etc/passwd",
)  # fmt: skip
NASTY_NUMBERS = (
    0, -1, -0.0, 1.0, 1.5, 1e2, 1e308, 1e400, -1e400, float("nan"), 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1,
    10**39, 10**40 - 1, 10**40, -(10**40), 10**308, 10**400, 5e-324, True, False, 2**53 + 1,
)  # fmt: skip
NASTY_NAMES = ("", "\x00", "\ud800", "__proto__", "Data", "ID", "amount ", "amоunt", "x" * 300, "data", "id", "type")
BROKEN_UTF8 = (
    b"\xc3", b"\xe2\x82", b"\xf0\x9f\x92", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xfe\xff",
    b"\x80", b"\xef\xbb\xbf", b"\x00", b"\xf8\x88\x80\x80\x80",
)  # fmt: skip
SPICES = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\\u0000", b"\\ud800", b"\\u12", b"\\x", b"//", b"/**/", b"1e999",
    b"-", b"+1", b"01", b"1.", b".5", b"NaN", b"Infinity", b"-Infinity", b"nul", b"\t", b"\r\n", b"\x0b", b"null",
)  # fmt: skip
MAGICS = (
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"\x82SNAPPY\x00",
    b"PAR1",
    b"Obj\x01",
    b"\x00\x00\x00\x00\x01",
)


# --- values ---------------------------------------------------------------------------------------------------------


def bend(chance: Random, document: Document) -> Document:
    """Change one thing somewhere in an event; the event itself is changed."""
    places = _places(document)
    holder, name = chance.choice(places)
    match chance.randrange(9):
        case 0 | 1:
            holder[name] = nasty_value(chance)
        case 2:
            del holder[name]
        case 3:
            _add(chance, holder)
        case 4:
            holder[name] = chance.choice(([holder[name]], {"a": holder[name]}, str(holder[name]), None))
        case 5:
            other, other_name = chance.choice(places)
            # What stands inside of the other would make a circle.
            if not isinstance(holder[name], dict | list) and not isinstance(other[other_name], dict | list):
                holder[name], other[other_name] = other[other_name], holder[name]
        case 6:
            document["type"] = chance.choice((*TYPES, "payment.captured.v2", "payment", "Payment.Captured.V1", "v1"))
        case 7:
            document["data"] = from_schema(chance, chance.choice(TYPES)).get("data")
        case 8:
            document["data"] = _overgrown(chance, document.get("data"))
    return document


def _places(part: Any) -> list[tuple[Any, Any]]:
    """Every member and item in a document, as its holder and its name there."""
    found: list[tuple[Any, Any]] = []
    waiting = [part]
    while waiting:
        holder = waiting.pop()
        names = list(holder) if isinstance(holder, dict) else range(len(holder))
        found += ((holder, name) for name in names)
        waiting += (holder[name] for name in names if isinstance(holder[name], dict | list))
    return found or [({"": 0}, "")]


def _add(chance: Random, holder: Any) -> None:
    if isinstance(holder, list):
        holder += [nasty_value(chance)] * chance.choice((1, 2, 98, 200))
    else:
        holder[chance.choice((*NASTY_NAMES, *TEXTS))] = nasty_value(chance)


def nasty_value(chance: Random) -> Any:
    """A value that hardly any field expects."""
    match chance.randrange(10):
        case 0 | 1 | 2:
            return chance.choice(NASTY_TEXTS)
        case 3 | 4 | 5:
            return chance.choice(NASTY_NUMBERS)
        case 6:
            return chance.choice(TEXTS)
        case 7:
            return metadata(chance)
        case 8:
            return [chance.choice((*NASTY_NUMBERS, *NASTY_TEXTS)) for _ in range(chance.randrange(4))]
    return _deep(chance.choice((3, 60, 62, 63, 64, 65, 80)), chance.random() < 0.5)


def _deep(levels: int, arrays: bool) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if arrays else {"a": value}
    return value


def _overgrown(chance: Random, data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    match chance.randrange(5):
        case 0:
            return data | {"metadata": {str(number): number for number in range(chance.choice((63, 64, 65, 1_000)))}}
        case 1:
            return data | {"metadata": {"x": "é" * chance.choice((1_023, 1_024, 1_025, 9_000))}}
        case 2:
            return data | {"metadata": {str(number): "x" * 1_000 for number in range(chance.choice((15, 16, 17)))}}
        case 3:
            return data | {"metadata": {"x": _deep(chance.choice((50, 61, 62, 63)), True)}}
    return data | {"metadata": {chance.choice(NASTY_TEXTS): chance.choice(NASTY_NUMBERS)}}


# --- JSON -----------------------------------------------------------------------------------------------------------


def written(chance: Random, document: Any) -> bytes:
    """A document as one of many serializers writes it: the same event, whatever the bytes."""
    if isinstance(document, dict) and chance.random() < 0.3:
        document = _shuffled(chance, document)
    indent = 2 if chance.random() < 0.05 else None
    separators = (",", ":") if chance.random() < 0.6 else (" ,\t", " :\r\n")
    text = json.dumps(document, ensure_ascii=chance.random() < 0.5, indent=indent, separators=separators)
    return text.encode("utf-8", "surrogatepass")


def _shuffled(chance: Random, part: Document) -> Document:
    names = list(part)
    chance.shuffle(names)
    return {name: _shuffled(chance, part[name]) if isinstance(part[name], dict) else part[name] for name in names}


def twice(chance: Random, value: bytes) -> bytes:
    """One of its members stands there twice."""
    begin = value.find(b'"', chance.randrange(max(1, len(value))))
    end = value.find(b":", begin)
    if begin < 0 or end < 0:
        return value
    return value[:begin] + value[begin:end] + b":0," + value[begin:]


# --- bytes ----------------------------------------------------------------------------------------------------------


def garbled(chance: Random, value: bytes) -> bytes:
    """A value damaged as bytes."""
    at = chance.randrange(len(value) + 1)
    match chance.randrange(9):
        case 0:
            return value[:at]
        case 1:
            return value[:at] + chance.choice(SPICES) + value[at:]
        case 2:
            return value[:at] + chance.choice(BROKEN_UTF8) + value[at:]
        case 3:
            return value[:at] + chance.randbytes(chance.randint(1, 4)) + value[at + chance.randint(0, 4) :]
        case 4:
            return value[:at] + value[at + chance.randint(1, 20) :]
        case 5:
            return twice(chance, value)
        case 6:
            return value.replace(chance.choice((b'"', b":", b"0", b"1", b"a")), chance.choice(SPICES), 1)
        case 7:
            return value.decode("utf-8", "replace").encode(chance.choice(("utf-16", "utf-32-le", "utf-8-sig")))
    return chance.choice((value + value, value[at:] + value[:at], b"[" + value + b"]", value + b"\x00", b"\n" + value))


def garbage(chance: Random, value: bytes) -> bytes | None:
    """Something that never was an event, or that somebody has packed."""
    match chance.randrange(8):
        case 0:
            return None
        case 1:
            return chance.randbytes(chance.randrange(200))
        case 2:
            return chance.choice(MAGICS) + chance.randbytes(chance.randrange(100))
        case 3:
            return gzip.compress(value, 1)
        case 4:
            return zstandard.compress(value)
        case 5:
            return chance.choice(
                (b"", b" ", b"null", b"0", b'""', b"[]", b"{}", b"true", b"\xef\xbb\xbf{}", b'{"":{}}')
            )
        case 6:
            return struct.pack(">bI", 0, chance.getrandbits(32)) + value
    return chance.choice((b"[", b'{"a":', b'[{"":', b"\\", b'"')) * chance.choice((10, 100, 5_000))


def huge(chance: Random, value: bytes) -> bytes:
    """A value of a megabyte or more."""
    match chance.randrange(6):
        case 0:
            return value[:-1] + b" " * (1024 * 1024 - len(value) + chance.choice((-1, 0, 1))) + value[-1:]
        case 1:
            return b"[" * chance.choice((100_000, 1_048_577))
        case 2:
            return b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        case 3:
            return value.replace(b":", b":" + b"9" * 1_048_576 + b",", 1)
        case 4:
            return b"{" + b",".join(b'"k%d":%d' % (number, number) for number in range(60_000)) + b"}"
    return value + b"x" * chance.choice((2**20, 2 * 10**6))


# --- headers --------------------------------------------------------------------------------------------------------


def in_binary_mode(chance: Random, document: Document) -> tuple[bytes, Headers]:
    """The same event with its envelope in headers."""
    # A name reaches a parser as UTF-8 or, read by hand, as if it were.
    names = {name: name.encode(errors="replace").decode() for name in document if name != "data"}
    headers: Headers = [("ce_" + name, _header(document[each])) for each, name in names.items()]
    if chance.random() < 0.5:
        headers.append(("content-type", b"application/json"))
    chance.shuffle(headers)
    return written(chance, document.get("data")), headers


def _header(value: Any) -> bytes:
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")


def bent_headers(chance: Random, headers: Headers) -> Headers:
    """One or two of the headers changed."""
    bent = list(headers)
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(bent) + 1)
        name = bent[at][0] if at < len(bent) else "ce_id"
        odd = chance.choice((None, b"", b"\x00", b"a\x00b", chance.choice(BROKEN_UTF8), b"x" * 300, b"1.0"))
        match chance.randrange(6):
            case 0:
                bent[at : at + 1] = [(name, odd)]
            case 1:
                bent.insert(at, (name, odd))
            case 2:
                bent[at : at + 1] = []
            case 3:
                bent[at : at + 1] = [(name.upper(), odd), ("ce-id", b"1"), ("", None)]
            case 4:
                bent += [(f"h{number}", odd) for number in range(chance.choice((1, 50, 300)))]
            case 5:
                bent.append(("content-type", chance.choice((b"application/cloudevents+json", b"text/plain", None))))
    return bent


def noise(chance: Random) -> Headers:
    """Headers that are nobody's business."""
    names = ("traceparent", "reply_to", "correlation_id", "content-type", "ce_", "ce_data", "CE_ID", "", "ünï")
    contents = (None, b"", b"\xff\xfe", b"x", b"application/json", b"\x00" * 16)
    return [(chance.choice(names), chance.choice(contents)) for _ in range(chance.randint(1, 4))]


# --- batches --------------------------------------------------------------------------------------------------------

_CODECS = 5


def broken_batch(chance: Random, batch: bytes) -> bytes:
    """A batch of Kafka's own format, bent behind its checksum, which is made right again; now and then cut."""
    bent = bytearray(batch)
    match chance.randrange(6):
        case 0:
            # As if it were compressed; never as if the broker itself had written it, which no publisher can.
            bent[_ATTRIBUTES + 1] = chance.randrange(_CODECS + 3)
        case 1 | 2:
            at = chance.randrange(_RECORDS, len(bent))
            bent[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
        case 3:
            struct.pack_into(">i", bent, _RECORDS - 4, chance.choice((0, 1, 2, 1_000, 2**31 - 1, -1)))
        case 4:
            struct.pack_into(">i", bent, _ATTRIBUTES + 2, chance.choice((0, 7, 2**31 - 1, -1)))
    struct.pack_into(">i", bent, _LENGTH, len(bent) - _LENGTH - 4)
    if chance.random() < 0.9:
        struct.pack_into(">I", bent, _ATTRIBUTES - 4, calc_crc32c(bytes(bent[_ATTRIBUTES:])))
    return bytes(bent[: chance.randrange(len(bent))]) if chance.random() < 0.05 else bytes(bent)


# --- places ---------------------------------------------------------------------------------------------------------


def elsewhere(chance: Random) -> str:
    """Any input topic."""
    return chance.choice(INPUT_TOPICS)
