"""Named points of the program, at which a process freezes, and which it notes as it passes them.

$CAMPAIGN_FREEZE_AT=relay.epoch stops the process there (SIGSTOP) when it first passes that point, `relay.epoch:3` when
it passes it for the third time. $CAMPAIGN_PASSED names a file that gets a line for each point passed. To be killed at
a point needs nothing from here: infra/faultpoints.py.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

FREEZE, PASSED = "CAMPAIGN_FREEZE_AT", "CAMPAIGN_PASSED"


def install() -> None:
    """To be called before anything imports `reached` by its name."""
    from infra import faultpoints

    name_frozen, _, times = os.environ.get(FREEZE, "").partition(":")
    file = os.environ.get(PASSED)
    passed: Counter[str] = Counter()
    reached = faultpoints.reached

    def reached_and_noted(name: str) -> None:
        reached(name)
        passed[name] += 1
        if file is not None:
            with open(file, "a") as lines:  # noqa: PTH123
                lines.write(f"{name}\n")
        if name == name_frozen and passed[name] == int(times or "1"):
            os.kill(os.getpid(), signal.SIGSTOP)

    faultpoints.reached = reached_and_noted
