"""The record of a run: one line per finished piece of work, appended whole, so that no kill loses or doubles one.

A line is a checksum and a JSON object with its `key`. What a process wrote is the system's to keep from the moment
`write` returns, whatever signal ends the process; against a power cut it is forced to disk at `settle`. A line that was
cut off is dropped when the file is opened, and its work is done again.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from pellucid.core import encoding
from pellucid.core.appending import AppendedFile

HEAD = b"pellucid evaluation 1\n"


class Record:
    """Finished work by key: `known` holds what the file has, `write` appends. Use it in a `with`; None has no file."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.known, self.damaged = path, dict[str, dict[str, Any]](), 0
        self.file: AppendedFile | None = None

    def __enter__(self) -> Record:
        """Open and lock the file, read its whole lines, and cut off one that was half written."""
        if self.path is None:
            return self
        self.file = AppendedFile(self.path, HEAD, "record of an evaluation")
        whole = self.file.content.rfind(b"\n") + 1
        for line in self.file.content[:whole].splitlines():
            entry = _entry(line)
            if entry is None:
                self.damaged += 1
                continue
            self.known[entry.pop("key")] = entry
        self.file.keep(whole)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()

    def write(self, key: str, entry: dict[str, Any]) -> None:
        """Append one piece of work; when this returns, a process that is killed does not lose it.

        Raises:
            FileError: the disk is full; what was written before is kept.
        """
        self.known[key] = entry
        if self.file is None:
            return
        content = encoding.dump({"key": key, **entry}).encode("ascii")
        self.file.append(b"%08x %s\n" % (zlib.crc32(content), content))

    def settle(self) -> None:
        """Wait until the disk has everything."""
        if self.file is not None:
            self.file.settle()


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds, or None where its checksum is another."""
    checksum, _, content = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        return None
    found: dict[str, Any] = json.loads(content)
    return found
