"""A small file system of its own for Postgres, so that its disk can be full: a file, mounted."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

_LEFT_BYTES = 0
_SPARSE = "40G"


class Disk:
    """A sparse file with ext4 in it; only root can mount it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._image = place.with_suffix(".img")
        self._filler = place / "filler"
        self.mounted = False

    def mount(self) -> bool:
        """Whether there is one now; where we may not mount, the directory is an ordinary one."""
        self.place.mkdir(parents=True, exist_ok=True)
        if os.geteuid() != 0:
            return False
        try:
            _run("truncate", "-s", _SPARSE, str(self._image))
            _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1", str(self._image))
            _run("mount", "-o", "loop,noatime", str(self._image), str(self.place))
        except (OSError, subprocess.CalledProcessError):
            self._image.unlink(missing_ok=True)
            return False
        self.mounted = True
        return True

    def unmount(self) -> None:
        if self.mounted:
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("umount", "-l", str(self.place))
        self._image.unlink(missing_ok=True)

    def fill(self) -> None:
        """Take all the room there is."""
        free = os.statvfs(self.place)
        _run("fallocate", "-l", str(max(free.f_bavail * free.f_frsize - _LEFT_BYTES - 1_000_000, 1)), str(self._filler))
        # What fallocate rounded down, and then some.
        with contextlib.suppress(OSError), self._filler.open("ab") as filler:
            while True:
                filler.write(bytes(65_536))
                filler.flush()

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
