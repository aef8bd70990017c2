"""How many events may become dead letters because this program fails on them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from infra.postgres.errors import UndecidableError


class DefectBudget:
    """How many events a minute may become dead letters because of a defect of ours.

    One event that we failed to foresee must not stop its partition for ever; a bad release, which fails on every
    event, must not empty the topics into dead letters either: after so many it waits, and says so.
    """

    def __init__(self, per_minute: int = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._spent: deque[float] = deque()

    def spend(self, defect: UndecidableError) -> None:
        """Take one from the budget. Raises: RuntimeError when there is none left, which is no event's fault."""
        now = self._clock()
        while self._spent and now - self._spent[0] >= 60:
            self._spent.popleft()
        if len(self._spent) >= self._per_minute:
            raise RuntimeError(
                f"this program fails on one event after another ({defect}); it waits instead of making dead letters "
                "of them all: mend it, or go back to the release before"
            ) from defect
        self._spent.append(now)
