"""A stack of either kind: embedded servers or containers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from infra.devstack import containers, embedded
from infra.devstack.places import Progress
from infra.devstack.running import RunningStack, silent

OwnKind = Literal["embedded", "containers"]


def up(data: Path, *, kind: OwnKind = "embedded", progress: Progress = silent) -> RunningStack:
    """The running stack of this directory: what doesn't run is started, and goes on running when we end.

    Raises: StackError, with the way out.
    """
    return containers.up(data, progress=progress) if kind == "containers" else embedded.up(data, progress=progress)


def down(data: Path, *, kind: OwnKind = "embedded", wipe: bool = False) -> None:
    """End what runs in this directory; its data stays, unless wiped. Nothing where there is no stack."""
    containers.down(data, wipe=wipe) if kind == "containers" else embedded.down(data, wipe=wipe)


def status(data: Path, *, kind: OwnKind = "embedded") -> RunningStack | None:
    """The stack of this directory where all of it runs, else None."""
    return containers.status(data) if kind == "containers" else embedded.status(data)
