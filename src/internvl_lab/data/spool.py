"""Keep a stretch of a stream where the index, the plan and the loader can work on it as on any shards.

```
(source, tar, key, {suffix: bytes}) ── add ──> unnamed temporary file ── scan_members, join_scans ──> ShardIndex
```

So a streamed sample is parsed, measured, cut to fit, packed and encoded by the very code that does it for an indexed
one, and a worker holds no more of a window in its own memory than the pack it builds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np

from internvl_lab.data.columns import Ints
from internvl_lab.data.index import ShardIndex, join_scans
from internvl_lab.data.locations import ShardSet
from internvl_lab.data.scan import read_extent, scan_members
from internvl_lab.data.tar_walk import Member
from internvl_lab.errors import ShardError
from internvl_lab.text.template import ChatTemplate


@dataclass(frozen=True)
class SpooledShards(ShardSet):
    """Name the tars that a spool's samples came from; their bytes lie in the spool."""

    file: BinaryIO | None = None

    def location(self, shard: int) -> str:
        """Return the URL or command."""
        return self.names[shard]

    def read(self, shard: int, offset: int, size: int, stamp: Ints) -> bytes:
        """Read a part of the spool; `shard` and `stamp`, (2,), only name it.

        Raises:
            ShardError: the spool is shorter.
        """
        assert self.file is not None
        return read_extent(self.file.fileno(), offset, size, self.location(shard))


class Spool:
    """Hold samples of several sources."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115  # closed by `close`; without a name, so kill -9 leaves nothing
        self._members: dict[int, dict[str, list[Member]]] = defaultdict(lambda: defaultdict(list))
        self.num_samples = self.num_bytes = 0

    def add(self, source: int, url: str, key: str, parts: Mapping[str, bytes]) -> None:
        """Append one sample.

        Args:
            source: number of its source.
            url: the tar that it comes from.
            parts: suffix to content.
        Raises:
            ShardError: there is no room for it.
        """
        members = self._members[source][url]
        try:
            for suffix, data in parts.items():
                members.append(Member(f"{key}.{suffix}", self.num_bytes, len(data)))
                self.num_bytes += self._file.write(data)
        except OSError as error:
            raise ShardError(f"a window of the stream cannot be kept (TMPDIR says where): {error}") from error
        self.num_samples += 1

    def index(self, source: int, template: ChatTemplate) -> ShardIndex | None:
        """Index what came from one source; None where that is nothing."""
        by_tar = self._members.get(source)
        if not by_tar:
            return None
        self._file.flush()
        scans = [scan_members(members, self._file.fileno(), template, url) for url, members in by_tar.items()]
        shards = SpooledShards("", tuple(by_tar), file=self._file)
        stamps = np.zeros((len(by_tar), 2), np.int64)
        return join_scans(shards, stamps, [(scan.table(), scan.problems) for scan in scans], template)

    def close(self) -> None:
        """Give the room back."""
        self._file.close()
