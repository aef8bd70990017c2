"""`redrive`: what was refused, waits, or was no event is sent again, and who did so stands in the journal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from consumers.cli import cli
from infra.settings import Settings
from tests.coherence import assert_coherent
from tests.fixtures.ledger import Raw, RunningLedger

Run = Callable[..., Awaitable[Result]]
TENANT = ("--tenant", "acme")
BY = ("--by", "ada")


@pytest.fixture
def run(settings: Settings) -> Run:
    environment = {
        "LEDGER_DATABASE_URL": settings.database_url,
        "LEDGER_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "LEDGER_TOPIC_PREFIX": settings.topic_prefix,
    }

    async def invoke(*arguments: str, stdin: str | None = None) -> Result:
        # In a thread of its own: the ledger goes on meanwhile.
        return await asyncio.to_thread(CliRunner().invoke, cli, arguments, input=stdin, env=environment)

    return invoke


@pytest.fixture
async def books(running_ledger: RunningLedger) -> AsyncIterator[asyncpg.Connection]:
    """The database; in the end it must hold together."""
    connection = await asyncpg.connect(running_ledger.settings.asyncpg_dsn)
    yield connection
    await running_ledger.wait_until_drained()
    await assert_coherent(connection)
    await connection.close()


def payment(ledger: RunningLedger, number: int, **data: Any) -> dict[str, Any]:
    facts = {"payment_id": f"p{number}", "amount": 1_000, "currency": "EUR", "customer_id": "c1"} | data
    return ledger.event("payment.captured.v1", facts)


async def listed(run: Run, what: str, *arguments: str) -> list[dict[str, Any]]:
    result = await run(what, "list", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


async def ends(books: asyncpg.Connection) -> list[tuple[str, str | None]]:
    rows = await books.fetch("SELECT outcome, code FROM events ORDER BY recorded_at, shard, seq")
    return [(row["outcome"], row["code"]) for row in rows]


async def test_a_refused_fact_is_judged_again_as_changed_and_only_once(
    running_ledger: RunningLedger, books: asyncpg.Connection, run: Run
) -> None:
    await running_ledger.publish(payment(running_ledger, 1, currency="EURO"))
    await running_ledger.wait_until_drained()
    (rejection,) = await listed(run, "rejections", *TENANT)
    command = ("rejections", "redrive", rejection["id"], *TENANT, *BY, "--set", "data.currency=EUR", "--json")
    tried = await run(*command, "--dry-run")
    assert json.loads(tried.stdout)["changes"] == [{"path": "data.currency", "before": "EURO", "after": "EUR"}]
    assert json.loads(tried.stdout)["sent"] is False
    sent = await run(*command)
    assert sent.exit_code == 0, sent.output
    await running_ledger.wait_until_drained()
    assert await ends(books) == [("rejected", "unknown_currency"), ("applied", None)]
    row = await books.fetchrow("SELECT source, event_id FROM events WHERE outcome = 'applied'")
    assert (row["source"], row["event_id"]) == ("redrive:ada", json.loads(sent.stdout)["event_id"])
    assert row["event_id"].startswith(f"redrive-{rejection['id']}-")
    again = await run(*command)
    assert again.exit_code == 1 and "was sent before" in again.stderr


async def test_what_took_a_key_for_ever_is_named_and_nothing_is_sent(
    running_ledger: RunningLedger, books: asyncpg.Connection, run: Run
) -> None:
    post = {"postings": [{"account": "a", "amount": amount, "currency": "EUR"} for amount in (5, -5)]}
    refused = running_ledger.event("entry.post.v1", post, idempotencykey="k1")
    first, other = payment(running_ledger, 1), payment(running_ledger, 1, amount=7)
    await running_ledger.publish(first)
    await running_ledger.wait_until_drained()
    await running_ledger.publish(refused, other)
    await running_ledger.wait_until_drained()
    by_code = {each["code"]: each["id"] for each in await listed(run, "rejections", *TENANT)}
    request = await run("rejections", "redrive", by_code["account_not_found"], *TENANT)
    assert request.exit_code == 1 and "give it another: --set idempotencykey" in request.stderr
    conflict = await run("rejections", "redrive", by_code["idempotency_conflict"], *TENANT)
    assert conflict.exit_code == 1 and "taken for ever" in conflict.stderr
    assert len(await ends(books)) == 3
    accounts = ["data.postings.0.account=platform:cash", "data.postings.1.account=customer_balance:c1"]
    changed = [part for each in (*accounts, "idempotencykey=k2") for part in ("--set", each)]
    assert (await run("rejections", "redrive", by_code["account_not_found"], *TENANT, *changed)).exit_code == 0
    await running_ledger.wait_until_drained()
    assert (await ends(books))[-1] == ("applied", None)


async def test_a_parked_event_is_given_up_and_sent_again_changed(
    running_ledger: RunningLedger, books: asyncpg.Connection, run: Run
) -> None:
    refund = {"amount": 10, "currency": "EUR", "customer_id": "c1", "payment_id": "p-never"}
    refunds = [running_ledger.event("refund.succeeded.v1", refund | {"refund_id": f"r{number}"}) for number in (1, 2)]
    await running_ledger.publish(payment(running_ledger, 1), *refunds)
    await running_ledger.wait_until_drained()
    first, second = [each["id"] for each in await listed(run, "parked", *TENANT)]
    told = await run("parked", "redrive", first, *TENANT)
    assert told.exit_code == 2 and "--give-up" in told.stderr
    given_up = await run("parked", "redrive", first, *TENANT, *BY, "--give-up", "--json")
    assert given_up.exit_code == 0, (given_up.output, given_up.exc_info)
    assert json.loads(given_up.stdout)["given_up"] is True
    changed = await run("parked", "redrive", second, *TENANT, *BY, "--give-up", "--set", "data.payment_id=p1")
    assert changed.exit_code == 0, changed.output
    await running_ledger.wait_until_drained()
    assert await listed(run, "parked", *TENANT) == []
    rejections = await listed(run, "rejections", *TENANT)
    assert {(each["code"], each["message"]) for each in rejections} == {("payment_not_found", "given up by ada")}
    assert await books.fetchval("SELECT refund_id FROM entries WHERE kind = 'refund'") == "r2"


async def test_a_dead_letter_goes_back_to_its_topic_with_its_bytes_mended(
    running_ledger: RunningLedger, books: asyncpg.Connection, run: Run, tmp_path: Path
) -> None:
    broken = payment(running_ledger, 1, amount="19.99")
    await running_ledger.publish(broken)
    misplaced = json.dumps(payment(running_ledger, 2)).encode()
    await running_ledger.publish_raw([Raw("refunds", misplaced, b"acme"), Raw("payments", b"\xff", b"acme")])
    await running_ledger.wait_until_drained()
    letters = await listed(run, "dead-letters")
    places = {(each["topic"].rpartition(".")[2], each["code"]): each["id"] for each in letters}
    by_message = {each["id"]: each["message"] for each in letters}
    (amount,) = [each for each, message in by_message.items() if "amount" in message]
    (bytes_only,) = [each["id"] for each in letters if each["code"] == "malformed" and each["id"] != amount]
    asked = ("dead-letters", "redrive")
    as_it_was = await run(*asked, amount)
    assert as_it_was.exit_code == 1 and "would be a dead letter again" in as_it_was.stderr
    assert (await run(*asked, amount, *BY, "--set", "data.amount=1999")).exit_code == 0
    moved = await run(*asked, places["refunds", "wrong_topic"], "--topic", "payments")
    assert moved.exit_code == 0, moved.output
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps(payment(running_ledger, 3)))
    assert (await run(*asked, bytes_only, "--file", str(mended))).exit_code == 0
    await running_ledger.wait_until_drained()
    assert await ends(books) == [("applied", None)] * 3
    trails = [dict(record.headers) for record in await running_ledger.outputs("payments")]
    assert [trail["ledger-redrive-by"] for trail in trails if trail.get("ledger-redrive-of") == amount.encode()] == [
        b"ada"
    ]


async def test_many_are_sent_after_a_question_and_only_those_with_the_code(
    running_ledger: RunningLedger, books: asyncpg.Connection, run: Run
) -> None:
    await running_ledger.publish(
        *(payment(running_ledger, number, currency="EURO") for number in range(3)), payment(running_ledger, 9, amount=0)
    )
    await running_ledger.wait_until_drained()
    command = ("rejections", "redrive", *TENANT, "--all", "--code", "unknown_currency", "--set", "data.currency=EUR")
    assert (await run(*command, stdin="n\n")).exit_code == 1
    assert (
        await run(
            *command,
            stdin="n\n",
        )
    ).stderr.count("3 events: go on?") == 1
    assert (await run("rejections", "redrive", *TENANT)).exit_code == 2
    await running_ledger.wait_until_drained()
    assert len(await ends(books)) == 4
    assert (await run(*command, "--yes")).exit_code == 0
    await running_ledger.wait_until_drained()
    assert sorted(await ends(books), key=str).count(("applied", None)) == 3
