"""Rights, sharing, triggers, attributes of repositories, and the removal of links.

Who made an organization manages it. An account's first administrator is whoever made its first organization: there is none in an
account that has no organization yet; the next `init`, or whoever makes the first one, becomes it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("repositories", sa.Column("category", sa.String(32), nullable=False, server_default="other"))
    op.add_column("repositories", sa.Column("description", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "tag_removals",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("path", sa.String(200), nullable=False),
        sa.Column("tag", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("linked_digest", sa.String(71)),
    )
    op.create_table(
        "organization_grants",
        sa.Column("organization_id", sa.Integer, sa.ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("account", sa.String(255), primary_key=True),
        sa.Column("user", sa.String(255), primary_key=True),
        sa.Column("level", sa.Integer, nullable=False),
    )
    op.create_index("organization_grants_user", "organization_grants", ["account", "user"])
    op.create_table(
        "repository_grants",
        sa.Column("repository_id", sa.Integer, sa.ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("account", sa.String(255), primary_key=True),
        sa.Column("user", sa.String(255), primary_key=True),
        sa.Column("level", sa.Integer, nullable=False),
    )
    op.create_index("repository_grants_user", "repository_grants", ["account", "user"])
    op.create_table(
        "administrators",
        sa.Column("account", sa.String(255), primary_key=True),
        sa.Column("user", sa.String(255), primary_key=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "shares",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("repository_id", sa.Integer, sa.ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
        sa.Column("account", sa.String(255), nullable=False),
        sa.Column("permit", sa.String(16), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("by_account", sa.String(255), nullable=False),
        sa.Column("by_user", sa.String(255), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("repository_id", "account"),
    )
    op.create_index("shares_account", "shares", ["account", "repository_id"])
    op.create_table(
        "triggers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("repository_id", sa.Integer, sa.ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("trigger_type", sa.String(16), nullable=False),
        sa.Column("condition", sa.Text, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("trigger_mode", sa.String(16), nullable=False),
        sa.Column("app_type", sa.String(32), nullable=False),
        sa.Column("application", sa.String(255), nullable=False),
        sa.Column("container", sa.Text, nullable=False),
        sa.Column("cluster_id", sa.String(255), nullable=False),
        sa.Column("cluster_name", sa.String(255), nullable=False),
        sa.Column("cluster_ns", sa.String(255), nullable=False),
        sa.Column("account", sa.String(255), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("repository_id", "name"),
    )
    op.create_table(
        "trigger_runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("trigger_id", sa.Integer, sa.ForeignKey("triggers.id", ondelete="CASCADE"), nullable=False),
        sa.Column("tag", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("account", sa.String(255), nullable=False),
        sa.Column("user", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_index("trigger_runs_trigger", "trigger_runs", ["trigger_id", "id"])
    op.create_index("trigger_runs_state", "trigger_runs", ["state", "id"])
    op.execute(
        'INSERT INTO organization_grants (organization_id, account, "user", level) '
        "SELECT o.id, a.name, o.owner, 7 FROM organizations o JOIN accounts a ON a.id = o.account_id"
    )
    op.execute(
        'INSERT INTO administrators (account, "user", created_ms) '
        "SELECT a.name, o.owner, o.created_ms FROM accounts a JOIN organizations o ON o.id = "
        "(SELECT id FROM organizations WHERE account_id = a.id ORDER BY created_ms, id LIMIT 1)"
    )
