"""The README's own examples, run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

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


def _line_for_kcat() -> bytes:
    found = re.search(r"^echo '(.*)' \| kcat .* -t ledger\.payments ", README, re.MULTILINE)
    assert found is not None
    return found[1].encode()


async def _run(ledger: RunningLedger, program: str) -> asyncio.subprocess.Process:
    bootstrap = ledger.settings.need_kafka_bootstrap()
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        # The test's topics have a prefix of their own.
        program.replace('"ledger.', f'"{ledger.settings.topic_prefix}'),
        env=os.environ | {"LEDGER_KAFKA_BOOTSTRAP": bootstrap},
        stdout=asyncio.subprocess.PIPE,
    )


async def test_who_follows_the_readme_finds_what_it_says(running_ledger: RunningLedger) -> None:
    pay = _program("pay.py")
    line = _line_for_kcat()
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
    await running_ledger.publish_raw([Raw("payments", _line_for_kcat(), b"acme")])
    follower = await _run(running_ledger, _program("follow.py"))
    assert follower.stdout is not None
    try:
        async with asyncio.timeout(30):
            seen = {await follower.stdout.readline() for _ in range(2)}
    finally:
        follower.kill()
        await follower.wait()
    assert seen == {b"customer_balance:ada EUR 5000 version 1\n", b"platform:cash EUR 5000 version 1\n"}


def test_every_file_that_the_readme_links_to_is_there() -> None:
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert links
    assert [link for link in links if not (root / link).exists()] == []
