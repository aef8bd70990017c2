"""Named points of the program, at which a process may be made to freeze, and which it notes as it passes them.

A file `freeze` in the directory $CAMPAIGN_CONTROL holds the name of a point: whoever passes it next takes the file away
and stops there (SIGSTOP). $CAMPAIGN_PASSED names a file that gets a line for each point passed. To be killed at a point
needs nothing from here: infra/faultpoints.py.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

FREEZE, PASSED = "freeze", "CAMPAIGN_PASSED"


def install(control: Path) -> None:
    """To be called before anything imports `reached` by its name."""
    from infra import faultpoints

    switch = control / FREEZE
    file = os.environ.get(PASSED)
    reached = faultpoints.reached

    def reached_and_noted(name: str) -> None:
        reached(name)
        if file is not None:
            with open(file, "a") as lines:  # noqa: PTH123
                lines.write(f"{name}\n")
        if switch.exists() and switch.read_text() == name:
            switch.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)

    faultpoints.reached = reached_and_noted
