"""Bulk check and import: joins the stages, yields one result an image reference.

What this module guarantees:

* the effect is that of the archives one after another in the order given, however many workers read them: results are judged and
  committed by one thread, in order, in groups (whatever is ready makes one group, so many small images share their syncs);
* a bad image never stops the batch; what ends a run early (an interrupt, a full disk) still leaves a report of what was done;
* memory does not grow with the archives' sizes, only with the number of rows reported.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .actors import DEFAULT_ACCOUNT, current_actor
from .allocation import keep_memory
from .attempt import Attempt, Decision, LoadResult, LoadRules, Status, with_refusals
from .batch_options import BatchOptions, batch_options
from .compression import Compression
from .cts import Actor, new_run_id, now_ms
from .digest import Cancel, Digest
from .errors import Cancelled, ExitCode, Issue, StoreError, SwrbatchError, UsageError, has_errors, issue, printable
from .opening import Opening
from .order import Order
from .policy import limits_for
from .prepare import Prepared, PreparedImage, Progress, Rules, Workshop, file_size, prepare
from .sizes import format_size
from .staging import Staging

if TYPE_CHECKING:
    from .ledger.loads import LoadState
    from .lint.gate import Gate, Gated
    from .outcome import Outcome
    from .store import Store
    from .tables import RunResult

GROUP: Final = 128
"""Archives committed together at most."""
AHEAD: Final = 2 * GROUP
"""Archives read ahead of the one to be committed next, at most."""
AHEAD_BYTES: Final = 8 << 30
"""Bytes of their files: what is read ahead lies staged on the store's disk."""

_T = TypeVar("_T")
Archives = Sequence[str | os.PathLike[str]] | str | os.PathLike[str]


def check_archives(archives: Archives, *, store: Store | None = None, cancel: Cancel | None = None, **options: Any) -> RunResult:
    """Check archives (one path, or several) and store nothing; with a `store` also find what would be refused there.

    `archives` are files as they are named: `sources.expand` finds those of folders, globs and lists.
    `options`: the fields of `BatchOptions` by name, single limits (`max_files`; `max_archive_size`, `max_layer_size`,
    `max_decompressed` in bytes or as `2GiB`), renaming (`retag`, `into`, `names`) and lint (`lint=True`; `lint_config`, a file,
    and `lint_fail_on`, the level from which on findings refuse an image, ask for it too). Raises `UsageError` for wrong ones.
    """
    return _raise_failure(run_batch(archives, store, batch_options(**options), load=False, cancel=cancel))


def import_archives(
    archives: Archives,
    store: Store | str | os.PathLike[str],
    *,
    cancel: Cancel | None = None,
    **options: Any,
) -> RunResult:
    """Check archives and load what passes into `store` (a path is opened, and made at need).

    `options` as for `check_archives`. Raises `UsageError`, and `StoreError` when the store fails; the report, if one is asked
    for, is written before. An interrupted run is returned with the exit code 130.
    """
    chosen = batch_options(**options)
    if isinstance(store, str | os.PathLike):
        with Opening(store, create=True) as opening:
            return _raise_failure(run_batch(archives, opening, chosen, load=True, cancel=cancel))
    return _raise_failure(run_batch(archives, store, chosen, load=True, cancel=cancel))


def _raise_failure(result: RunResult) -> RunResult:
    if isinstance(result.failure, StoreError):
        raise result.failure
    return result


def run_batch(
    archives: Archives,
    store: Store | Opening | None,
    options: BatchOptions,
    *,
    load: bool,
    cancel: Cancel | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Run a batch to its end or to what stops it; writes the report.

    Reading begins before a store that is not open yet is opened. Raises what keeps it from being opened, and `UsageError`; what
    happens later, `RunResult.failure` holds.
    """
    opening = store if store is None or isinstance(store, Opening) else Opening.of(store)
    names = [archives] if isinstance(archives, str | os.PathLike) else archives
    return _Batch([os.fspath(name) for name in names], opening, options, load, cancel or Cancel(), progress).run()


class _Pool(ThreadPoolExecutor):
    """Threads without which there is no run: where the system gives none, the run ends with what to do about it."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError as e:
            raise StoreError(f"the system gives no more threads ({e}): allow more (ulimit -u, a container's pids limit)") from e


class _Batch:
    """One run: its workers, its order, its rows."""

    def __init__(
        self,
        names: list[str],
        opening: Opening | None,
        options: BatchOptions,
        load: bool,
        cancel: Cancel,
        progress: Progress | None,
    ) -> None:
        self.names = names
        self.opening = opening
        self.options = options
        self.load = load
        self.cancel = cancel
        self.ended = Cancel()
        self.progress = progress
        self.limits = options.limits or limits_for(options.profile)
        self.started = now_ms()
        self.run_id = new_run_id(self.started)
        self._check_report()
        self.store: Store | None = None
        self.met = False
        self.actor: Actor
        self.rules: LoadRules
        self.planned: LoadState
        self.seen: dict[str, tuple[str, str, bool]] = {}
        self.gated: Gated | None = None
        self.outcome: Outcome
        self.order: Order | None = None
        self.staging: Staging | None = None
        self.tmp = ""
        self.left = 0

    def _meet_store(self) -> None:
        """Open the store, if there is one, and hold the options against what it has set; once."""
        if self.met:
            return
        from .outcome import Outcome

        self.outcome = Outcome(self.run_id, self.limits)
        options, settings = self.options, {}
        if self.opening is not None:
            self.store = self.opening.store()
            settings = self.store.settings()
            self._check_registry(settings)
        self.actor = current_actor(options.account or settings.get("account") or DEFAULT_ACCOUNT, options.user)
        if self.store is not None or options.against_new_store:
            from .ledger.loads import LoadState
            from .store import initial_settings

            defaults = initial_settings(registry=options.registry, account=self.actor.account)
            self.rules = LoadRules(
                on_conflict=options.on_conflict, create_org=options.create_org, profile=options.profile, defaults=defaults
            )
            # Of a store that is there its own settings count, and only what it has not set is taken from the defaults.
            self.planned = LoadState(settings={} if self.store is not None else dict(defaults))
        self.met = True

    def _known_layers(self, diff_ids: Iterable[Digest], media_type: str) -> dict[Digest, tuple[Digest, int]]:
        """`Store.known_layers`, for workers: of a folder that had no ledger nothing is asked before there is one."""
        assert self.opening is not None
        if self.opening.folder.new and not self.opening.done:
            return {}
        return self.opening.wait(self.ended).known_layers(diff_ids, media_type)

    def _check_registry(self, settings: Mapping[str, str]) -> None:
        have, want = settings.get("registry"), self.options.registry
        if have and want and have.lower() != want.lower():
            raise UsageError(
                f"the store is that of the registry {have} (one store has one registry): --registry {want} cannot be"
            )

    def _check_report(self) -> None:
        report = self.options.report
        if report is not None and os.path.exists(report) and not os.path.isdir(report):
            raise UsageError(f"--report {printable(report)}: it is no folder; name one, it is made at need")
        if report is not None and self.opening is not None and self.opening.folder.holds(report):
            raise UsageError(f"--report {report}: it lies in the store, which holds nothing else; name a folder beside it")

    # --- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> RunResult:
        failure: SwrbatchError | None = None
        try:
            with ExitStack() as stack:
                if self.opening is not None and self.load:
                    self.tmp = stack.enter_context(self.opening.folder.run(self.run_id, self.cancel))
                self._work(stack)
        except (StoreError, Cancelled) as e:
            failure = e
        self._meet_store()
        result = self._result(failure)
        if self.options.report is not None:
            from .tables import write_report

            try:
                write_report(self.options.report, result)
            except StoreError as e:
                failure = failure or e
                result = replace(result, failure=failure, run=replace(result.run, exit_code=ExitCode.STORE, error=str(failure)))
        return result

    def _work(self, stack: ExitStack) -> None:
        if self.options.lint is not None:
            self._meet_store()  # what it refuses is told before all images are read
            self.gated = self.outcome.gated = self._lint(self.options.lint, stack)
        keep_memory()
        jobs = self.options.jobs or os.cpu_count() or 1
        kinds = {"archive": _Pool, "layer": _Pool, "block": ThreadPoolExecutor}
        pools = [kind(jobs, thread_name_prefix=f"swrbatch-{what}") for what, kind in kinds.items()]
        # A run that ends early does not wait for what has not begun; what has begun ends at its next chunk.
        for pool in pools:
            stack.callback(pool.shutdown, cancel_futures=True)
        stack.callback(self.ended.set)
        target = {"auto": Compression.GZIP}.get(self.options.compression) or Compression(self.options.compression)
        if self.opening is not None and self.load:
            self.staging = Staging(self.opening.folder.layout, self.tmp, target)
            self.order = Order(self.staging)
        shop = Workshop(
            rules=Rules(
                limits=self.limits,
                naming=self.options.naming,
                registry=self.options.registry if self.opening is None else None,
                organization=self.options.organization,
                rename=self.options.rename,
                hash_archives=self.options.hash_archives,
            ),
            cancel=self.ended,
            target=target,
            layer_pool=pools[1],
            block_pool=pools[2] if jobs > 1 else None,
            spool_dir=self.tmp or None,
            known_layers=self._known_layers if self.opening is not None else None,
            staging=self.staging,
            progress=self.progress,
            gated=self.gated,
        )
        if self.progress is not None:
            self.progress.start(len(self.names), sum(file_size(name) or 0 for name in self.names))
        for group in self._groups(pools[0], shop):
            self._commit(group)
            if self.options.fail_fast and self.outcome.any_rejected:
                self.left = len(self.names) - len(self.outcome.archives)
                return

    def _lint(self, gate: Gate, stack: ExitStack) -> Gated:
        """Lint the images of all archives, of which what can be read only once stays open until the run ends."""
        from .lint.batch import OpenArchives
        from .lint.gate import lint_batch

        bound, hashed = self.limits.max_decompressed, self.options.hash_archives
        opened = OpenArchives(self.cancel, self.tmp or None, bound, hash_once=hashed)
        archives = stack.enter_context(opened)
        names = self.names[: self.limits.max_files]
        progress = self.progress.lint if self.progress is not None else None
        return lint_batch(names, gate, self.options.rename, archives, self.cancel, progress)

    def _groups(self, pool: ThreadPoolExecutor, shop: Workshop) -> Iterator[list[Prepared]]:
        """Prepared archives in order; whatever is ready together comes together."""
        queue: deque[tuple[int, Future[Prepared]]] = deque()
        rest = iter(enumerate(self.names))
        largest = 1 if self.options.fail_fast else GROUP

        ahead = 0

        def fill() -> None:
            nonlocal ahead
            while len(queue) < (1 if self.options.fail_fast else AHEAD) and (not queue or ahead < AHEAD_BYTES):
                if (item := next(rest, None)) is None:
                    return
                ahead += file_size(item[1]) or 0
                queue.append((item[0], pool.submit(prepare, item[1], item[0], shop)))

        fill()
        # Only now: importing what opens a ledger takes as long as reading a hundred MiB, and the workers do that meanwhile.
        self._meet_store()
        while queue:
            group: list[Prepared] = []
            while queue and len(group) < largest and (not group or queue[0][1].done()):
                position, future = queue.popleft()
                group.append(self._wait(future))
                ahead -= file_size(self.names[position]) or 0
            fill()
            yield group

    def _wait(self, future: Future[Prepared]) -> Prepared:
        while True:
            self.cancel.check()
            try:
                return future.result(timeout=0.1)
            except FutureTimeout:
                continue

    # --- committing --------------------------------------------------------------------------------------------------

    def _commit(self, group: list[Prepared]) -> None:
        staged = [{*itertools.chain.from_iterable(attempt.blobs for attempt in _attempts(prepared))} for prepared in group]
        for prepared in group:
            broken = has_errors(prepared.issues)
            for image in prepared.images:
                extra = () if broken or image.attempt.refused else tuple(self._repeated(image))
                shared = tuple(found for found in prepared.issues if found.is_error)
                image.attempt = replace(image.attempt, issues=(*image.attempt.issues, *shared, *extra))
        attempts = [attempt for prepared in group for attempt in _attempts(prepared)]
        if self.store is None and not self.options.against_new_store:
            results = [LoadResult(a, tuple(_verdict(a) for _ in a.references)) for a in attempts]
        elif self.store is None:
            from .judging import judge_attempt

            judged = [judge_attempt(attempt, self.planned, self.actor, self.rules) for attempt in attempts]
            results = [with_refusals(LoadResult(a, tuple(map(_as_check, d)))) for a, d in zip(attempts, judged, strict=True)]
        elif self.order is not None:
            results = self._load(self.store, self.order, attempts, [image for prepared in group for image in _images(prepared)])
        else:
            judged = self.store.judge(attempts, self.actor, self.rules, self.planned)
            results = [with_refusals(LoadResult(a, tuple(map(_as_check, d)))) for a, d in zip(attempts, judged, strict=True)]
        outcomes = iter(results)
        for prepared, blobs in zip(group, staged, strict=True):
            of_it = [next(outcomes) for _ in _attempts(prepared)]
            self.outcome.add(self.names[prepared.position], prepared, of_it)
            if self.staging is not None:
                # A layer that came in another form before has given up its own blob while it was loaded.
                blobs.update(*(result.attempt.blobs for result in of_it))
                self.staging.release(prepared.position, blobs)

    def _load(
        self, store: Store, order: Order, attempts: Sequence[Attempt], images: Sequence[PreparedImage | None]
    ) -> list[LoadResult]:
        """Load attempts in order: together, or one by one where a layer came in another form than an earlier archive's."""

        def load(attempts: Sequence[Attempt], images: Sequence[PreparedImage | None]) -> list[LoadResult]:
            results = store.load(attempts, self.actor, self.rules, self.run_id, self.tmp)
            for image, result in zip(images, results, strict=True):
                if image is not None and result.there:
                    order.loaded(image)
            return results

        if order.agrees(image for image in images if image is not None and not image.attempt.refused):
            return load(attempts, images)
        results = []
        for attempt, image in zip(attempts, images, strict=True):
            if image is not None and not attempt.refused:
                order.settle(image)
                attempt = image.attempt
            results += load([attempt], [image])
        return results

    def _repeated(self, prepared: PreparedImage) -> Iterator[Issue]:
        """Issues of names that this run has met with another image, and a note of those that are new."""
        attempt, image = prepared.attempt, prepared.image
        where = f"{attempt.archive} image {image.index}"
        image_id = str(image.config.digest) if image.config else ""
        for reference in attempt.references:
            key, by_rule = str(reference), prepared.renamed.get(reference, False)
            first = self.seen.get(key)
            if first is not None and first[0] != image_id:
                code = "reference-conflict" if self.options.on_conflict == "fail" else "reference-repeated"
                if by_rule or first[2]:
                    code = "retag-collision"
                found = issue(code, reference=key, first=first[1], place=f"manifest[{image.index}].RepoTags")
                yield found.at(archive=attempt.archive, image_index=image.index)
                if found.is_error:
                    continue
            self.seen[key] = (image_id, where if first is None else first[1], by_rule)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _result(self, failure: SwrbatchError | None) -> RunResult:
        options = {
            f.name: getattr(self.options, f.name)
            for f in dataclasses.fields(self.options)
            if f.name not in ("limits", "rename", "profile", "user", "account", "lint")
        }
        options |= self.options.rename.told
        options |= self.options.lint.told if self.options.lint is not None else {"lint": False}
        return self.outcome.result(
            failure,
            command="import" if self.load else "check",
            started=self.started,
            store=self.store.path if self.store else None,
            profile=self.options.profile,
            options=options,
            actor=self.actor,
            left=self.left,
        )


def _images(prepared: Prepared) -> list[PreparedImage | None]:
    """The images that `_attempts` is about."""
    return [*prepared.images] or [None]


def _attempts(prepared: Prepared) -> list[Attempt]:
    """The attempts of an archive: one an image, or one for the archive itself when it has none."""
    if prepared.images:
        return [image.attempt for image in prepared.images]
    issues = tuple(prepared.issues)
    return [
        Attempt(
            archive=prepared.name,
            image_index=0,
            originals=(),
            references=(),
            started_ms=prepared.started_ms,
            issues=issues,
        )
    ]


def _verdict(attempt: Attempt) -> Decision:
    return Decision("rejected" if attempt.refused else "valid")


def _as_check(decision: Decision) -> Decision:
    status: Status = "rejected" if decision.status == "rejected" else "valid"
    return replace(decision, status=status)


def space_warning(archives: Sequence[str], store: str) -> str | None:
    """A sentence when the store's disk may be too small for these archives; None when it is large enough.

    The estimate is an upper bound: the files as they are, and for a compressed one its spool at three times its size.
    """
    need = sum(file_size(name) or 0 for name in archives)
    folder = store
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder) or "."
    free = shutil.disk_usage(folder).free
    if need <= free:
        return None
    return (
        f"the archives are {format_size(need)} together, {folder} has {format_size(free)} free: "
        "the run stops with exit code 3 if that does not suffice; what was loaded until then stays"
    )
