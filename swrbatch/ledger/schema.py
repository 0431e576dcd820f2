"""The ledger's tables (SQLAlchemy Core), as the newest migration leaves them.

Times are integers, ms UTC. Sizes are bytes. Digests are texts `sha256:<hex>`. Events are only ever added; a prune removes the
oldest ones and leaves a checkpoint in their place.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

HEAD = "0003"
"""The newest migration; a ledger at another revision is migrated, or refused when it is newer than this program."""

metadata = MetaData()

settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
)

organizations = Table(
    "organizations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("account_id", Integer, ForeignKey("accounts.id"), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("organizations_owner", "account_id", "owner"),
)

repositories = Table(
    "repositories",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("organization_id", Integer, ForeignKey("organizations.id"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("is_public", Boolean, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    # One of `policy.CATEGORIES`; 0 to 30,000 characters (guide 4.5).
    Column("category", String(32), nullable=False, server_default="other"),
    Column("description", Text, nullable=False, server_default=""),
    UniqueConstraint("organization_id", "name"),
)

tags = Table(
    "tags",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("repository_id", Integer, ForeignKey("repositories.id"), nullable=False),
    Column("tag", String(128), nullable=False),
    # Counts the changes of this tag; a link is written only while the generation is the one it was planned for.
    Column("generation", Integer, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("media_type", String(255), nullable=False),
    Column("image_id", String(71), nullable=False),
    Column("architecture", Text, nullable=False),
    Column("os", Text, nullable=False),
    Column("layers", Integer, nullable=False),
    Column("uncompressed_bytes", BigInteger, nullable=False),
    Column("stored_bytes", BigInteger, nullable=False),
    Column("archive", Text, nullable=False),
    Column("account", String(255), nullable=False),
    Column("user", String(255), nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    # True from the commit until the link files are on the disk; the next open writes what a crash left.
    Column("link_pending", Boolean, nullable=False),
    # What this program last wrote as link; while it is pending, what the load saw there and so replaces. Any other content
    # was written by somebody else since, and is never healed over.
    Column("linked_digest", String(71)),
    UniqueConstraint("repository_id", "tag"),
    Index("tags_pending", "link_pending"),
)

# Links of deleted tags that are still to be removed: written in the transaction of the deletion, gone with the files.
tag_removals = Table(
    "tag_removals",
    metadata,
    Column("id", Integer, primary_key=True),
    # `organization/repository`: the rows of both may be gone.
    Column("path", String(200), nullable=False),
    Column("tag", String(128), nullable=False),
    # What the tag table had, and what its link had when this program last wrote it: only these are ours to remove.
    Column("digest", String(71), nullable=False),
    Column("linked_digest", String(71)),
)

# --- rights (guide 6) ------------------------------------------------------------------------------------------------
# A grant is for a user of the organization's own account; `level` is 1 read, 3 edit, 7 manage, as the API has them.

organization_grants = Table(
    "organization_grants",
    metadata,
    Column("organization_id", Integer, ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True),
    Column("account", String(255), primary_key=True),
    Column("user", String(255), primary_key=True),
    Column("level", Integer, nullable=False),
    Index("organization_grants_user", "account", "user"),
)

repository_grants = Table(
    "repository_grants",
    metadata,
    Column("repository_id", Integer, ForeignKey("repositories.id", ondelete="CASCADE"), primary_key=True),
    Column("account", String(255), primary_key=True),
    Column("user", String(255), primary_key=True),
    Column("level", Integer, nullable=False),
    Index("repository_grants_user", "account", "user"),
)

administrators = Table(
    "administrators",
    metadata,
    Column("account", String(255), primary_key=True),
    Column("user", String(255), primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
)

# --- sharing (guide 4.6) and triggers (guide 4.7) -----------------------------------------------------------------------

shares = Table(
    "shares",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("repository_id", Integer, ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    # The account that may download.
    Column("account", String(255), nullable=False),
    # The API knows one value: read.
    Column("permit", String(16), nullable=False),
    # The first moment at which the share gives nothing any more, ms UTC; NULL: forever.
    Column("deadline_ms", BigInteger),
    Column("description", Text, nullable=False),
    Column("by_account", String(255), nullable=False),
    Column("by_user", String(255), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("repository_id", "account"),
    Index("shares_account", "account", "repository_id"),
)

triggers = Table(
    "triggers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("repository_id", Integer, ForeignKey("repositories.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("enabled", Boolean, nullable=False),
    # all, tag or regular, and what it is matched by: `.*`, a tag, a pattern.
    Column("trigger_type", String(16), nullable=False),
    Column("condition", Text, nullable=False),
    # update: the one action that the guide knows.
    Column("action", String(16), nullable=False),
    # cce or cci; deployments or statefulsets.
    Column("trigger_mode", String(16), nullable=False),
    Column("app_type", String(32), nullable=False),
    Column("application", String(255), nullable=False),
    # Names of containers, comma-separated; empty: all of them.
    Column("container", Text, nullable=False),
    Column("cluster_id", String(255), nullable=False),
    Column("cluster_name", String(255), nullable=False),
    Column("cluster_ns", String(255), nullable=False),
    Column("account", String(255), nullable=False),
    Column("user", String(255), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("repository_id", "name"),
)

# What a trigger did, and what it has still to do: written as pending in the transaction of the load that sets it off, done in the
# order of the ids. Its history goes with the trigger; the events stay.
trigger_runs = Table(
    "trigger_runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trigger_id", Integer, ForeignKey("triggers.id", ondelete="CASCADE"), nullable=False),
    Column("tag", String(128), nullable=False),
    Column("digest", String(71), nullable=False),
    # The load's run, and who loaded.
    Column("run_id", String(64), nullable=False),
    Column("account", String(255), nullable=False),
    Column("user", String(255), nullable=False),
    # pending, success or failed.
    Column("state", String(16), nullable=False),
    # The changed files as a JSON array; why it failed.
    Column("files", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Index("trigger_runs_trigger", "trigger_id", "id"),
    Index("trigger_runs_state", "state", "id"),
)

layer_blobs = Table(
    "layer_blobs",
    metadata,
    Column("diff_id", String(71), primary_key=True),
    Column("media_type", String(255), primary_key=True),
    Column("digest", String(71), nullable=False),
    Column("size", BigInteger, nullable=False),
)

events = Table(
    "events",
    metadata,
    # The sequence number, in commit order, without gaps.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("trace_id", String(36), nullable=False, unique=True),
    Column("run_id", String(64), nullable=False, index=True),
    Column("record_time", BigInteger, nullable=False),
    Column("trace_name", String(64), nullable=False),
    # The trace's canonical text: what the chain hashes.
    Column("text", Text, nullable=False),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    # The last event that a prune removed: its sequence number and its hash, which the next event names as the one before it.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
    # The trace_id of the chain's very first event: what tells this chain from another's.
    Column("identity", String(36), nullable=False),
    # The newest record_time of what was removed.
    Column("record_time", BigInteger, nullable=False),
    # What replaying everything up to there gives, as canonical JSON: organizations, repositories, tags (name to digest), and
    # what is gone (name to event).
    # The event of the prune holds its SHA-256. Empty once a later prune left a newer checkpoint.
    Column("state", Text, nullable=False),
)
