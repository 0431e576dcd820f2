"""The ledger's tables (SQLAlchemy Core), as the newest migration leaves them.

Times are integers, ms UTC. Sizes are bytes. Digests are texts `sha256:<hex>`. Events are only ever added; a prune removes the
oldest ones and leaves a checkpoint in their place.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

HEAD = "0002"
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
