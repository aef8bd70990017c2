"""What is checked in under docs/ is what the models say, and says it in a way that others understand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given, settings

from consumers.cli_schemas import VERSION, asyncapi, schemas
from domain.rejections import RejectionCode
from schemas.asyncapi import asyncapi as asyncapi_document
from schemas.documents import documents
from schemas.envelope import CONTENT_TYPE
from schemas.examples import example, example_headers
from schemas.json_schemas import DEFS, message_parts, message_schema, message_types
from schemas.reference import MARKER, reference
from schemas.registry import EVENT_TYPES, OUTPUT_TYPES
from schemas.rejections import REJECTION_CODES
from schemas.topics import INPUT_TOPICS, OUTPUT_TOPICS, TOPICS
from schemas.wire import WireEvent, read, read_output
from tests.unit.test_wire_fuzz import nearly_right
from tests.unit.wire_samples import LEAST, PAYMENT, read_data, topic_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = documents(version=VERSION)
WAY_OUT = 'run "ledgerstream schemas --out docs"'


def validator(event_type: str) -> Any:
    schema = message_schema(event_type)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


VALIDATORS = {event_type: validator(event_type) for event_type in message_types()}

# --- current --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS)
def test_each_made_file_is_current(path: str) -> None:
    assert (DOCS / path).read_text(encoding="utf-8") == DOCUMENTS[path], WAY_OUT


def test_no_made_file_is_left_from_a_type_that_is_gone() -> None:
    there = {str(path.relative_to(DOCS)) for folder in ("schemas", "examples") for path in (DOCS / folder).iterdir()}
    assert there | {"asyncapi.json"} == DOCUMENTS.keys()


def test_the_reference_in_the_page_is_current() -> None:
    page = (DOCS / "events.md").read_text(encoding="utf-8")
    assert page.endswith(reference()), WAY_OUT
    assert page.count(MARKER) == 1


# --- AsyncAPI -------------------------------------------------------------------------------------------------------


def asyncapi_faults(document: dict[str, Any]) -> list[str]:
    official = json.loads((ROOT / "tests/data/asyncapi-3.0.0.schema.json").read_text(encoding="utf-8"))
    return [fault.json_path for fault in jsonschema.Draft7Validator(official).iter_errors(document)]


def test_the_asyncapi_document_is_one_by_the_official_schema() -> None:
    assert asyncapi_faults(json.loads((DOCS / "asyncapi.json").read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "break_it",
    [
        lambda document: document["channels"]["payments"].update(messages=["payment.captured.v1"]),
        lambda document: document["operations"]["receive-payments"].update(action="listen"),
        lambda document: document["components"]["schemas"]["PaymentCapturedV1"].update(type="objekt"),
        lambda document: document.pop("info"),
    ],
)
def test_the_official_schema_finds_faults(break_it: Any) -> None:
    document = json.loads((DOCS / "asyncapi.json").read_text(encoding="utf-8"))
    break_it(document)
    assert asyncapi_faults(document) != []


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi_document(version="1")
    waiting: list[Any] = [document]
    found = 0
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict) and "$ref" in part:
            place: Any = document
            for step in part["$ref"].removeprefix("#/").split("/"):
                place = place[step]
            found += 1
        waiting.extend(part.values() if isinstance(part, dict) else part if isinstance(part, list) else ())
    assert found > 100


def test_every_type_is_on_its_channel() -> None:
    channels = asyncapi_document(version="1", prefix="bank.")["channels"]
    assert channels["payments"]["address"] == "bank.payments"
    on_channels = {name for channel in channels.values() for name in channel["messages"]}
    assert on_channels == {*EVENT_TYPES, *OUTPUT_TYPES, "dead.letter"}
    assert "dead.letter" in channels["dead-letters"]["messages"]


# --- the schemas are true -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event_type", message_types())
def test_each_example_is_right_by_its_schema_and_by_its_model(event_type: str) -> None:
    VALIDATORS[event_type].validate(example(event_type))
    value = json.dumps(example(event_type)).encode()
    if event_type in OUTPUT_TYPES:
        assert read_output(value)[0].type == event_type
        assert example_headers(event_type)["content-type"] == CONTENT_TYPE
    else:
        assert isinstance(read(value, (), topic_of(event_type)), WireEvent)


@pytest.mark.parametrize("event_type", message_types())
def test_a_schema_refuses_a_missing_field_or_another_type(event_type: str) -> None:
    right = example(event_type)
    assert not VALIDATORS[event_type].is_valid(right | {"type": "other.v1"})
    for attribute in ("id", "source", "time", "specversion", "data"):
        assert not VALIDATORS[event_type].is_valid({name: right[name] for name in right if name != attribute})
    for name in LEAST.get(event_type, {}):
        data = {field: value for field, value in right["data"].items() if field != name}
        assert not VALIDATORS[event_type].is_valid(right | {"data": data})


def test_a_subscriber_is_not_broken_by_a_new_field() -> None:
    for event_type in OUTPUT_TYPES:
        right = example(event_type)
        VALIDATORS[event_type].validate(right | {"new": 1, "data": right["data"] | {"new": 1}})


@settings(max_examples=400, deadline=None)
@given(nearly_right())
def test_what_is_read_is_right_by_its_schema(near: tuple[bytes, str]) -> None:
    result = read(near[0], (), near[1])
    if isinstance(result, WireEvent):
        VALIDATORS[result.type].validate(json.loads(near[0]))


REFUSED: list[tuple[str, dict[str, Any]]] = [
    *(("payment.captured.v1", {"amount": bad}) for bad in (1.5, "100", True, None, 10**40, -(10**40), [1])),
    *(("payment.captured.v1", {"payment_id": bad}) for bad in ("", "x" * 201, "a\tb", "a\x85", 1, None)),
    *(("payment.captured.v1", {"cash_account": bad}) for bad in ("", "x" * 256, "a\nb", None)),
    *(("payment.captured.v1", {"currency": bad}) for bad in ("", "x" * 65, 1)),
    *(("payment.captured.v1", {"description": bad}) for bad in ("x" * 1025, "a\x00b", 1)),
    ("payment.captured.v1", {"unknown": 1}),
    ("payment.captured.v1", {"metadata": {str(n): 1 for n in range(65)}}),
    ("payment.captured.v1", {"metadata": {"a": [{str(n): 1 for n in range(65)}]}}),
    ("payment.captured.v1", {"metadata": {"a": ["x" * 1025]}}),
    ("payment.captured.v1", {"metadata": {"x" * 1025: 1}}),
    ("payment.captured.v1", {"metadata": {"a": {"b\x00": 1}}}),
    ("payment.captured.v1", {"metadata": []}),
    ("dispute.lost.v1", {"charge_to": "nobody"}),
    ("account.create.v1", {"type": "debt"}),
    ("account.create.v1", {"floor": "5"}),
    ("account.create.v1", {"ceiling": [5]}),
    ("account.create.v1", {"floor": {"EUR": 1.5}}),
    ("account.create.v1", {"floor": {"E\nR": 1}}),
    ("account.update.v1", {"status": "closed"}),
    ("account.update.v1", {"metadata": None}),
    ("entry.post.v1", {"postings": [{"account": "a", "amount": 1, "currency": "EUR"}] * 101}),
    ("entry.post.v1", {"postings": [{"account": "a", "amount": 1}]}),
    ("entry.post.v1", {"postings": [{"account": "a", "amount": 1, "currency": "EUR", "expect_version": -1}]}),
    *(("entry.post.v1", {"effective_at": bad}) for bad in ("2026-01-01", "1704067200", 1, "2026-01-01T24:00:00Z")),
    *(("entry.post.v1", {"effective_at": bad}) for bad in ("2300-01-01T00:00:00Z", "2026-01-01T00:00:60Z")),
    *(("period.close.v1", {"through": bad}) for bad in ("2026-13-01", "2026-1-1", "1969-12-31", 1)),
    ("hold.captured.v1", {"final": False}),
    ("authorization.captured.v1", {"force_post": True}),
    ("authorization.requested.v1", {"merchant": {"merchant_id": "m"}}),
    ("authorization.requested.v1", {"resolution": {}}),
    ("expense_category.create.v1", {"match": [{"mccs": []}]}),
    ("expense_category.create.v1", {"match": [{"mccs": ["58"]}]}),
    ("card.assign.v1", {"owner_ref": "42"}),
    *(("tenant.create.v1", {"shard": bad}) for bad in (-1, 32768, "1")),
]


@pytest.mark.parametrize(("event_type", "change"), REFUSED)
def test_what_is_malformed_is_wrong_by_its_schema_too(event_type: str, change: dict[str, Any]) -> None:
    data = LEAST[event_type] | change
    assert not isinstance(read_data(data, event_type), WireEvent)
    assert not VALIDATORS[event_type].is_valid(example(event_type) | {"data": data})


@pytest.mark.parametrize("event_type", [name for name, known in EVENT_TYPES.items() if known.needs_key])
def test_a_schema_says_which_types_need_a_key(event_type: str) -> None:
    right = example(event_type)
    assert not VALIDATORS[event_type].is_valid({name: right[name] for name in right if name != "idempotencykey"})
    assert not VALIDATORS[event_type].is_valid(right | {"idempotencykey": None})


COUNTERS = frozenset(
    {
        "expect_version",
        "version",
        "shard",
        "epoch",
        "seq",
        "seq_first",
        "seq_last",
        "count",
        "counts",
        "partition",
        "offset",
    }
)


@pytest.mark.parametrize("event_type", message_types())
def test_every_amount_says_in_which_units_it_is(event_type: str) -> None:
    _, definitions = message_parts(event_type, DEFS)
    fields = {name: field for each in definitions.values() for name, field in each.get("properties", {}).items()}
    amounts = {name for name, field in fields.items() if "'integer'" in str(field)} - COUNTERS
    assert {name for name in amounts if "inor units" not in fields[name].get("description", "")} == set()


# --- lists that stand twice -----------------------------------------------------------------------------------------


def test_the_codes_on_the_wire_are_the_codes_of_the_domain() -> None:
    assert set(REJECTION_CODES) == {code.value for code in RejectionCode}
    assert len(REJECTION_CODES) == len(set(REJECTION_CODES))


def test_every_type_has_a_topic_that_goes_its_way() -> None:
    assert {known.topic for known in EVENT_TYPES.values()} <= set(INPUT_TOPICS)
    assert {output.topic for output in OUTPUT_TYPES.values()} <= set(OUTPUT_TOPICS)


def test_topics_are_made_so_that_nothing_can_be_lost_on_them() -> None:
    for name in INPUT_TOPICS:
        assert TOPICS[name].config["compression.type"] == "uncompressed"
        assert TOPICS[name].max_message_bytes == 2 * 1024 * 1024
    assert TOPICS["dead-letters"].max_message_bytes > TOPICS["payments"].max_message_bytes
    assert TOPICS["balances"].config["cleanup.policy"] == "compact"
    assert TOPICS["seals"].config["retention.ms"] == TOPICS["seals"].config["retention.bytes"] == "-1"


# --- the page -------------------------------------------------------------------------------------------------------


def audit_of_the_page() -> Any:
    page = (DOCS / "events.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    return names["audit"]


def seal(first: int, last: int, shard: int = 0, **counts: int) -> dict[str, Any]:
    return {
        "epoch": 1,
        "shard": shard,
        "seq_first": first,
        "seq_last": last,
        "counts": {f"ledger.{k}": n for k, n in counts.items()},
    }


def test_the_audit_of_the_page_is_silent_about_a_whole_topic_and_finds_what_is_wrong() -> None:
    audit = audit_of_the_page()
    seals = [seal(1, 3, entries=2, balances=1), seal(1, 1, shard=1, entries=1), seal(4, 5, balances=2)]
    whole = [(1, 0, 1), (1, 0, 3), (1, 1, 1)]
    assert list(audit("ledger.entries", seals, whole)) == []
    assert len(list(audit("ledger.entries", seals, whole[1:]))) == 1
    assert len(list(audit("ledger.entries", seals, [*whole, whole[0]]))) == 1
    assert len(list(audit("ledger.entries", seals, [*whole, (1, 0, 4)]))) == 1
    assert list(audit("ledger.entries", [seals[0], seal(5, 5)], whole[:2])) == [
        "shard 0: a seal from 4 to 4 is missing"
    ]


# --- the commands ---------------------------------------------------------------------------------------------------


def test_the_commands_print_and_write_the_documents(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert json.loads(run(asyncapi).stdout)["asyncapi"] == "3.0.0"
    assert json.loads(run(schemas, ["payment.captured.v1"]).stdout) == message_schema("payment.captured.v1")
    listed = [json.loads(line)["type"] for line in run(schemas, ["--json"]).stdout.splitlines()]
    assert listed == message_types()
    assert all(name in run(schemas).stdout for name in message_types())
    assert run(schemas, ["--out", str(tmp_path)]).exit_code == 0
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json")} == DOCUMENTS.keys()


def test_writing_the_documents_leaves_what_people_wrote(tmp_path: Path) -> None:
    page = tmp_path / "events.md"
    page.write_text(f"By hand\n\n{MARKER}\nstale", encoding="utf-8")
    CliRunner().invoke(schemas, ["--out", str(tmp_path)])
    assert page.read_text(encoding="utf-8") == f"By hand\n\n{reference()}"


def test_an_unknown_type_is_named_with_the_way_out() -> None:
    result = CliRunner().invoke(schemas, ["payment.v9"])
    assert result.exit_code == 1
    assert "payment.v9" in result.stderr
    assert "lists them" in result.stderr


def test_the_samples_of_the_tests_cover_every_type() -> None:
    assert LEAST.keys() == EVENT_TYPES.keys()
    assert LEAST["payment.captured.v1"] is PAYMENT
