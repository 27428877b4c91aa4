"""Results, runs over data sets and jobs, kept in a real database: what is finished is safe, what was killed goes on.

Needs the extra `store` (SQLAlchemy); SQLite by default, any SQLAlchemy URL otherwise.
"""

from __future__ import annotations

from pellucid.core.errors import optional

optional("sqlalchemy", "store", "The result store")

from pellucid.store.datasets import map_dataset  # noqa: E402 - only after the check above
from pellucid.store.jobs import Job, Jobs  # noqa: E402
from pellucid.store.place import place  # noqa: E402
from pellucid.store.retention import Removed  # noqa: E402
from pellucid.store.runs import Run  # noqa: E402
from pellucid.store.search import Saved  # noqa: E402
from pellucid.store.store import Found, Store  # noqa: E402

__all__ = ["Found", "Job", "Jobs", "Removed", "Run", "Saved", "Store", "map_dataset", "place"]
