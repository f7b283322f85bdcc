"""Read a tar from front to back, whatever brings it, and never take a part of it for the whole.

```
pipe:COMMAND ── shell ──────────┐
http, s3, gs ── fsspec, retried ┼─> CheckedStream ──> wds.WebDataset ──> {"__key__": ..., "json": ..., "0.jpg": ...}
path ── open ───────────────────┘    TarCheck, exit status
```

webdataset by itself takes a cut tar, a corrupt header and a command that failed for the end of the data (measured,
research/data_pipeline section 5), so it is given streams that raise instead.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Protocol

from internvl_lab.config.data import COMMAND
from internvl_lab.data.remote import ATTEMPTS, WAIT_S, is_remote, open_filesystem, retried
from internvl_lab.data.scan import Problem
from internvl_lab.data.tar_walk import TarCheck
from internvl_lab.errors import InternVLLabError, ShardError

SCHEME = "checked"
"""Scheme of the URLs that webdataset gets: it asks this module for the streams of that name."""
PIECE = 1 << 20
"""Bytes that are read at once where nobody looks at them."""
DEAF = "trap '' TERM USR1"
"""Makes a shell and what it starts ignore what a cluster sends to a whole job (`parent.STOP_SIGNALS`)."""
_GZIP = b"\x1f\x8b"
_streams: dict[str, CheckedStream] = {}
"""Streams that webdataset is about to ask for."""


class Source(Protocol):
    """Bring the bytes of one tar."""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end."""

    def finish(self) -> None:
        """Raise ShardError where the end was not a good one."""

    def close(self) -> None:
        """Let go of it, read to the end or not."""


def read_tar(url: str, faults: list[Problem]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, {suffix: bytes}) of each sample of a tar.

    Args:
        url: a path, a URL, or `pipe:COMMAND`. The command is run by the shell with the rights of this process, so it
            must come from the user's configuration and from nowhere else.
        faults: gets a `duplicate_key` for each member that comes twice in a sample; the first wins.
    Raises:
        ShardError: it cannot be opened or read to its end, is damaged, or holds no sample.
    """
    import webdataset as wds  # here, because it takes a second to import
    from webdataset.gopen import gopen_schemes

    def keep_first(error: Exception) -> bool:
        """Go on behind a member that comes twice; webdataset asks this about every error."""
        name, what, _ = str(error.args[0] if error.args else "").partition(": duplicate file name")
        if not what:
            raise error
        faults.append((url, name.partition(".")[0], "duplicate_key", f"member {name!r} comes twice"))
        return True

    stream = CheckedStream(url)
    name = f"{SCHEME}:{id(stream)}"
    _streams[name] = stream
    gopen_schemes[SCHEME] = lambda name, *_: _streams.pop(name)
    plain: dict[str, Any] = {"shardshuffle": False, "nodesplitter": None, "workersplitter": None, "seed": 0}
    empty = True
    try:
        for sample in wds.WebDataset([name], handler=keep_first, empty_check=False, **plain):
            empty = False
            yield sample["__key__"], {name: data for name, data in sample.items() if not name.startswith("__")}
        stream.finish()
    except InternVLLabError as error:
        raise type(error)(error.args[0]) from error  # webdataset has put its own into the arguments
    except Exception as error:  # tarfile's and the operating system's
        raise ShardError(f"shard {url} cannot be read: {error.args[0] if error.args else error!r}") from error
    finally:
        _streams.pop(name, None)
        stream.close()
    if empty:
        raise ShardError(f"shard {url} holds no sample")


class CheckedStream:
    """Pass the bytes of a tar on; at its end make sure that it was the end.

    Args:
        url: as in `read_tar`.
    Raises:
        ShardError, ConfigError: it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.url, self._check, self._source = url, TarCheck(url), open_source(url)
        self._begun = self._over = False

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end.

        Raises:
            ShardError: the tar is damaged or cut, or what brings it has failed.
        """
        data = b"" if self._over else self._source.read(size)
        if data[:2] == _GZIP and not self._begun:
            raise ShardError(f"shard {self.url} is compressed: unpack it, as in `pipe:gzip -dc FILE`")
        self._begun = True
        self._check.feed(data)
        if not data:
            self.finish()
        return data

    def finish(self) -> None:
        """Read what stands behind the end marker, and hear how the source ended.

        Raises:
            ShardError: as `read`.
        """
        while rest := b"" if self._over else self._source.read(PIECE):
            self._check.feed(rest)
        if not self._over:
            self._over = True
            self._source.finish()
            self._check.close()

    def close(self) -> None:
        """Let go of the source."""
        self._source.close()


def open_source(url: str) -> Source:
    """Open what brings the bytes of a tar.

    Raises:
        ShardError, ConfigError: it cannot be opened.
    """
    if url.startswith(COMMAND):
        return Command(url)
    return RemoteFile(url) if is_remote(url) else LocalFile(url)


class LocalFile:
    """Read a file of this machine."""

    def __init__(self, path: str) -> None:
        try:
            self._file: BinaryIO = Path(path).open("rb")  # noqa: SIM115  # closed by `close`
        except OSError as error:
            raise ShardError(f"shard {path} cannot be read: {error}") from error
        self.read, self.close = self._file.read, self._file.close

    def finish(self) -> None:
        """Accept any end; the tar's marker says whether it is one."""


class Command:
    """Read what a shell command writes.

    It does not end by the signals that a cluster sends to a whole job: who reads it finishes, and then ends it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._complaints = TemporaryFile()  # noqa: SIM115  # closed by `close`
        script = f"{DEAF}\n{url.removeprefix(COMMAND)}"
        self._process = subprocess.Popen(script, shell=True, stdout=subprocess.PIPE, stderr=self._complaints)

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none when the command has closed its output."""
        assert self._process.stdout is not None
        return self._process.stdout.read(size)

    def finish(self) -> None:
        """Refuse any exit status but 0, with the last line of what the command said about it."""
        status = self._process.wait()
        if status:
            self._complaints.seek(0)
            lines = self._complaints.read().decode(errors="replace").strip().splitlines()
            raise ShardError(f"{self._url} ended with status {status}" + (f": {lines[-1]}" if lines else ""))

    def close(self) -> None:
        """End the command where it still runs."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._complaints.close()


class RemoteFile:
    """Read a URL; where the line breaks, begin anew and pass over what has been read."""

    attempts, wait_s = ATTEMPTS, WAIT_S

    def __init__(self, url: str) -> None:
        self._url, self._position = url, 0
        self._filesystem, self._inside = open_filesystem(url)
        self._file: Any = None

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end."""
        data = retried(self._url, lambda: self._try(size), self.attempts, self.wait_s)
        self._position += len(data)
        return data

    def finish(self) -> None:
        """Accept any end; the tar's marker says whether it is one."""

    def close(self) -> None:
        """Close the connection."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _try(self, size: int) -> bytes:
        """Read once."""
        try:
            if self._file is None:
                self._open()
            return bytes(self._file.read(size))
        except Exception:
            self.close()
            raise

    def _open(self) -> None:
        """Open the file at the position that is reached."""
        # block size 0: one answer read as it comes, because not every web server gives sizes and parts
        options = {"block_size": 0} if self._url.startswith(("http://", "https://")) else {}
        self._file = self._filesystem.open(self._inside, "rb", **options)
        left = self._position
        while left:
            passed = len(self._file.read(min(left, PIECE)))
            if not passed:
                raise OSError(f"it had more than {self._position - left} bytes before")
            left -= passed
