"""Notes and tags on results, numbers of results that are never given twice, and jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns and the table; every run, chunk and result stays as it is."""
    # SQLite gives a number again after its row is gone unless the table says otherwise, which only a new table can.
    recreate = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table(
        "pellucid_results", recreate=recreate, table_kwargs={"sqlite_autoincrement": True}
    ) as results:
        results.add_column(sa.Column("note", sa.Text, nullable=False, server_default=sa.text("''")))
        results.add_column(sa.Column("tags", sa.Text, nullable=False, server_default="|"))
    op.create_index("ix_pellucid_chunks_committed", "pellucid_chunks", ["committed"])
    op.create_table(
        "pellucid_jobs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String(32), nullable=False, unique=True),
        sa.Column("owner", sa.String(200), nullable=False, index=True),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("state", sa.String(20), nullable=False, index=True),
        sa.Column("worker", sa.String(200), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("stop_asked", sa.Boolean, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("remaining", sa.Double),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("started", sa.String(40)),
        sa.Column("beat", sa.String(40)),
        sa.Column("ended", sa.String(40)),
        sa.Column("result_id", sa.Integer, sa.ForeignKey("pellucid_results.id", ondelete="SET NULL")),
        sqlite_autoincrement=True,
    )
