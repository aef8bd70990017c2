"""What a campaign measured: faults by kind, throughput over time, and how much of it is kept under faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

MUCH = 1_000
"""So many records behind, a ledger reads as fast as it can."""
Phase = Literal["before", "faults", "after"]


@dataclass(frozen=True, slots=True)
class Look:
    """What was done between two looks: `behind` is how many records were left to be read at the end of it."""

    at_seconds: float
    seconds: float
    records: int
    outputs: int
    behind: int
    phase: Phase

    @property
    def per_second(self) -> float:
        return self.records / self.seconds


@dataclass(slots=True)
class Figures:
    """Looks in their order, and the faults done."""

    faults: Counter[str] = field(default_factory=Counter)
    looks: list[Look] = field(default_factory=list)
    published: int = 0

    @property
    def without_faults(self) -> float:
        """Records read a second before the faults and after them, from when much was to be read."""
        return _mean([look for begun, look in self._pairs() if look.phase != "faults" and begun >= MUCH])

    @property
    def with_faults(self) -> float:
        """The same under faults, whenever the ledger was behind: where it wasn't, the publisher set the pace."""
        pairs = self._pairs()
        return _mean([look for begun, look in pairs if look.phase == "faults" and max(begun, look.behind) >= MUCH])

    @property
    def all_the_time(self) -> float:
        """Records read a second under faults, behind or not."""
        return _mean([look for look in self.looks if look.phase == "faults"])

    def _pairs(self) -> list[tuple[int, Look]]:
        """Each look with how much was to be read at its beginning."""
        return list(zip([0, *(look.behind for look in self.looks)], self.looks, strict=False))

    @property
    def kept(self) -> float:
        """With faults as a part of without."""
        return self.with_faults / self.without_faults if self.without_faults else 0.0

    def by_minute(self) -> list[tuple[int, float]]:
        """Minutes since the beginning, and records read a second in each."""
        found: dict[int, list[Look]] = {}
        for look in self.looks:
            found.setdefault(int(look.at_seconds // 60), []).append(look)
        return [(minute, _mean(looks)) for minute, looks in sorted(found.items())]

    def as_json(self) -> dict[str, Any]:
        return {
            "published": self.published,
            "faults": dict(sorted(self.faults.items())),
            "faults_total": self.faults.total(),
            "records_per_second": {
                "without_faults": round(self.without_faults),
                "with_faults": round(self.with_faults),
                "with_faults_all_the_time": round(self.all_the_time),
                "kept": round(self.kept, 3),
                "by_minute": [[minute, round(rate)] for minute, rate in self.by_minute()],
            },
        }

    def told(self) -> list[str]:
        """For people."""
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        over_time = " ".join(f"{rate:,.0f}" for _, rate in self.by_minute())
        return [
            f"faults: {self.faults.total()}: {faults}",
            f"records/s by the minute: {over_time}",
            f"throughput: {self.without_faults:,.0f} records/s without faults, {self.with_faults:,.0f} with them "
            "whenever it was behind: "
            f"{self.kept:.0%} kept; {self.all_the_time:,.0f} on average over all of that time",
        ]


def _mean(looks: Sequence[Look]) -> float:
    seconds = sum(look.seconds for look in looks)
    return sum(look.records for look in looks) / seconds if seconds else 0.0
