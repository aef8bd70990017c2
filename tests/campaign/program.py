"""`ledgerstream` under the campaign's hands: `python -m tests.campaign.program worker`.

$CAMPAIGN_CONTROL names a directory: `clock` in it holds the seconds by which this process's clock is wrong, `late`
makes an EndTxn of each transaction come again in the middle of the next, `freeze` names a point at which to stop.
$CAMPAIGN_DEFECT plants a defect. $CAMPAIGN_GREEDY makes a relay take every shard whoever has it.
"""

# ruff: noqa: E402

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.campaign import points

CONTROL = Path(os.environ.get("CAMPAIGN_CONTROL", "/nonexistent"))
points.install(CONTROL)

from infra.kafka.relay_lease import RelayLease
from infra.ledger import Ledger
from tests.campaign import defects, late


def wrong_clock() -> datetime:
    try:
        seconds = float((CONTROL / "clock").read_text() or 0)
    except OSError:
        seconds = 0.0
    return datetime.now(UTC) + timedelta(seconds=seconds)


def put_in_a_wrong_clock() -> None:
    begin = Ledger.__init__

    def with_wrong_clock(self: Ledger, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **{"clock": wrong_clock} | named)

    Ledger.__init__ = with_wrong_clock  # type: ignore[method-assign]


def make_greedy() -> None:
    async def take_all(self: RelayLease, _most: int) -> list[int]:
        new = [shard for shard in self._shards if shard not in self.held]
        self.held.update(new)
        return new

    async def share_all(self: RelayLease) -> int:
        return len(self._shards)

    RelayLease.take = take_all  # type: ignore[method-assign]
    RelayLease.share = share_all  # type: ignore[method-assign]


def say_where_on_a_signal() -> None:
    """SIGUSR1: into the log with what each task waits for."""

    def say(*_: object) -> None:
        for task in asyncio.all_tasks():
            task.print_stack()

    signal.signal(signal.SIGUSR1, say)


def main() -> None:
    say_where_on_a_signal()
    put_in_a_wrong_clock()
    late.install(CONTROL / "late")
    if os.environ.get("CAMPAIGN_GREEDY"):
        make_greedy()
    if defect := os.environ.get("CAMPAIGN_DEFECT"):
        defects.plant(defect)
    from consumers.cli import main as ledgerstream

    ledgerstream()


if __name__ == "__main__":
    main()
