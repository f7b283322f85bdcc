"""Read shards that lie elsewhere (http, s3, gs, ...) through a bounded cache on this machine.

```
URL ── fsspec, retries with growing waits ──> NAME.partial ── size, SHA-256 or tar walk ──> NAME ──> open files
                                                               the least recently used go first, unless in use
```

Processes share the cache through file locks, which end with their holder: whoever locks `NAME.partial` downloads, the
others wait for it; a file that is open through `ShardCache.open` is not evicted. A download appears whole or not at
all.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from internvl_lab.config import DataConfig
from internvl_lab.data.tar_walk import walk_tar
from internvl_lab.errors import ConfigError, ShardError

logger = logging.getLogger(__name__)

CONNECT_S, READ_S = 30.0, 60.0
"""Seconds that a web server may take to answer, and between two pieces of a file."""
PARTIAL = ".partial"
DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""Packages that fsspec needs for what many keep shards in, and that this project does not install."""
ATTEMPTS, WAIT_S = 5, 1.0
"""How often a transfer is tried, and seconds before the second attempt."""

T = TypeVar("T")


@dataclass(frozen=True)
class ShardCache:
    """Keep copies of remote files under `folder`, at most `max_bytes` of them (but always the newest one)."""

    folder: Path
    max_bytes: int
    attempts: int = ATTEMPTS
    wait_s: float = WAIT_S
    """See `retried`."""

    @classmethod
    def from_settings(cls, data: DataConfig) -> ShardCache:
        """Return the cache that the settings name."""
        return cls(Path(data.cache_dir).expanduser(), int(data.cache_gb * 1e9))

    def open(self, url: str, size: int = -1, sha256: str | None = None) -> BinaryIO:
        """Open a remote file, fetching it where it is not here yet. It stays while the result is open.

        Args:
            size: expected bytes; -1 = unknown.
            sha256: expected digest; without it, the file has to be a whole tar.
        Raises:
            ShardError: it cannot be fetched, or is not what was expected.
        """
        path = self.path(url)
        while True:
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError:
                self._fetch(url, path, size, sha256)
                continue
            fcntl.flock(file, fcntl.LOCK_SH)
            if size >= 0 and os.fstat(file.fileno()).st_size != size:  # an older file of the same name
                path.unlink(missing_ok=True)
            elif _is_at(file, path):
                os.utime(path)
                return file
            file.close()

    def path(self, url: str) -> Path:
        """Return where the copy of a file lies."""
        base, _, name = url.rpartition("/")
        return self.folder / "shards" / hashlib.sha256(base.encode()).hexdigest()[:16] / quote(name, safe="")

    def info(self, url: str) -> tuple[int, str]:
        """Ask for a remote file's size (-1 = unknown) and whatever tells its versions apart.

        Raises:
            ShardError: it does not exist or cannot be asked for.
        """
        filesystem, inside = open_filesystem(url)
        answer = self._retried(url, lambda: filesystem.info(inside))
        marks = ("ETag", "etag", "Content-MD5", "md5Hash", "Last-Modified", "LastModified", "updated", "mtime")
        mark = next((str(answer[name]) for name in marks if answer.get(name)), "")
        return int(answer["size"]) if answer.get("size") is not None else -1, mark

    def read_manifest(self, url: str) -> dict[str, Any] | None:
        """Read a small JSON object; None where there is no such file.

        Raises:
            ShardError: it is there, but cannot be read.
        """
        filesystem, inside = open_filesystem(url)

        def read() -> bytes | None:
            """Fetch the file into memory."""
            try:
                return bytes(filesystem.cat_file(inside))
            except (FileNotFoundError, PermissionError):  # s3 says the latter of files that do not exist
                return None

        data = self._retried(url, read)
        try:
            value = None if data is None else json.loads(data)
        except ValueError as error:
            raise ShardError(f"manifest {url} cannot be read: {error}") from error
        if value is not None and not isinstance(value, dict):
            raise ShardError(f"manifest {url} is not a JSON object")
        return value

    def _fetch(self, url: str, path: Path, size: int, sha256: str | None) -> None:
        """Download a file unless another process does."""
        partial = path.with_name(path.name + PARTIAL)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists() or not _is_at(lock, partial):  # another process was faster
                return
            self._retried(url, lambda: _download(url, partial, size, sha256))
            self._make_room(partial)
            os.replace(partial, path)

    def _make_room(self, new: Path) -> None:
        """Delete the files that were used longest ago until the cache fits; files in use stay."""
        sizes: dict[Path, os.stat_result] = {}
        for path in (self.folder / "shards").glob("*/*"):
            with suppress(FileNotFoundError):  # another process has renamed or deleted it meanwhile
                sizes[path] = path.stat()
        total = sum(stat.st_size for stat in sizes.values())
        for path, stat in sorted(sizes.items(), key=lambda item: item[1].st_mtime_ns):
            if total <= self.max_bytes:
                return
            if path != new and _evict(path):
                total -= stat.st_size

    def _retried(self, url: str, action: Callable[[], T]) -> T:
        """Try an action as often as this cache does."""
        return retried(url, action, self.attempts, self.wait_s)


def retried(url: str, action: Callable[[], T], attempts: int = ATTEMPTS, wait_s: float = WAIT_S) -> T:
    """Try an action several times.

    Args:
        url: what messages name.
        wait_s: seconds before the second attempt; each further wait is twice as long.
    Raises:
        ShardError: the file is not there, or no attempt succeeded.
    """
    last: Exception | None = None
    for attempt in range(attempts):
        if last is not None:
            logger.warning("%s: %s; trying again", url, last)
            time.sleep(wait_s * 2 ** (attempt - 1))
        try:
            return action()
        except (FileNotFoundError, PermissionError) as error:
            raise ShardError(f"{url} is not there or not readable: {error}") from error
        except Exception as error:  # drivers raise anything: aiohttp, botocore, timeouts, OSError
            last = error
    raise ShardError(f"{url} cannot be fetched after {attempts} attempts: {last!r}") from last


def is_remote(shards: str) -> bool:
    """Tell whether `shards` of a source means files that are not on this machine."""
    return "://" in shards and not shards.startswith("file://")


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's driver for a URL and the path inside it.

    Raises:
        ConfigError: no driver knows the URL, or it is not installed.
    """
    # here, because it takes 0.3 s to import and local shards do not need it
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        import aiohttp

        # The default gives a whole file five minutes: too little for large shards, too much for a dead server.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        options["client_kwargs"] = {"timeout": timeout}
    try:
        filesystem, inside = url_to_fs(url, **options)
    except ImportError as error:
        package = DRIVERS.get(url.partition("://")[0])
        fix = f"install its driver with `pip install {package}`" if package else str(error)
        raise ConfigError(f"shards {url} cannot be opened: {fix}") from error
    except ValueError as error:
        raise ConfigError(f"shards {url} cannot be opened: {error}") from error
    return filesystem, inside


def _download(url: str, target: Path, size: int, sha256: str | None) -> None:
    """Fetch a file once and check it."""
    filesystem, inside = open_filesystem(url)
    filesystem.get_file(inside, str(target))
    found = target.stat().st_size
    if size >= 0 and found != size:
        raise ShardError(f"{found} bytes came, {size} were expected")
    if sha256 is None:
        if not walk_tar(target):
            raise ShardError(f"{found} bytes came that hold no file")
        return
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise ShardError(f"SHA-256 is {digest}, the manifest says {sha256}")


def _evict(path: Path) -> bool:
    """Delete a cached file unless somebody uses it."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return False
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Tell whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
