"""Checkpoints: where the chain of events begins after a prune."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("identity", sa.String(36), nullable=False),
        sa.Column("record_time", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )
