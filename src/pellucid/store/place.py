"""Where the store is when nobody says so."""

from __future__ import annotations

import os
from pathlib import Path

STORE, TENSORS = "PELLUCID_STORE", "PELLUCID_TENSORS"


def place(store: str | None = None, tensors: str | None = None) -> tuple[str, str | None]:
    """Return what `Store.open` is called with.

    Args:
        store: a file or a URL; else `$PELLUCID_STORE`, else `pellucid/store.db` in the user's folder for data.
        tensors: the folder of tensors; else `$PELLUCID_TENSORS`, else beside a SQLite file.
    """
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    found = store or os.environ.get(STORE) or str(data / "pellucid" / "store.db")
    return found, tensors or os.environ.get(TENSORS) or None
