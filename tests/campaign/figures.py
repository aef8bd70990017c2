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
        """Records read a second before the faults and after them, from when much was to be read; 0 if it never was."""
        return _mean([look for begun, look in self._pairs() if look.phase != "faults" and begun >= MUCH])

    @property
    def with_faults(self) -> float:
        """Records read a second under faults, all of that time."""
        return _mean([look for look in self.looks if look.phase == "faults"])

    @property
    def offered(self) -> float:
        """Records published a second under faults."""
        pairs = [(begun, look) for begun, look in self._pairs() if look.phase == "faults"]
        seconds = sum(look.seconds for _, look in pairs)
        return sum(look.records + look.behind - begun for begun, look in pairs) / seconds if seconds else 0.0

    @property
    def kept(self) -> float:
        """What was read under faults as a part of what would have been without: all that was published, if it could."""
        could = min(self.offered, self.without_faults or self.offered)
        return self.with_faults / could if could else 0.0

    @property
    def behind_most(self) -> int:
        return max((look.behind for look in self.looks if look.phase == "faults"), default=0)

    def _pairs(self) -> list[tuple[int, Look]]:
        """Each look with how much was to be read at its beginning."""
        return list(zip([0, *(look.behind for look in self.looks)], self.looks, strict=False))

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
                "without_faults": round(self.without_faults) or None,
                "with_faults": round(self.with_faults),
                "published_under_faults": round(self.offered),
                "behind_most": self.behind_most,
                "kept": round(self.kept, 3),
                "by_minute": [[minute, round(rate)] for minute, rate in self.by_minute()],
            },
        }

    def told(self) -> list[str]:
        """For people."""
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        over_time = " ".join(f"{rate:,.0f}" for _, rate in self.by_minute())
        calm = self.without_faults
        able = f"{calm:,.0f} records/s without faults" if calm else "without faults there was never much to read"
        return [
            f"faults: {self.faults.total()}: {faults}",
            f"records/s by the minute: {over_time}",
            f"throughput: {able}; with them {self.with_faults:,.0f} records/s of "
            f"the {self.offered:,.0f} that were published: {self.kept:.0%} kept, at most {self.behind_most:,} behind",
        ]


def _mean(looks: Sequence[Look]) -> float:
    seconds = sum(look.seconds for look in looks)
    return sum(look.records for look in looks) / seconds if seconds else 0.0
