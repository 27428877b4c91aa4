"""A file of scores that survives being cut off anywhere: records are appended whole and checked when they are read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pellucid.core.appending import AppendedFile

HEADER = b"pellucid scores 1\n"
HEAD = struct.Struct("<16sII")  # key, how many scores, checksum of key and scores


class Journal:
    """Scores by key in a file: `known` holds what it has, `write` appends."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, dict[bytes, np.ndarray]()
        self.file: AppendedFile | None = None

    def __enter__(self) -> Journal:
        """Open the file, read its whole records and cut off a half-written one."""
        self.file = AppendedFile(self.path, HEADER, "scores of a resumable run")
        content, end = self.file.content, 0
        while end + HEAD.size <= len(content):
            key, count, checksum = HEAD.unpack_from(content, end)
            values = content[end + HEAD.size : end + HEAD.size + 8 * count]
            if len(values) < 8 * count or zlib.crc32(key + values) != checksum:
                break
            self.known[key] = np.frombuffer(values, dtype="<f8")
            end += HEAD.size + 8 * count
        self.file.keep(end)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        assert self.file is not None
        self.file.close()

    def write(self, entries: Sequence[tuple[bytes, np.ndarray]]) -> None:
        """Append scores; when this returns, neither a kill nor a power cut loses them."""
        assert self.file is not None
        records = []
        for key, scores in entries:
            values = np.ascontiguousarray(scores, dtype="<f8").tobytes()
            records.append(HEAD.pack(key, len(scores), zlib.crc32(key + values)) + values)
            self.known[key] = scores
        self.file.append(b"".join(records))
        self.file.settle()
