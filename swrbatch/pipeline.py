"""A declared run: what a store is to have, what is imported into it and exported from it, planned first and then applied.

The order is fixed: the store and its settings; administrators, organizations, repositories with their grants, shares and triggers
(all in ONE transaction: a refusal takes all of them back); imports, one after another; triggers carried out in the manifests;
exports; audit exports and the audit report. A step that fails ends the run, but for imports, whose rejections are results.

Applied twice, the second run changes nothing: acts find what they want, imports are unchanged, an export whose file holds these
very images already is left alone. What is not declared is never taken away.

A plan is a run on a copy of the ledger: so it knows what an import may do after the grants before it. The copy shares the
registry's files, which no plan writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from sqlalchemy import select

from .actors import DEFAULT_ACCOUNT, current_actor
from .attempt import LoadRules, OnConflict
from .audit.dataset import Dataset
from .audit.export import export as export_audit
from .audit.report import PAGE, build
from .batch import run_batch
from .batch_options import batch_options
from .compression import Compression
from .cts import Actor, canonical_json, new_run_id, now_ms
from .digest import Cancel
from .disk import disk_errors
from .errors import Cancelled, ExitCode, Refused, StoreError, SwrbatchError, UsageError, printable
from .export import export_images
from .export import select as select_images
from .ledger.access import add_administrator, find, set_grant
from .ledger.acting import Acting, Change, acting
from .ledger.loads import read_state
from .ledger.organizations import create_organization, show_row
from .ledger.repositories import create_repository, edit_repository
from .ledger.schema import events
from .ledger.shares import add_share, edit_share
from .ledger.triggers import add_trigger, edit_trigger, note_runs
from .pipeline_file import ExportSpec, ImportSpec, Pipeline, RepositorySpec
from .policy import parse_reference
from .results import ImageRow, Millis
from .sources import expand
from .store import Store, tag_name
from .tables import RunResult, replacing, rows_to_arrow, write_parquet
from .triggers import run_triggers

if TYPE_CHECKING:
    from sqlalchemy import Connection

Status = Literal["created", "updated", "unchanged", "loaded", "overwritten", "skipped", "rejected", "written", "failed"]
CHANGES: Final = frozenset({"created", "updated", "loaded", "overwritten", "written"})
"""What a step may be that changed something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One step of a pipeline's run: an act, an image, a trigger, an export."""

    run_id: Annotated[str, "the pipeline's run"]
    step: Annotated[int, "the position in the run, from 1"]
    kind: Annotated[
        str, "store, administrator, organization, repository, grant, share, trigger, image, archive, run, export, audit"
    ]
    name: Annotated[str, "what it is about"]
    status: Annotated[
        str, "created, updated, unchanged, loaded, overwritten, skipped, rejected, written or failed; of a plan: what it would be"
    ]
    before: Annotated[str | None, "what was there, as JSON"]
    after: Annotated[str | None, "what is there now, as JSON"]
    detail: Annotated[str, "why it was rejected or failed; else what was done"]
    import_run_id: Annotated[str | None, "the run of the tables runs, archives, images, … that it stands in"]
    planned: Annotated[bool, "whether this was a plan only"]
    time: Annotated[Millis, "when it was done"]


@dataclass(slots=True, kw_only=True)
class PipelineResult:
    """What a run did, or would do; `failure` is what ended it early."""

    run_id: str
    planned: bool
    steps: list[StepRow] = field(default_factory=list)
    failure: SwrbatchError | None = None

    @property
    def exit_code(self) -> ExitCode:
        if self.failure is not None:
            return self.failure.exit_code
        return ExitCode.REJECTED if any(step.status in ("rejected", "failed") for step in self.steps) else ExitCode.OK

    @property
    def changes(self) -> int:
        """How many steps changed something."""
        return sum(step.status in CHANGES for step in self.steps)


def run_pipeline(pipeline: Pipeline, *, dry_run: bool = False, cancel: Cancel | None = None) -> PipelineResult:
    """Apply a pipeline, or with `dry_run` only say what that would do; writes the report (not of a plan).

    Raises `UsageError` for what the file says and the store cannot be. What else ends a run early is the result's `failure`.
    """
    if pipeline.manifests is not None and not os.path.isdir(pipeline.manifests):
        raise UsageError(f"{printable(pipeline.path)}: manifests.folder {printable(pipeline.manifests)} is no folder")
    run = _Run(pipeline, dry_run, cancel or Cancel())
    try:
        with _store(pipeline, dry_run) as (store, new):
            run.work(store, new)
    except (StoreError, Cancelled, Refused, UsageError) as e:
        run.result.failure = e
    if pipeline.report is not None and not dry_run:
        run.write_steps(pipeline.report)
    return run.result


@contextlib.contextmanager
def _store(pipeline: Pipeline, dry_run: bool) -> Iterator[tuple[Store, bool]]:
    """The store, and whether it is a new one; for a plan a copy whose ledger may be written."""
    new = not Store.exists(pipeline.store)
    if not dry_run:
        with Store(pipeline.store, create=True) as store:
            yield store, new
        return
    with tempfile.TemporaryDirectory(prefix="swrbatch-plan-") as folder:
        if not new:
            with Store(pipeline.store):
                pass  # what a crash left is healed there, not here
            _copy_ledger(pipeline.store, folder)
        with Store(folder, create=True) as store:
            yield store, new


def _copy_ledger(store: str, folder: str) -> None:
    with (
        disk_errors("the plan's copy of the ledger cannot be made"),
        contextlib.closing(sqlite3.connect(os.path.join(store, "ledger.db"))) as source,
        contextlib.closing(sqlite3.connect(os.path.join(folder, "ledger.db"))) as copy,
    ):
        source.backup(copy)
    if os.path.isdir(os.path.join(store, "docker")):
        os.symlink(os.path.join(os.path.abspath(store), "docker"), os.path.join(folder, "docker"))


class _Run:
    """One run, or its plan."""

    def __init__(self, pipeline: Pipeline, dry_run: bool, cancel: Cancel) -> None:
        self.pipeline = pipeline
        self.dry_run = dry_run
        self.cancel = cancel
        self.result = PipelineResult(run_id=new_run_id(now_ms()), planned=dry_run)
        self.planned: dict[str, str | None] | None = None

    def work(self, store: Store, new: bool) -> None:
        actor = self._set_up(store, new)
        self._acts(store, actor)
        for spec in self.pipeline.imports:
            self._import(store, actor, spec)
        if self.pipeline.manifests is not None:
            self._triggers(store, actor)
        for export in self.pipeline.exports:
            self._export(store, actor, export)
        self._audit(store)

    def _add(
        self,
        kind: str,
        name: str,
        status: Status,
        *,
        before: Any = None,
        after: Any = None,
        detail: str = "",
        import_run_id: str | None = None,
    ) -> None:
        self.result.steps.append(
            StepRow(
                run_id=self.result.run_id,
                step=len(self.result.steps) + 1,
                kind=kind,
                name=name,
                status=status,
                before=None if before is None else canonical_json(before),
                after=None if after is None else canonical_json(after),
                detail=detail,
                import_run_id=import_run_id,
                planned=self.dry_run,
                time=Millis(now_ms()),
            )
        )

    # --- the store and what the ledger is to have ------------------------------------------------------------------------

    def _set_up(self, store: Store, new: bool) -> Actor:
        had = store.settings()
        account = self.pipeline.account or had.get("account") or str(self.pipeline.settings.get("account") or DEFAULT_ACCOUNT)
        actor = current_actor(account, self.pipeline.user)
        has = store.init(actor=actor, **self.pipeline.settings)
        status: Status = "created" if new else "unchanged" if had == has else "updated"
        self._add("store", self.pipeline.store, status, before=had or None, after=has)
        return actor

    def _acts(self, store: Store, actor: Actor) -> None:
        """All acts in one transaction: committed together, or, when one is refused, not at all."""
        done: list[Change] = []
        try:
            with acting(store.ledger, actor, run_id=self.result.run_id) as act:
                for step in self._declared():
                    self.cancel.check()
                    done.append(step(act))
        except Refused as e:
            for change in done:
                self._add(change.kind, change.name, "skipped", detail="taken back: a later act was refused")
            self._add("act", e.issue.place or actor.user, "rejected", detail=_reason(e.issue))
            raise
        for change in done:
            name = f"{change.name} {change.after['user']}" if change.kind == "grant" and change.after else change.name
            name = f"{change.name} {change.after['access_domain']}" if change.kind == "share" and change.after else name
            self._add(change.kind, name, change.status, before=change.before, after=change.after)  # type: ignore[arg-type]

    def _declared(self) -> Iterator[Callable[[Acting], Change]]:
        for user in self.pipeline.administrators:
            yield partial(add_administrator, user=user)
        for name, grants in self.pipeline.organizations.items():
            yield partial(_organization, name=name)
            for user, level in grants.items():
                yield partial(set_grant, path=name, user=user, level=level)
        for spec in self.pipeline.repositories:
            yield partial(_repository, spec=spec)
            for user, level in spec.grants.items():
                yield partial(set_grant, path=spec.path, user=user, level=level)
            for account, terms in spec.shares.items():
                yield partial(_share, path=spec.path, account=account, terms=terms)
            for name, trigger in spec.triggers.items():
                yield partial(_trigger, path=spec.path, name=name, terms=trigger)

    # --- imports -----------------------------------------------------------------------------------------------------------

    def _import(self, store: Store, actor: Actor, spec: ImportSpec) -> None:
        options = batch_options(**spec.options, user=actor.user, account=actor.account, report=self._report())
        try:
            archives = expand(spec.sources)
        except UsageError as e:
            self._add("archive", ", ".join(spec.sources), "rejected", detail=str(e))
            return
        made = run_batch(archives, store, options, load=not self.dry_run, cancel=self.cancel)
        codes = {(row.archive, row.image_index): row for row in made.issues if row.severity == "error"}
        for image in made.images:
            name = image.reference or image.original_reference or image.archive
            status: Any = image.status
            if status == "valid":
                status = self._foreseen(store, f"{image.organization}/{image.repository}:{image.tag}", image, options.on_conflict)
            found = codes.get((image.archive, image.image_index)) or codes.get((image.archive, None))
            detail = _reason(found) if found and status == "rejected" else image.archive
            after = {"digest": image.manifest_digest, "image_id": image.image_id}
            before = {"digest": image.previous_digest} if image.previous_digest else None
            run_id = None if self.dry_run else made.run.run_id
            self._add("image", name, status, before=before, after=after, detail=detail, import_run_id=run_id)
        self._archives(made)
        if made.failure is not None:
            raise made.failure

    def _foreseen(self, store: Store, name: str, image: ImageRow, on_conflict: OnConflict) -> Status:
        """What the load of an image would come to, after those before it in this plan."""
        if self.planned is None:
            self.planned = {tag_name(row): row.image_id for row in store.tag_rows()}
        had = self.planned.get(name)
        if had == image.image_id:
            return "unchanged"
        if had is not None and on_conflict == "skip":
            return "skipped"
        self.planned[name] = image.image_id
        return "loaded" if had is None else "overwritten"

    def _archives(self, made: RunResult) -> None:
        """Archives without any image: they stand for themselves."""
        for archive in made.archives:
            if not archive.images:
                found = next((row for row in made.issues if row.archive == archive.archive and row.severity == "error"), None)
                detail = _reason(found) if found else ""
                run_id = None if self.dry_run else made.run.run_id
                self._add("archive", archive.archive, "rejected", detail=detail, import_run_id=run_id)

    def _report(self) -> str | None:
        return None if self.dry_run else self.pipeline.report

    # --- afterwards ----------------------------------------------------------------------------------------------------------

    def _triggers(self, store: Store, actor: Actor) -> None:
        assert self.pipeline.manifests is not None
        if self.dry_run:
            self._set_off(store, actor)
        for run in run_triggers(
            store,
            self.pipeline.manifests,
            actor=actor,
            patch_only=self.pipeline.patch_only,
            dry_run=self.dry_run,
            cancel=self.cancel,
        ):
            status: Status = "failed" if run.error else "written" if run.files else "unchanged"
            after = {"image": run.name, "workload": run.workload, "files": list(run.files)}
            self._add("run", f"{run.trigger} {run.name}", status, after=after, detail=run.error)

    def _set_off(self, store: Store, actor: Actor) -> None:
        """Write down in the plan's ledger what its loads would set off."""
        steps = (step for step in self.result.steps if step.kind == "image" and step.status in CHANGES)
        loaded = [(reference, "") for step in steps if (reference := parse_reference(step.name, "api", place="")[0])]
        with store.ledger.write() as connection:
            state = read_state(connection, [reference for reference, _ in loaded], actor, LoadRules())
            known = [(reference, digest) for reference, digest in loaded if reference.path in state.repositories]
            note_runs(connection, state, known, actor, self.result.run_id, now_ms())

    def _export(self, store: Store, actor: Actor, spec: ExportSpec) -> None:
        self.cancel.check()
        form: Any = spec.form
        try:
            images = None if self.dry_run and self._awaited(spec) else select_images(store, spec.images, actor)
        except (Refused, UsageError) as e:
            self._add("export", spec.to, "rejected", detail=_reason(e.issue) if isinstance(e, Refused) else str(e))
            return
        digests = sorted(str(image.manifest.digest) for image in images or ())
        status: Status = "written"
        if images is not None and _exported(store, spec, digests):
            status = "unchanged"
        elif not self.dry_run:
            compression = Compression(spec.compression)
            os.makedirs(os.path.dirname(spec.to), exist_ok=True)
            export_images(store, spec.images, spec.to, form=form, compression=compression, actor=actor, cancel=self.cancel)
        self._add("export", spec.to, status, after={"images": list(spec.images), "digests": digests, "form": spec.form})

    def _awaited(self, spec: ExportSpec) -> bool:
        """Whether a plan's imports would bring one of the images that are to be exported, or change it."""
        coming = {step.name.partition("/")[2] for step in self.result.steps if step.kind == "image" and step.status in CHANGES}
        return any(name in coming or name.partition("/")[2] in coming for name in spec.images)

    def _audit(self, store: Store) -> None:
        for to, form in self.pipeline.audit_exports:
            self.cancel.check()
            if self.dry_run:
                self._add("audit", to, "written", detail=f"the events that are not there yet, as {form}")
                continue
            written = export_audit(store, to, form, now=now_ms())  # type: ignore[arg-type]
            status: Status = "written" if written.events else "unchanged"
            self._add("audit", to, status, after={"events": written.events, "seq": written.seq, "head": written.head})
        if self.pipeline.audit_report is not None:
            exports = [step.status for step in self.result.steps if step.kind == "audit"]
            there = os.path.exists(os.path.join(self.pipeline.audit_report, PAGE))
            if there and set(exports) == {"unchanged"}:
                self._add("audit", self.pipeline.audit_report, "unchanged", detail="no event is new since it was made")
                return
            if not self.dry_run:
                built = build([Dataset(path) for path in self.pipeline.audit_datasets], now=now_ms(), store=store)
                built.write(self.pipeline.audit_report, self.pipeline.audit_lang)  # type: ignore[arg-type]
            self._add("audit", self.pipeline.audit_report, "written", detail="the audit report")

    def write_steps(self, folder: str) -> None:
        """The table `steps`, beside those of the imports. What stands in the way becomes the result's failure."""
        try:
            with disk_errors(f"the report {folder} cannot be written"):
                os.makedirs(os.path.join(folder, "steps"), exist_ok=True)
                with replacing(os.path.join(folder, "steps", f"{self.result.run_id}.parquet")) as temporary:
                    write_parquet(rows_to_arrow(StepRow, self.result.steps), temporary, StepRow)
        except StoreError as e:
            self.result.failure = self.result.failure or e


def _reason(found: Any) -> str:
    return f"{found.code}: {found.message}; way out: {found.way_out}"


def _organization(act: Acting, name: str) -> Change:
    """What is there in the own account is there, whoever manages it."""
    try:
        return create_organization(act, name)
    except Refused as e:
        there = e.issue.code == "organization-exists" and find(act.connection, act.actor, name, act.now).account
        if there != act.actor.account:
            raise
    shown = show_row(act, name)
    return act.changed("unchanged", "organization", before=shown, after=shown)


def _repository(act: Acting, spec: RepositorySpec) -> Change:
    wanted: dict[str, Any] = {"is_public": spec.is_public, "category": spec.category, "description": spec.description}
    try:
        return create_repository(act, spec.path, **wanted)
    except Refused as e:
        if e.issue.code != "repository-exists":
            raise
    return edit_repository(act, spec.path, **wanted)


def _share(act: Acting, path: str, account: str, terms: Any) -> Change:
    try:
        return add_share(act, path, account, terms)
    except Refused as e:
        if e.issue.code != "share-exists":
            raise
    return edit_share(act, path, account, deadline_ms=terms.deadline_ms, description=terms.description)


def _trigger(act: Acting, path: str, name: str, terms: Any) -> Change:
    try:
        return add_trigger(act, path, name, terms)
    except Refused as e:
        if e.issue.code != "trigger-exists":
            raise
    return edit_trigger(act, path, name, {column: getattr(terms, column) for column in type(terms).__slots__})


def _exported(store: Store, spec: ExportSpec, digests: list[str]) -> bool:
    """Whether the file, as it is, holds just these images in this form: by the newest events about it, and by its size."""
    with store.ledger.read() as connection:
        told = _exports(connection, spec.to)
        first = next(told, None)
        if first is None:
            return False
        run_id = first["origin"]["run_id"]
        newest = [first, *takewhile(lambda trace: trace["origin"]["run_id"] == run_id, told)]
    request, sizes = json.loads(newest[0]["request"]), {json.loads(trace["response"])["bytes"] for trace in newest}
    same = (request["form"], request["compression"]) == (spec.form, spec.compression)
    return same and sorted({trace["resource_id"] for trace in newest}) == digests and sizes == {_size(spec.to)}


def _exports(connection: Connection, to: str) -> Iterator[dict[str, Any]]:
    """The exports to a file that went well, the newest first."""
    statement = select(events.c.text).where(events.c.trace_name == "exportImage").order_by(events.c.seq.desc())
    for text in connection.execute(statement).scalars():
        trace = json.loads(text)
        if trace["trace_rating"] == "normal" and json.loads(trace["request"]).get("file") == to:
            yield trace


def _size(path: str) -> int:
    """Bytes of a file, or of all files of a folder; -1 when nothing is there."""
    if os.path.isdir(path):
        return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
    return os.path.getsize(path) if os.path.exists(path) else -1
