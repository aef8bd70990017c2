"""Named points at which a fault test may kill the process; a no-op everywhere else.

`LEDGERSTREAM_TEST_STOP_AT=relay.sent` kills the process with SIGKILL when it first passes that point,
`relay.sent:3` when it passes it for the third time. Nothing else reads the variable.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "LEDGERSTREAM_TEST_STOP_AT"


class _Fuse:
    """How often the named point may still be passed."""

    def __init__(self, text: str | None) -> None:
        name, _, times = (text or "").partition(":")
        self.name = name or None
        self.passes_left = int(times or "1")


_fuse = _Fuse(os.environ.get(VARIABLE))


def reached(name: str) -> None:
    """Pass the point `name`; die here, without a chance to clean up, if a test asked for it."""
    if _fuse.name != name:
        return
    _fuse.passes_left -= 1
    if _fuse.passes_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
