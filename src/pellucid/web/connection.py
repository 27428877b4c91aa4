"""The store as a server needs it: opened once, noticed when it is gone, opened again when it is back."""

from __future__ import annotations

import threading
from pathlib import Path

from pellucid.core.errors import ResourceError
from pellucid.store import Store


class Connection:
    """A store that may vanish while the server runs; `store()` gives it or says in a sentence that it is gone.

    A SQLite file that is moved away while it is open would take every further write with it without an error, so the
    file behind the connections is compared with the one at the path.
    """

    def __init__(self, url: str, folder: str | None, patience: float) -> None:
        self.url, self.folder, self.patience = url, folder, patience
        self._lock = threading.Lock()
        self._store = Store.open(url, folder, patience=patience)
        self._file = self._path()
        self._identity = self._look()

    def store(self) -> Store:
        """Return the store.

        Raises:
            ResourceError: its file is gone.
            FileError: another file is in its place, which is none.
        """
        with self._lock:
            if self._file is None:
                return self._store
            found = self._look()
            if found is None:
                raise ResourceError(
                    f"The store {str(self._file)!r} is gone; put the file back, then what it holds is there again."
                )
            if found != self._identity:
                self._store.close()
                self._store = Store.open(self.url, self.folder, patience=self.patience)
                self._identity = self._look()
            return self._store

    @property
    def store_folder(self) -> Path:
        """Return the folder of the tensors, whether or not the database can be reached."""
        return self._store.folder

    def close(self) -> None:
        """Close all connections."""
        self._store.close()

    def _path(self) -> Path | None:
        url = self._store.database.url
        in_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
        return Path(str(url.database)) if in_file else None

    def _look(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
