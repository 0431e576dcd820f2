"""What came of a run: its rows, collected as its archives are done, and at its end the `RunResult`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .attempt import Decision, LoadResult
from .cts import Actor, now_ms
from .errors import ExitCode, SwrbatchError, codes_of
from .image import layer_media_type
from .policy import Limits, upload_seq
from .prepare import Prepared, PreparedImage
from .redaction import assigned, redacted, secret_values
from .results import ArchiveRow, EventRow, FindingRow, ImageRow, IssueRow, LayerRow, Millis, RunRow, issue_row
from .sizes import counted
from .tables import RunResult

if TYPE_CHECKING:
    from .lint.gate import Gated


class Outcome:
    """The rows of the run `run_id`, which is judged by `limits`; `gated` is what lint found, if it was asked."""

    def __init__(self, run_id: str, limits: Limits) -> None:
        self.run_id = run_id
        self.limits = limits
        self.gated: Gated | None = None
        self.archives: list[ArchiveRow] = []
        self.images: list[ImageRow] = []
        self.layers: list[LayerRow] = []
        self.issues: list[IssueRow] = []
        self.findings: list[FindingRow] = []
        self.events: list[EventRow] = []
        self.stored: dict[str, int] = {}

    @property
    def any_rejected(self) -> bool:
        return any(row.status in ("rejected", "partial") for row in self.archives)

    def add(self, name: str, prepared: Prepared, results: Sequence[LoadResult]) -> None:
        """The rows of an archive, `name` on the command line, with the results of its images (or of itself, when it has none)."""
        issues = [*prepared.issues]
        statuses: list[str] = []
        for image, result in zip(prepared.images, results, strict=False):
            # An archive's own errors refuse each of its images, but stand in the report once.
            issues += [found for found in result.attempt.issues if found not in prepared.issues]
            rows = self._image_rows(image, result)
            statuses += [row.status for row in rows]
            self.images += rows
            self._layer_rows(image, result)
            self._finding_rows(name, prepared, image)
        for result in results:
            self.events += [self._event_row(row) for row in result.events]
        self.issues += [issue_row(found, self.run_id) for found in issues]
        self.archives.append(
            ArchiveRow(
                run_id=self.run_id,
                upload_seq=upload_seq(prepared.position, self.limits),
                archive=prepared.name,
                sha256=str(prepared.sha256) if prepared.sha256 else None,
                format=prepared.format,
                producer_hint=prepared.producer_hint,
                outer_compression=prepared.compression.value if prepared.compression else None,
                bytes=prepared.file_bytes,
                uncompressed_bytes=prepared.uncompressed_bytes,
                images=len(prepared.images),
                status=_archive_status(statuses),
                issue_codes=tuple(codes_of(issues)),
                seconds=round(prepared.seconds, 6),
            )
        )

    def _image_rows(self, prepared: PreparedImage, result: LoadResult) -> list[ImageRow]:
        attempt = result.attempt
        config, manifest, record = prepared.image.config, attempt.manifest, attempt.record
        reused = sum({t.digest: t.size for t in prepared.taken if t.reused}.values())
        known = bool(prepared.taken) or (config is not None and not config.diff_ids)
        common: dict[str, Any] = {
            "run_id": self.run_id,
            "archive": attempt.archive,
            "image_index": attempt.image_index,
            "image_id": str(config.digest) if config else None,
            "source_index_digest": _text(prepared.image.oci.index_digest) if prepared.image.oci else None,
            "architecture": config.architecture if config else None,
            "os": config.os if config else None,
            "created": config.created if config else None,
            "docker_version": (config.docker_version or None) if config else None,
            "layers": len(prepared.image.layers),
            "uncompressed_bytes": record.uncompressed_bytes if record and known else None,
            "issue_codes": tuple(codes_of(attempt.issues)),
        }
        decisions = iter(zip(attempt.references, result.decisions, strict=True))
        rows = []
        for original, reference in zip(attempt.originals or ("",), prepared.parsed or (None,), strict=False):
            decision = next(decisions)[1] if reference is not None else Decision("rejected")
            stored = manifest if decision.there else None
            rows.append(
                ImageRow(
                    original_reference=original or None,
                    reference=str(reference) if reference else None,
                    registry=reference.registry if reference else None,
                    organization=reference.namespace if reference else None,
                    repository=reference.repository if reference else None,
                    tag=reference.tag if reference else None,
                    manifest_digest=str(stored.digest) if stored else None,
                    media_type=stored.media_type if stored else None,
                    stored_bytes=record.stored_bytes if record and stored else None,
                    reused_bytes=reused if stored else None,
                    status=decision.status,
                    previous_digest=decision.previous,
                    **common,
                )
            )
            if decision.status in ("loaded", "overwritten"):
                for taken in prepared.taken:
                    # Whichever archive of the run staged it: it came with this run.
                    if taken.staged is not None or not taken.reused:
                        self.stored[str(taken.digest)] = taken.size
        return rows

    def _layer_rows(self, prepared: PreparedImage, result: LoadResult) -> None:
        attempt = prepared.attempt
        manifest = attempt.manifest if result.there else None
        config = prepared.image.config
        told = config.created_by() if config else ()
        secret = secret_values(pair for step in told for pair in assigned(step))
        steps = [redacted(step, secret) for step in told]
        for position, (source, taken) in enumerate(zip(prepared.image.layers, prepared.taken, strict=False)):
            facts = taken.facts
            self.layers.append(
                LayerRow(
                    run_id=self.run_id,
                    archive=attempt.archive,
                    image_index=attempt.image_index,
                    image_id=str(config.digest) if config else "",
                    layer_index=position,
                    diff_id=str(facts.diff_id),
                    digest=str(taken.digest if manifest else facts.source_digest),
                    media_type=manifest.layers[position].media_type if manifest else layer_media_type(source.compression),
                    uncompressed_bytes=facts.uncompressed_bytes,
                    stored_bytes=taken.size if manifest else facts.source_bytes,
                    in_store=manifest is not None,
                    reused=taken.reused and manifest is not None,
                    created_by=steps[position] if position < len(steps) else None,
                )
            )

    def _finding_rows(self, name: str, prepared: Prepared, image: PreparedImage) -> None:
        if self.gated is not None and image.image.config is not None:
            image_id = str(image.image.config.digest)
            self.findings += self.gated.rows(name, prepared.name, image.image.index, image_id, self.run_id)

    def _event_row(self, row: Mapping[str, Any]) -> EventRow:
        trace = json.loads(row["text"])
        same = ("trace_id", "trace_name", "trace_rating", "trace_type", "service_type", "resource_type", "resource_name")
        more = ("resource_id", "code", "request", "response", "tracker_name")
        return EventRow(
            run_id=self.run_id,
            seq=row["seq"],
            time=Millis(trace["time"]),
            record_time=Millis(trace["record_time"]),
            account=trace["user"]["domain"]["name"],
            user=trace["user"]["name"],
            login=trace["origin"]["login"],
            host=trace["origin"]["host"],
            ci_job=trace["origin"]["ci_job"],
            hash=row["hash"],
            **{name: trace[name] for name in (*same, *more)},
        )

    def result(
        self,
        failure: SwrbatchError | None,
        *,
        command: str,
        started: int,
        store: str | None,
        profile: str,
        options: Mapping[str, Any],
        actor: Actor,
        left: int,
    ) -> RunResult:
        """The run as it ended now: `failure` is what ended it early, or `left` archives were not looked at (--fail-fast).

        The rest goes into its row. `started` in ms UTC.
        """
        from . import __version__

        error = str(failure) if failure else None
        if left and failure is None:
            error = f"stopped at the first rejected archive (--fail-fast): {counted(left, 'archive')} not looked at"

        counts = dict.fromkeys(("loaded", "overwritten", "unchanged", "skipped", "rejected", "valid"), 0)
        for row in self.images:
            counts[row.status] += 1
        counts["rejected"] += sum(row.status == "rejected" and not row.images for row in self.archives)
        code = ExitCode.REJECTED if counts["rejected"] else ExitCode.OK
        if failure is not None:
            code = failure.exit_code
        limits = dataclasses.asdict(self.limits)
        limits["outer_compressions"] = sorted(limits["outer_compressions"]) if limits["outer_compressions"] else None
        accepted = {
            (row.archive, row.image_index): row.reused_bytes or 0
            for row in self.images
            if row.status not in ("rejected", "skipped")
        }
        return RunResult(
            run=RunRow(
                run_id=self.run_id,
                command=command,
                started=Millis(started),
                ended=Millis(now_ms()),
                store=store,
                tool_version=__version__,
                profile=profile,
                limits=json.dumps(limits, sort_keys=True),
                options=json.dumps(options, sort_keys=True),
                account=actor.account,
                user=actor.user,
                login=actor.login,
                host=actor.host,
                ci_job=actor.ci_job,
                archives=len(self.archives),
                images=len(self.images),
                **counts,
                bytes_in=sum(row.bytes or 0 for row in self.archives),
                bytes_stored=sum(self.stored.values()),
                bytes_reused=sum(accepted.values()),
                exit_code=code,
                error=error,
            ),
            archives=tuple(self.archives),
            images=tuple(self.images),
            layers=tuple(self.layers),
            issues=tuple(self.issues),
            findings=tuple(self.findings),
            events=tuple(self.events),
            failure=failure,
        )


def _archive_status(statuses: Sequence[str]) -> str:
    """One word for an archive: what all its images are, or `partial`."""
    kinds = {"loaded" if status == "overwritten" else status for status in statuses}
    if not kinds or kinds == {"rejected"}:
        return "rejected"
    if "rejected" in kinds:
        return "partial"
    for status in ("loaded", "valid", "unchanged"):
        if status in kinds:
            return status
    return "skipped"


def _text(value: object) -> str | None:
    return None if value is None else str(value)
