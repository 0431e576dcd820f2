"""What is to be loaded into a store, and what became of it: the values that reading, judging and loading hand to each other.

They lie outside the store and its ledger so that archives are read while those are still being opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .blob_writer import StagedBlob
from .errors import Issue, has_errors
from .image import Manifest
from .policy import Reference

Status = Literal["loaded", "overwritten", "unchanged", "skipped", "rejected", "valid"]
OnConflict = Literal["overwrite", "skip", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRules:
    """The options that decide about a load; `profile` is how it comes, by the page or by a client.

    `defaults` (the registry and what `init` sets) hold until the store has its own.
    """

    on_conflict: OnConflict = "overwrite"
    create_org: bool = True
    profile: str = "client"
    defaults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """What the tag table keeps of an image. Sizes in bytes."""

    digest: str
    media_type: str
    image_id: str
    architecture: str
    os: str
    layers: int
    uncompressed_bytes: int
    stored_bytes: int
    archive: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The effect of one reference. `previous` is the digest that was served before, `digest` what the tag table has after it."""

    status: Status
    previous: str | None = None
    digest: str | None = None
    issues: tuple[Issue, ...] = ()
    new_organization: bool = False
    new_repository: bool = False
    new_administrator: bool = False

    @property
    def there(self) -> bool:
        """Whether the reference stands for the image now."""
        return self.status in ("loaded", "overwritten", "unchanged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An image that is to be loaded, or that was refused already (`issues` with an error; then `manifest` may be None).

    `blobs` are the staged ones that the manifest needs and the store may lack; `layer_notes` go into the diff_id → blob map.
    """

    archive: str
    image_index: int
    originals: tuple[str, ...]
    references: tuple[Reference, ...]
    started_ms: int
    issues: tuple[Issue, ...] = ()
    manifest: Manifest | None = None
    record: ImageRecord | None = None
    blobs: tuple[StagedBlob, ...] = ()
    layer_notes: tuple[dict[str, Any], ...] = ()

    @property
    def refused(self) -> bool:
        return has_errors(self.issues)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What became of an attempt, with the store's refusals among its issues: a decision for each reference, and its events."""

    attempt: Attempt
    decisions: tuple[Decision, ...]
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def there(self) -> bool:
        """Whether the store has the image now, under one of its names at least."""
        return any(decision.there for decision in self.decisions)


def with_refusals(result: LoadResult) -> LoadResult:
    """The result whose attempt has the issues of its decisions too."""
    attempt = result.attempt
    found = [each for decision in result.decisions for each in decision.issues]
    if not found:
        return result
    index = attempt.image_index
    located = (each.at(archive=attempt.archive, place=f"manifest[{index}].RepoTags", image_index=index) for each in found)
    return replace(result, attempt=replace(attempt, issues=(*attempt.issues, *located)))
