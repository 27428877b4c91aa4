"""Runs over data sets, kept in a real database: every finished item is safe, and a killed run goes on where it stopped.

Needs the extra `store` (SQLAlchemy); SQLite by default, any SQLAlchemy URL otherwise.
"""

from __future__ import annotations

from pellucid.core.errors import optional

optional("sqlalchemy", "store", "The result store")

from pellucid.store.datasets import map_dataset  # noqa: E402 - only after the check above
from pellucid.store.runs import Run  # noqa: E402
from pellucid.store.store import Found, Store  # noqa: E402

__all__ = ["Found", "Run", "Store", "map_dataset"]
