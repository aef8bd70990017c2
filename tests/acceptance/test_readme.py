"""The README's own examples, run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from consumers.cli import cli
from infra.postgres import queries
from infra.postgres.reading import reading
from schemas.wire import WireEvent, read
from tests.fixtures.ledger import Raw, RunningLedger

README = (Path(__file__).parents[2] / "README.md").read_text()


def _program(name: str) -> str:
    """The file that the README has its reader write."""
    found = re.search(rf"cat > {name} <<'END'\n(.*?)END\n", README, re.DOTALL)
    assert found is not None
    return found[1]


def _line_for_kcat(topic: str) -> bytes:
    """What the README has the shell pipe into kcat for this topic (short name)."""
    found = re.search(rf"^(echo '.*') \| kcat .* -t ledger\.{topic} ", README, re.MULTILINE)
    assert found is not None
    return subprocess.run(["sh", "-c", found[1]], capture_output=True, check=True).stdout.rstrip(b"\n")


async def _run(ledger: RunningLedger, program: str, *arguments: str) -> asyncio.subprocess.Process:
    bootstrap = ledger.settings.need_kafka_bootstrap()
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        # The test's topics have a prefix of their own.
        program.replace('"ledger.', f'"{ledger.settings.topic_prefix}'),
        *arguments,
        env=os.environ | {"LEDGER_KAFKA_BOOTSTRAP": bootstrap},
        stdout=asyncio.subprocess.PIPE,
    )


async def test_who_follows_the_readme_finds_what_it_says(running_ledger: RunningLedger) -> None:
    pay = _program("pay.py")
    line = _line_for_kcat("payments")
    assert isinstance(read(line, (), "payments"), WireEvent)
    # Again under another id, and with another amount: as the README's sed commands have it.
    for program in (pay, pay, pay.replace("evt-1", "evt-3"), pay.replace("evt-1", "evt-4").replace("1234", "9999")):
        assert await (await _run(running_ledger, program)).wait() == 0
    await running_ledger.publish_raw([Raw("payments", line, b"acme")])
    await running_ledger.wait_until_drained()

    async with reading(running_ledger.settings) as books:
        (balance,) = await queries.balance(books, "acme", "customer_balance:ada")
        assert balance["available"] == 62_00
        assert [each["code"] async for each in queries.list_rejections(books, "acme")] == ["idempotency_conflict"]
    (outcome,) = await running_ledger.said("outcomes")
    assert outcome["data"]["differs"] == ["amount"]


async def test_the_readmes_subscriber_sees_each_change_of_a_balance(running_ledger: RunningLedger) -> None:
    await running_ledger.publish_raw([Raw("payments", _line_for_kcat("payments"), b"acme")])
    follower = await _run(running_ledger, _program("follow.py"))
    assert follower.stdout is not None
    try:
        async with asyncio.timeout(30):
            seen = {await follower.stdout.readline() for _ in range(2)}
    finally:
        follower.kill()
        await follower.wait()
    assert seen == {b"customer_balance:ada EUR 5000 version 1\n", b"platform:cash EUR 5000 version 1\n"}


async def test_who_follows_a_card_through_the_readme_gets_the_decisions_that_it_says(
    running_ledger: RunningLedger,
) -> None:
    commands = [line.encode() for line in _program("card.jsonl").splitlines()]
    assert all(isinstance(read(line, (), "commands"), WireEvent) for line in commands)
    await running_ledger.publish_raw([Raw("commands", line, b"acme") for line in commands])
    await running_ledger.wait_until_drained()

    assert re.findall(r"^python ask\.py (\S+) (\d+)$", README, re.MULTILINE) == [("auth-1", "8000"), ("auth-2", "8000")]
    answers = []
    for name in ("auth-1", "auth-2"):
        asking = await _run(running_ledger, _program("ask.py"), name, "8000")
        async with asyncio.timeout(60):
            answers.append((await asking.communicate())[0].decode().strip())
    left = "[{'id': 'ada-meals', 'available': 2000}]"
    assert answers == [f"approved 8000 [] {left}", f"declined 0 ['insufficient_credits'] {left}"]

    await running_ledger.publish_raw([Raw("authorizations", _line_for_kcat("authorizations"), b"acme")])
    await running_ledger.wait_until_drained()
    shown = await asyncio.to_thread(_shown_by_the_commands_of_the_card, running_ledger)
    assert "approved by ledger, 20.00 EUR of 80.00 EUR" in shown["authorization"]
    assert "100.00 EUR" in shown["line"]
    assert "0.00 EUR" in shown["line"]
    assert "declined (insufficient_credits)" in shown["explain"]
    assert set(shown) == {"categories", "lines", "cards", "authorization", "line", "explain"}


def _shown_by_the_commands_of_the_card(ledger: RunningLedger) -> dict[str, str]:
    section = README.split("## A card, in two minutes")[1].split("\n## ")[0]
    environment = {"LEDGER_DATABASE_URL": ledger.settings.need_database_url(), "COLUMNS": "100"}
    shown = {}
    for line in re.findall(r"^ledgerstream (.* --tenant acme.*)$", section, re.MULTILINE):
        result = CliRunner().invoke(cli, line.split(), env=environment)
        assert result.exit_code == 0, (line, result.output)
        shown[line.split()[0]] = result.stdout
    return shown


def test_every_file_that_the_readme_links_to_is_there() -> None:
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert links
    assert [link for link in links if not (root / link).exists()] == []
