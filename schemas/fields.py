"""The kinds of value that events are made of: texts, amounts, times. Nothing in here knows a type of event."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema

from schemas import canonical

NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]+$"
NO_NUL = r"^[^\x00]*$"
INTEGER_MAX = 10**40 - 1
"""The largest integer that is read at all. What is over a bigint is refused by the domain, with a code of its own."""
METADATA_BYTES_MAX = 16 * 1024
METADATA_KEYS_MAX = 64
METADATA_TEXT_MAX = 1024
POSTINGS_MAX = 100
BIGINT_MAX = 2**63 - 1


class Wire(BaseModel):
    """A part of a message: nothing is coerced, nothing can be changed, and fields that nobody knows are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _WithoutNull:
    """Let a field be left out, but not be null: pydantic's `X | None` would take both."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


T = TypeVar("T")
Maybe = Annotated[T | None, _WithoutNull()]
"""A field that may be left out. Null is refused, so that nobody has to guess what it meant."""


# --- text -----------------------------------------------------------------------------------------------------------

Id = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_CONTROL_CHARACTERS)]
AccountName = Annotated[str, Field(min_length=1, max_length=255, pattern=NO_CONTROL_CHARACTERS)]
Currency = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=NO_CONTROL_CHARACTERS,
        description="The code of a unit: ISO 4217, a common crypto-currency, or a unit of the tenant's own. "
        "One that isn't known is rejected `unknown_currency`.",
    ),
]
Description = Annotated[str, Field(max_length=1024, pattern=NO_NUL, description="Free text for people.")]
TenantId = Annotated[
    str,
    Field(
        min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$", description="The legal entity whose books these are."
    ),
]

# --- amounts --------------------------------------------------------------------------------------------------------

Integer = Annotated[int, Field(ge=-INTEGER_MAX, le=INTEGER_MAX)]
Amount = Annotated[
    Integer,
    Field(
        description="Minor units of `currency`: 1234 with EUR is €12.34, 500 with JPY is ¥500. A JSON integer; below 1 "
        "it is rejected `invalid_amount`, above 2^63−1 `amount_out_of_range`."
    ),
]
SignedAmount = Annotated[
    Integer, Field(description="Minor units of `currency`, debit positive, credit negative, not 0. A JSON integer.")
]
Fees = Annotated[Integer, Field(description="Minor units of `currency`, 0 or more.")]
Limit = Annotated[
    Integer | dict[Currency, Integer],
    Field(
        description="Natural amounts in minor units: an object with one for each currency, or, where the account has a "
        "`currency`, a plain integer."
    ),
]

# --- times ----------------------------------------------------------------------------------------------------------

TIME_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
DATE_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_is_time = re.compile(TIME_PATTERN.replace("$", r"\Z")).match
_is_date = re.compile(DATE_PATTERN.replace("$", r"\Z")).match
FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_TIME = datetime(2200, 1, 1, tzinfo=UTC)


def parse_instant(value: object) -> datetime:
    """Read an RFC 3339 time with an offset, 1970 to 2199, as a time in UTC; finer than a microsecond is cut off.

    Raises: ValueError, for everything else: epoch seconds, a space for the T, a leap second, 24:00.
    """
    if not isinstance(value, str) or not _is_time(value):
        raise ValueError("is not an RFC 3339 time with an offset, like 2026-03-01T09:30:00Z")
    try:
        instant = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("is not on the calendar or the clock") from error
    if not FIRST_INSTANT <= instant < END_OF_TIME:
        raise ValueError("is not between 1970 and 2199")
    return instant


def parse_day(value: object) -> date:
    """Read a date like 2026-03-31, 1970 to 2199. Raises: ValueError, for everything else."""
    if not isinstance(value, str) or not _is_date(value):
        raise ValueError("is not a date like 2026-03-31")
    try:
        day = date.fromisoformat(value)
    except ValueError as error:
        raise ValueError("is not on the calendar") from error
    if not 1970 <= day.year <= 2199:
        raise ValueError("is not between 1970 and 2199")
    return day


Instant = Annotated[
    datetime,
    BeforeValidator(parse_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": TIME_PATTERN}),
]
Day = Annotated[
    date, BeforeValidator(parse_day), WithJsonSchema({"type": "string", "format": "date", "pattern": DATE_PATTERN})
]

# --- metadata -------------------------------------------------------------------------------------------------------


def check_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Give back the publisher's own object if it is within the bounds of the contract. Raises: ValueError."""
    waiting: list[Any] = [metadata]
    while waiting:
        value = waiting.pop()
        match value:
            case dict():
                if len(value) > METADATA_KEYS_MAX:
                    raise ValueError(f"has an object with more than {METADATA_KEYS_MAX} keys")
                waiting.extend(value)
                waiting.extend(value.values())
            case list():
                waiting.extend(value)
            case str():
                _check_text(value)
            case int() | float():
                _check_finite(value)
    if len(canonical.dump(metadata)) > METADATA_BYTES_MAX:
        raise ValueError(f"is larger than {METADATA_BYTES_MAX} bytes")
    return metadata


def _check_text(text: str) -> None:
    if len(text) > METADATA_TEXT_MAX:
        raise ValueError(f"has a text of more than {METADATA_TEXT_MAX} characters")
    if "\x00" in text:
        raise ValueError("has a text with U+0000")


def _check_finite(number: float) -> None:
    """A number that a double can't hold is 1e400, also where it is written out as an integer."""
    try:
        finite = math.isfinite(number)
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError("has a number that is not finite")


_METADATA_VALUE: dict[str, Any] = {
    "anyOf": [
        {"type": ["number", "boolean", "null"]},
        {"type": "string", "maxLength": METADATA_TEXT_MAX, "pattern": NO_NUL},
        {"type": "array"},
        {"type": "object", "maxProperties": METADATA_KEYS_MAX},
    ]
}
Metadata = Annotated[
    dict[str, Any],
    AfterValidator(check_metadata),
    WithJsonSchema(
        {
            "type": "object",
            "description": "The publisher's own: at most 16 KiB of JSON, 64 keys, texts of 1,024 characters.",
            "maxProperties": METADATA_KEYS_MAX,
            "propertyNames": {"maxLength": METADATA_TEXT_MAX, "pattern": NO_NUL},
            "additionalProperties": _METADATA_VALUE,
        }
    ),
]
