"""What Alembic runs around the steps: they go through the connection, and the transaction, that `upgrade` holds."""

from __future__ import annotations

from alembic import context

from pellucid.store.schema import Base
from pellucid.store.upgrade import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
