"""A file that one process at a time appends to, for work that must survive being killed at any moment."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, BinaryIO

from pellucid.core.errors import FileError

try:
    import fcntl
except ImportError:  # Windows locks files that are open for writing by itself
    fcntl: Any = None  # type: ignore[no-redef]


class AppendedFile:
    """A header and what was appended behind it; whoever reads says with `keep` how much of it is whole."""

    def __init__(self, path: Path, header: bytes, holds: str) -> None:
        """Open and lock the file, and make it where it is missing; `content` is what stands behind the header.

        Args:
            path: the file; its folders are made.
            header: its first bytes, which tell it from other files.
            holds: what such a file holds, for the message about another one.

        Raises:
            FileError: another process has it open, it cannot be written, or it is a file of something else.
        """
        self.path, self.header = path, header
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file: BinaryIO = path.open("a+b", buffering=0)  # type: ignore[assignment]
        except OSError as error:
            raise FileError(
                f"The file {str(path)!r} cannot be written ({error.strerror or error}); choose another path."
            ) from None
        try:
            self._lock()
            self.content = self._content(holds)
        except BaseException:
            self.file.close()
            raise

    def append(self, content: bytes) -> None:
        """Append bytes; when this returns, a process that is killed does not lose them.

        Raises:
            FileError: the disk takes no more.
        """
        try:
            done = self.file.write(content)
            while done < len(content):  # a full disk takes a part
                done += self.file.write(content[done:])
        except OSError as error:
            raise self._full(error) from None

    def settle(self) -> None:
        """Wait until the disk has everything, so that a power cut loses nothing either.

        Raises:
            FileError: the disk could not take it.
        """
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have no such step
                raise self._full(error) from None

    def keep(self, length: int) -> None:
        """Cut off what stands behind so many bytes of the content."""
        self.file.truncate(len(self.header) + length)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _full(self, error: OSError) -> FileError:
        return FileError(
            f"The file {str(self.path)!r} cannot be written ({error.strerror or error}); free space and run again, "
            "what it holds is kept."
        )

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(
                f"Another run is writing to {str(self.path)!r}; wait for it, or choose another path."
            ) from None

    def _content(self, holds: str) -> bytes:
        self.file.seek(0)
        found = self.file.read()
        if found.startswith(self.header):
            return found[len(self.header) :]
        if not self.header.startswith(found):
            raise FileError(f"The file {str(self.path)!r} holds no {holds}; choose another path.")
        self.file.truncate(0)
        self.append(self.header)
        return b""
