"""After the verdict: what an operator would run, `verify --deep`, and the journal into an empty database."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace

from infra.settings import Settings
from tests.fixtures.programs import environment_of


async def verified(settings: Settings) -> list[str]:
    """The checks of `ledgerstream verify --deep` that fail."""
    _, said, errors = await _run(settings, "verify", "--deep", "--json")
    if not said:
        return [f"verify said nothing: {errors[-500:]}"]
    checks = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [f"verify: {check['check']}: {check['rows']}, {check['detail']}" for check in checks if not check["ok"]]


async def rebuilt_alike(settings: Settings, into: str) -> list[str]:
    """In what a database differs that was rebuilt from the journal: it must have the same digest."""
    code, said, errors = await _run(settings, "replay", "journal", "--into", into, "--json")
    if code:
        return [f"replay journal ended with {code}: {errors[-500:] or said[-500:]}"]
    ours = await _digest(settings)
    theirs = await _digest(replace(settings, database_url=into))
    if ours and ours == theirs:
        return []
    return [f"the digest is {ours}, and {theirs} of the database rebuilt from the journal"]


async def _digest(settings: Settings) -> str:
    return (await _run(settings, "digest", "--json"))[1].strip()


async def _run(settings: Settings, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "consumers.cli", *arguments,
        env=environment_of(settings), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, errors = await process.communicate()
    return process.returncode or 0, said.decode(), errors.decode()
