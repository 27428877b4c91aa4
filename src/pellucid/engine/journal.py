"""A file of scores that survives being cut off anywhere: records are appended whole and checked when they are read."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pellucid.core.errors import FileError

try:
    import fcntl
except ImportError:  # Windows locks files that are open for writing by itself
    fcntl: Any = None  # type: ignore[no-redef]

HEADER = b"pellucid scores 1\n"
HEAD = struct.Struct("<16sII")  # key, how many scores, checksum of key and scores


class Journal:
    """Scores by key in a file: `known` holds what it has, `write` appends."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, dict[bytes, np.ndarray]()
        self.file: BinaryIO | None = None

    def __enter__(self) -> Journal:
        """Open the file, read its whole records and cut off a half-written one."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a+b")
        except OSError as error:
            raise FileError(
                f"The file {str(self.path)!r} cannot be written ({error.strerror or error}); choose another path."
            ) from None
        try:
            self._lock()
            self._read()
        except BaseException:
            self.file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        assert self.file is not None
        self.file.close()

    def write(self, entries: Sequence[tuple[bytes, np.ndarray]]) -> None:
        """Append scores; when this returns, a process that is killed does not lose them."""
        assert self.file is not None
        records = []
        for key, scores in entries:
            values = np.ascontiguousarray(scores, dtype="<f8").tobytes()
            records.append(HEAD.pack(key, len(scores), zlib.crc32(key + values)) + values)
            self.known[key] = scores
        try:
            self.file.write(b"".join(records))
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise FileError(
                f"The file {str(self.path)!r} cannot be written ({error.strerror or error}); what it holds is kept."
            ) from None

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(
                f"Another run is writing to {str(self.path)!r}; wait for it, or choose another path."
            ) from None

    def _read(self) -> None:
        assert self.file is not None
        self.file.seek(0)
        content = self.file.read()
        if not content.startswith(HEADER):
            if not HEADER.startswith(content):
                raise FileError(f"The file {str(self.path)!r} holds no scores of a resumable run; choose another path.")
            self.file.truncate(0)
            self.file.write(HEADER)
            self.file.flush()
            return
        end = len(HEADER)
        while end + HEAD.size <= len(content):
            key, count, checksum = HEAD.unpack_from(content, end)
            values = content[end + HEAD.size : end + HEAD.size + 8 * count]
            if len(values) < 8 * count or zlib.crc32(key + values) != checksum:
                break
            self.known[key] = np.frombuffer(values, dtype="<f8")
            end += HEAD.size + 8 * count
        self.file.truncate(end)
