"""How the events of a batch ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from domain.decide import Decided
from domain.events import Applied, Parked, Rejected
from infra.records import DeadLetter


@dataclass(slots=True)
class BatchResult:
    """How the events of a batch ended. `unstorable` are records that could not be saved: dead letters to be."""

    applied: int = 0
    rejected: int = 0
    parked: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    unstorable: list[DeadLetter] = field(default_factory=list)

    def add(self, other: BatchResult) -> None:
        self.applied += other.applied
        self.rejected += other.rejected
        self.parked += other.parked
        self.duplicates += other.duplicates
        self.dead_letters += other.dead_letters
        self.unstorable += other.unstorable


def count_ends(decided: Decided) -> BatchResult:
    result = BatchResult(duplicates=decided.duplicates)
    for handled in decided.handled:
        match handled.outcome:
            case Applied():
                result.applied += 1
            case Rejected():
                result.rejected += 1
            case Parked():
                result.parked += 1
    return result
