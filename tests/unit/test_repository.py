"""What must hold of the files of this repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from maven_artifact import Downloader, Resolver
from pip._internal.models.index import PyPI

_ROOT = Path(__file__).parents[2]
_LOCKS = ("requirements.lock", "requirements-runtime.lock")
_REQUIREMENT = re.compile(r"^[a-z0-9][a-z0-9._-]*(\[[a-z,]+\])?==[^ ]+( ; .+)? \\$")


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=_ROOT, capture_output=True, check=True, text=True).stdout
    return [_ROOT / name for name in listed.split("\0") if name]


def requirements(lock: str) -> list[str]:
    """One string a requirement: its line and the lines of its hashes."""
    lines = [line for line in (_ROOT / lock).read_text().splitlines() if not line.startswith("#")]
    return re.split(r"\n(?! )", "\n".join(lines))


def registry_hosts() -> set[str]:
    """The hosts that pip and the jars' library know, from themselves."""
    addresses = [Downloader().resolver.base, Resolver.default().base, PyPI.url]
    return {host for address in addresses if (host := urlsplit(address).hostname)} | {PyPI.file_storage_domain}


def test_no_file_names_a_registry() -> None:
    """Where packages come from is for whoever installs them to say; a host in a file would bind everybody to it."""
    hosts = registry_hosts()
    assert len(hosts) == 4
    texts = {file: file.read_text(errors="replace") for file in tracked_files() if file.is_file()}
    assert [file for file, text in texts.items() if any(host in text for host in hosts)] == []


@pytest.mark.parametrize("lock", _LOCKS)
def test_each_locked_requirement_has_a_version_and_hashes(lock: str) -> None:
    found = requirements(lock)
    assert len(found) > 20
    assert [
        entry for entry in found if not _REQUIREMENT.match(entry.splitlines()[0]) or "--hash=sha256:" not in entry
    ] == []


@pytest.mark.parametrize("lock", _LOCKS)
def test_a_lock_has_no_addresses(lock: str) -> None:
    assert re.findall(r"^(?:-|.*(?:://|@ )).*", (_ROOT / lock).read_text(), re.MULTILINE) == []


def test_the_image_gets_the_versions_that_were_tested() -> None:
    tested, image = (
        {line.split(" ")[0] for entry in requirements(lock) for line in entry.splitlines()[:1]} for lock in _LOCKS
    )
    assert image < tested


def test_each_target_that_the_readme_may_name_is_in_the_makefile() -> None:
    listed = subprocess.run(["make", "help"], cwd=_ROOT, capture_output=True, check=True, text=True).stdout
    assert {"demo", "test", "bench", "lint", "format", "lock"} <= set(re.findall(r"^make (\w+)", listed, re.MULTILINE))
