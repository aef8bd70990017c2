"""The kinds of value that events are made of: texts, amounts, times. Nothing in here knows a type of event."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
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
LIMIT_CURRENCIES_MAX = 256


class Wire(BaseModel):
    """A part of a message: nothing is coerced, nothing can be changed, and fields that nobody knows are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _WithoutNull:
    """Let a field be left out, but not be null: pydantic's `X | None` would take both."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


def needed_where(flag: str, name: str, *, is_true: bool) -> dict[str, Any]:
    """Say in JSON Schema that a field is required where a flag has this value and was given."""
    condition = {"properties": {flag: {"const": is_true}}, "required": [flag]}
    return {"if": condition, "then": {"required": [name]}}


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
FromZero = Annotated[Integer, Field(description="Minor units, 0 or more. A JSON integer.")]
_INTEGER_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": -INTEGER_MAX, "maximum": INTEGER_MAX}
_CURRENCY_SCHEMA: dict[str, Any] = {"minLength": 1, "maxLength": 64, "pattern": NO_CONTROL_CHARACTERS}
_BY_CURRENCY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "maxProperties": LIMIT_CURRENCIES_MAX,
    "propertyNames": _CURRENCY_SCHEMA,
    "additionalProperties": _INTEGER_SCHEMA,
}


def _name_both_shapes(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError as error:
        shapes = f"an integer nor an object with an integer for each of at most {LIMIT_CURRENCIES_MAX} currencies"
        raise ValueError(f"is neither {shapes}") from error


Limit = Annotated[
    Integer | Annotated[dict[Currency, Integer], Field(max_length=LIMIT_CURRENCIES_MAX)],
    WrapValidator(_name_both_shapes),
    WithJsonSchema({"anyOf": [_INTEGER_SCHEMA, _BY_CURRENCY_SCHEMA]}),
]

# --- times ----------------------------------------------------------------------------------------------------------

# A day more at either end than is read: an offset can bring it back in. The calendar and the clock have the last word.
_YEAR = r"(19(69|[7-9][0-9])|2(0[0-9]{2}|1[0-9]{2}|200))"
_MONTH_AND_DAY = r"-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_HOUR = r"([01][0-9]|2[0-3])"
TIME_PATTERN = rf"^{_YEAR}{_MONTH_AND_DAY}[Tt]{_HOUR}:[0-5][0-9]:[0-5][0-9](\.[0-9]+)?([Zz]|[+-]{_HOUR}:[0-5][0-9])$"
DATE_PATTERN = rf"^(19[7-9][0-9]|2[01][0-9]{{2}}){_MONTH_AND_DAY}$"
_is_time = re.compile(TIME_PATTERN.replace("$", r"\Z")).match
_is_date = re.compile(DATE_PATTERN.replace("$", r"\Z")).match
FIRST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_TIME = datetime(2200, 1, 1, tzinfo=UTC)
LAST_DAY = date(2199, 12, 31)
"""Once it were closed there would be no time at which a fact could be effective."""


def parse_instant(value: object) -> datetime:
    """Read an RFC 3339 time with an offset, 1970 to 2199, as a time in UTC; finer than a microsecond is cut off.

    Raises: ValueError, for everything else: epoch seconds, a space for the T, a leap second, 24:00.
    """
    if not isinstance(value, str) or not _is_time(value):
        raise ValueError("is not an RFC 3339 time with an offset, from 1970 to 2199, like 2026-03-01T09:30:00Z")
    try:
        instant = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("is not on the calendar or the clock") from error
    if not FIRST_INSTANT <= instant < END_OF_TIME:
        raise ValueError("is not between 1970 and 2199")
    return instant


def parse_day(value: object) -> date:
    """Read a date like 2026-03-31, 1970-01-01 to 2199-12-30. Raises: ValueError, for everything else."""
    if not isinstance(value, str) or not _is_date(value):
        raise ValueError("is not a date from 1970-01-01 to 2199-12-30, like 2026-03-31")
    try:
        day = date.fromisoformat(value)
    except ValueError as error:
        raise ValueError("is not on the calendar") from error
    if day == LAST_DAY:
        raise ValueError("is the last day that there is; close the books through 2199-12-30 at most")
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


METADATA_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "The publisher's own: at most 16 KiB of JSON, 64 keys in an object, texts of 1,024 characters.",
    "maxProperties": METADATA_KEYS_MAX,
    "propertyNames": {"maxLength": METADATA_TEXT_MAX, "pattern": NO_NUL},
}
"""What JSON Schema can say of metadata; the generator adds that the values inside are bounded in the same way."""

Metadata = Annotated[dict[str, Any], AfterValidator(check_metadata), WithJsonSchema(METADATA_SCHEMA)]
