"""`make fuzz`: a million records for the parsers; each ends as an event or a dead letter, and memory stays bounded."""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import time
import traceback
from collections.abc import Iterable

import psutil

from tests.fuzz.ends import Ends
from tests.fuzz.records import record

LOOK_RECORDS = 5_000
WARM_SHARE = 0.05
"""Of the records, before memory is measured: caches fill first."""
FAULTS_MAX = 10


def main() -> int:
    """Run; 1 if a record raised or ended wrong, or memory grew beyond the bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32), help="the same seed, the same records")
    parser.add_argument(
        "--only", type=int, metavar="N", help="the record of this number alone, shown before it is read"
    )
    parser.add_argument("--memory-mib", type=float, default=64.0, help="how much memory may grow after the first 5 %%")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if asked.only is not None:
        print(record(asked.seed, asked.only))
        Ends().count(record(asked.seed, asked.only))
        return 0
    print(f"seed {asked.seed}, {asked.records:,} records", flush=True)
    return _run(asked.seed, asked.records, asked.memory_mib)


def _run(seed: int, count: int, memory_mib: float) -> int:
    ends, memory = Ends(), Memory(count)
    begun, faults = time.monotonic(), 0
    for number in range(count):
        if number % LOOK_RECORDS == 0:
            memory.look(number)
            _progress(number, count)
        try:
            ends.count(record(seed, number))
        except Exception:
            faults += 1
            print(f"\nrecord {number} (--seed {seed} --only {number}):\n{traceback.format_exc(limit=-4)}", flush=True)
            if faults == FAULTS_MAX:
                print("that is enough")
                break
    memory.look(count)
    _report(ends, time.monotonic() - begun, memory, faults)
    return 1 if faults or memory.growth_mib > memory_mib else 0


class Memory:
    """How much the resident memory of this process grew, at most, after it was warm."""

    def __init__(self, count: int) -> None:
        self._process = psutil.Process()
        self._warm_at = count * WARM_SHARE
        self._warm: int | None = None
        self.growth_mib = 0.0

    def look(self, number: int) -> None:
        if number < self._warm_at:
            return
        resident = self._process.memory_info().rss
        self._warm = resident if self._warm is None else self._warm
        self.growth_mib = max(self.growth_mib, (resident - self._warm) / 2**20)


def _progress(number: int, count: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{number:,} of {count:,}", end="", file=sys.stderr, flush=True)


def _report(ends: Ends, seconds: float, memory: Memory, faults: int) -> None:
    print(f"\n{ends.records:,} records in {seconds:,.0f} s: {ends.records / seconds:,.0f} a second")
    print(f"{ends.events.total():,} events, {ends.dead_letters.total():,} dead letters, {faults} faults")
    _show("events", ends.events.items())
    _show("dead letters", ends.dead_letters.items())
    print(f"memory grew by {memory.growth_mib:.1f} MiB at most after the first {WARM_SHARE:.0%}")


def _show(title: str, counts: Iterable[tuple[str, int]]) -> None:
    print(f"  {title}: " + ", ".join(f"{name} {count:,}" for name, count in sorted(counts)))


if __name__ == "__main__":
    sys.exit(main())
