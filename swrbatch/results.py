"""The rows of a run: one for each archive, image reference, layer, issue, lint finding and event.

The rows are also the report: each field is a column of the table of its name, and its annotation holds the column's type and
meaning (`tables` turns them into Parquet schemas). Sizes are bytes, times ms UTC, digests `sha256:<hex>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NewType

from .errors import Issue

Millis = NewType("Millis", int)
"""A time, ms UTC; `timestamp[ms, UTC]` in a table."""

RunId = Annotated[str, "the run, as in `runs`"]
ArchiveName = Annotated[str, "the archive as named on the command line (`-` is standard input)"]
ImageIndex = Annotated[int, "position of the image in manifest.json, from 0"]
Codes = Annotated[tuple[str, ...], "codes of the issues, warnings too, each once"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run: `runs`, the commit mark of the report's other tables."""

    run_id: RunId
    command: Annotated[str, "check or import"]
    started: Annotated[Millis, "start"]
    ended: Annotated[Millis, "end"]
    store: Annotated[str | None, "the store's folder; null for a check without one"]
    tool_version: Annotated[str, "version of swrbatch"]
    profile: Annotated[str, "page, client or none"]
    limits: Annotated[str, "the limits in force, as JSON"]
    options: Annotated[str, "all other options, as JSON"]
    account: Annotated[str, "account of the actor, as asserted"]
    user: Annotated[str, "user of the actor, as asserted"]
    login: Annotated[str, "login name of the process"]
    host: Annotated[str, "host name"]
    ci_job: Annotated[str, "the CI job, where its environment tells"]
    archives: Annotated[int, "archives done"]
    images: Annotated[int, "rows of `images`"]
    loaded: Annotated[int, "references loaded"]
    overwritten: Annotated[int, "references whose tag had another image before"]
    unchanged: Annotated[int, "references that were there already"]
    skipped: Annotated[int, "references left as they were (--on-conflict skip)"]
    rejected: Annotated[int, "references (and nameless images) rejected, and archives without any image"]
    valid: Annotated[int, "references found valid (check)"]
    bytes_in: Annotated[int, "bytes of the archives' files, of unreadable ones too"]
    bytes_stored: Annotated[int, "bytes of new layer blobs (an image's config and manifest are a few KiB more)"]
    bytes_reused: Annotated[int, "bytes of layer blobs that were not written again, image by image"]
    exit_code: Annotated[int, "0, 1, 3 or 130"]
    error: Annotated[str | None, "why the run ended early; null when it did not"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRow:
    """An archive: `archives`."""

    run_id: RunId
    upload_seq: Annotated[int, "number of the upload, from 1: the page takes 10 files in one"]
    archive: ArchiveName
    sha256: Annotated[str | None, "digest of the file (--hash-archives)"]
    format: Annotated[str | None, "docker-archive or docker-oci-hybrid; null when it is neither"]
    producer_hint: Annotated[str | None, "who probably wrote it"]
    outer_compression: Annotated[str | None, "none, gzip, zstd, xz or bzip2, by content"]
    bytes: Annotated[int | None, "bytes of the file; null when there is none, or of a pipe that was not read whole"]
    uncompressed_bytes: Annotated[int | None, "bytes of the tar inside, compressed layers counted uncompressed as far as read"]
    images: Annotated[int, "images that manifest.json lists"]
    status: Annotated[str, "loaded, unchanged, skipped, partial, rejected or valid"]
    issue_codes: Codes
    seconds: Annotated[float, "time spent reading and checking it"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """A reference of an image: `images`. An image without any name has one row with null names."""

    run_id: RunId
    archive: ArchiveName
    image_index: ImageIndex
    original_reference: Annotated[str | None, "the name as the archive has it"]
    reference: Annotated[str | None, "the name as judged, after renaming; null when it cannot be parsed"]
    registry: Annotated[str | None, "its registry"]
    organization: Annotated[str | None, "its organization (namespace)"]
    repository: Annotated[str | None, "its repository"]
    tag: Annotated[str | None, "its tag"]
    image_id: Annotated[str | None, "digest of the config"]
    manifest_digest: Annotated[str | None, "digest that a pull by this tag has; null when the image is not in the store"]
    source_index_digest: Annotated[str | None, "digest of the index in the archive that led to the image"]
    media_type: Annotated[str | None, "media type of the manifest"]
    architecture: Annotated[str | None, "as in the config"]
    os: Annotated[str | None, "as in the config"]
    created: Annotated[str | None, "as in the config (RFC 3339 text)"]
    docker_version: Annotated[str | None, "the engine that built it, as in the config"]
    layers: Annotated[int, "number of layers"]
    uncompressed_bytes: Annotated[int | None, "bytes of its layers, uncompressed"]
    stored_bytes: Annotated[int | None, "bytes of its blobs in the store: layers, config, manifest"]
    reused_bytes: Annotated[int | None, "bytes of its layer blobs that were there already"]
    status: Annotated[str, "loaded, overwritten, unchanged, skipped, rejected; valid for a check"]
    previous_digest: Annotated[str | None, "digest that the tag had before"]
    issue_codes: Codes


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """A layer of an image: `layers`."""

    run_id: RunId
    archive: ArchiveName
    image_index: ImageIndex
    image_id: Annotated[str, "digest of the config"]
    layer_index: Annotated[int, "position in the image, from 0 (the base)"]
    diff_id: Annotated[str, "digest of the uncompressed tar"]
    digest: Annotated[str, "digest of the blob: as stored, or as it lies in the archive when the image is not in the store"]
    media_type: Annotated[str, "media type of the blob, in the store that of the manifest"]
    uncompressed_bytes: Annotated[int, "bytes of the tar"]
    stored_bytes: Annotated[int, "bytes of the blob"]
    in_store: Annotated[bool, "whether the run found or left the image in the store, under one of its names (false in a check)"]
    reused: Annotated[bool, "whether the blob was in the store, or came with an earlier image of the run"]
    created_by: Annotated[str | None, "the history step that made it"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueRow:
    """An issue: `issues`."""

    run_id: RunId
    archive: ArchiveName
    image_index: Annotated[int | None, "the image, from 0; null for the archive as a whole"]
    code: Annotated[str, "stable code of the rule"]
    severity: Annotated[str, "error (rejects) or warning"]
    place: Annotated[str, "where in the archive"]
    message: Annotated[str, "what is wrong, in English"]
    message_zh: Annotated[str, "what is wrong, in Chinese"]
    way_out: Annotated[str, "what to do, in English"]
    way_out_zh: Annotated[str, "what to do, in Chinese"]
    section: Annotated[str, "section of the user guide"]
    swr_code: Annotated[str, "nearest error code of the SWR API"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """What lint found in an image: `findings`; empty without --lint (`runs.options` tells). A clean image has no row."""

    run_id: RunId
    archive: ArchiveName
    image_index: ImageIndex
    image_id: Annotated[str, "digest of the config"]
    image: Annotated[str, "the image's first name in the archive"]
    rule: Annotated[str, "id of the rule"]
    level: Annotated[str, "error, warning or info, as configured"]
    refuses: Annotated[bool, "whether it refuses the image (--lint-fail-on)"]
    accepted: Annotated[str | None, "why it does not count: the reason of the configuration, or `baseline`"]
    layer: Annotated[str | None, "diff_id of the layer"]
    place: Annotated[str, "path in the image, or what of config and history is meant (`config.User`)"]
    bytes: Annotated[int | None, "what it costs; null where nothing is counted"]
    message: Annotated[str, "what was found, in English; secrets are redacted"]
    message_zh: Annotated[str, "what was found, in Chinese"]
    way_out: Annotated[str, "what to do, in English"]
    way_out_zh: Annotated[str, "what to do, in Chinese"]
    section: Annotated[str, "section of the user guide"]
    step: Annotated[str | None, "the history step that is meant, or that made the layer"]
    fingerprint: Annotated[str, "what tells the finding from others from run to run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """An audit event of the run: `events` (see the CTS documentation for the fields)."""

    run_id: RunId
    seq: Annotated[int, "sequence number in the ledger, in commit order"]
    trace_id: Annotated[str, "UUID"]
    time: Annotated[Millis, "when the operation began"]
    record_time: Annotated[Millis, "when it was recorded"]
    account: Annotated[str, "user.domain.name"]
    user: Annotated[str, "user.name"]
    login: Annotated[str, "login name of the process"]
    host: Annotated[str, "host name"]
    ci_job: Annotated[str, "the CI job"]
    trace_name: Annotated[str, "event of the catalog, such as uploadImagePackage"]
    trace_rating: Annotated[str, "normal; warning for a refusal"]
    trace_type: Annotated[str, "Others"]
    service_type: Annotated[str, "SWR"]
    resource_type: Annotated[str, "as the catalog says"]
    resource_name: Annotated[str, "organization/repository:tag, a repository, an organization, or a file name"]
    resource_id: Annotated[str, "the manifest digest that the tag of an upload has afterwards"]
    code: Annotated[str, "200, or the HTTP status of a refusal: 400, 403, 404, …"]
    request: Annotated[str, "JSON text; `image_id` is that of the image in the archive"]
    response: Annotated[str, "JSON text; `digest` and `image_id` are what the tag has afterwards (skipped: no image_id)"]
    tracker_name: Annotated[str, "swrbatch"]
    hash: Annotated[str, "hash of the chain up to this event"]


ROWS: Mapping[str, type] = {
    "runs": RunRow,
    "archives": ArchiveRow,
    "images": ImageRow,
    "layers": LayerRow,
    "issues": IssueRow,
    "findings": FindingRow,
    "events": EventRow,
}
"""The report's tables. `runs` is written last."""


def issue_row(found: Issue, run_id: str) -> IssueRow:
    """An issue as a row of the report."""
    return IssueRow(
        run_id=run_id,
        archive=found.archive,
        image_index=found.image_index,
        code=found.code,
        severity=found.severity.value,
        place=found.place,
        message=found.message,
        message_zh=found.message_zh,
        way_out=found.way_out,
        way_out_zh=found.way_out_zh,
        section=found.section,
        swr_code=found.swr_code,
    )
