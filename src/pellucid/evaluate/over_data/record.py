"""The record of a run: one line per finished piece of work, appended whole, so that no kill loses or doubles one.

A line is a checksum and a JSON object with its `key`. What a process wrote is the system's to keep from the moment
`write` returns, whatever signal ends the process; against a power cut it is forced to disk at `settle`. A line that was
cut off is dropped when the file is opened, and its work is done again.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from pellucid.core import encoding
from pellucid.core.errors import FileError, ResourceError

try:
    import fcntl
except ImportError:  # Windows locks files that are open for writing by itself
    fcntl: Any = None  # type: ignore[no-redef]

HEAD = b"pellucid evaluation 1\n"


class Record:
    """Finished work by key: `known` holds what the file has, `write` appends. Use it in a `with`; None has no file."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.known, self.damaged = path or Path(), dict[str, dict[str, Any]](), 0
        self.kept = path is not None
        self.file: BinaryIO | None = None

    def __enter__(self) -> Record:
        """Open and lock the file, read its whole lines, and cut off one that was half written."""
        if not self.kept:
            return self
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a+b", buffering=0)  # type: ignore[assignment]
        except OSError as error:
            raise FileError(
                f"The record {str(self.path)!r} cannot be written ({error.strerror or error}); choose another path."
            ) from None
        try:
            self._lock()
            self._read()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()

    def write(self, key: str, entry: dict[str, Any]) -> None:
        """Append one piece of work; when this returns, a process that is killed does not lose it.

        Raises:
            ResourceError: the disk is full; what was written before is kept.
        """
        self.known[key] = entry
        if self.file is None:
            return
        content = encoding.dump({"key": key, **entry}).encode("ascii")
        line = b"%08x %s\n" % (zlib.crc32(content), content)
        try:
            done = self.file.write(line)
            while done < len(line):  # a full disk takes a part
                done += self.file.write(line[done:])
        except OSError as error:
            raise ResourceError(
                f"The record {str(self.path)!r} cannot be written ({error.strerror or error}); free space and run "
                "again, what it holds is kept."
            ) from None

    def settle(self) -> None:
        """Wait until the disk has everything."""
        if self.file is None:
            return
        with contextlib.suppress(OSError):  # some file systems have no such step
            os.fsync(self.file.fileno())

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
        content = self.path.read_bytes()
        if not content.startswith(HEAD):
            if not HEAD.startswith(content):
                raise FileError(f"The file {str(self.path)!r} is no record of an evaluation; choose another path.")
            self.file.truncate(0)
            self.file.write(HEAD)
            return
        whole = content.rfind(b"\n") + 1
        for line in content[len(HEAD) : whole].splitlines():
            entry = _entry(line)
            if entry is None:
                self.damaged += 1
                continue
            self.known[entry.pop("key")] = entry
        self.file.truncate(whole)


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds, or None where its checksum is another."""
    checksum, _, content = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        return None
    found: dict[str, Any] = json.loads(content)
    return found
