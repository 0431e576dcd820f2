"""Linting what is named: files of all kinds and images of a store, one result for all of them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..cts import Actor, new_run_id
from ..digest import Cancel
from ..errors import Issue, has_errors
from ..manifests import MAX_FILE
from .catalog import RULES
from .check import lint_dockerfile, lint_workloads
from .dockerfile import MAX_BYTES
from .files import LintFile, context_of, lint_files
from .rule import Finding, Rule
from .workload import parse_workloads, with_surroundings
from .workload_rules import HOSTS

if TYPE_CHECKING:
    from ..store import Store

# What a search met that only looks like an archive of images is passed over.
_NO_IMAGES: Final = ("not-a-tar", "manifest-missing", "filesystem-export", "oci-archive", "archive-empty", "compressed-twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class LintOptions:
    """What is asked for: the rules, the day that ends of life are compared with, the registries (globs) of workloads."""

    rules: Sequence[Rule] = RULES
    today: datetime.date
    registries: tuple[str, ...] = HOSTS


@dataclass(frozen=True, slots=True, kw_only=True)
class LintResult:
    """What was linted, in order, and what was found.

    `files` are paths, of Dockerfiles, archives and manifests; `images` (path or reference, name) what archives and stores held.
    `issues` are of what could not be read.
    """

    files: tuple[str, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()
    issues: tuple[Issue, ...] = ()

    @property
    def failed(self) -> bool:
        return has_errors(self.issues)

    @property
    def counting(self) -> tuple[Finding, ...]:
        """The findings that are not accepted."""
        return tuple(one for one in self.findings if not one.accepted)


def lint_paths(paths: Sequence[str], options: LintOptions, cancel: Cancel) -> LintResult:
    """Lint files (`-`: standard input), and what folders hold: Dockerfiles, archives, workloads.

    An archive that cannot be read is an issue. Raises `UsageError` for a path that holds nothing to lint, `StoreError` when the
    disk of a spool is full, `Cancelled`.
    """
    found = lint_files(paths, cancel)
    manifests = [file for file in found if file.kind == "workload"]
    parsed = [parse_workloads(file.read(MAX_FILE + 1), file.path, cancel) for file in manifests]
    workloads = lint_workloads(with_surroundings(parsed, options.registries), options.rules)
    return joined(
        [
            *(_dockerfile(file, options.rules, cancel) for file in found if file.kind == "dockerfile"),
            LintResult(files=tuple(file.path for file in manifests), findings=workloads),
            _archives([file for file in found if file.kind == "archive"], options, cancel),
        ]
    )


def _dockerfile(file: LintFile, rules: Sequence[Rule], cancel: Cancel) -> LintResult:
    """A Dockerfile of standard input has the working folder as its context, as with `docker build -f - .`."""
    cancel.check()
    found = lint_dockerfile(file.read(MAX_BYTES + 1), file.path, context_of(file.path), rules)
    return LintResult(files=(file.path,), findings=found)


def _archives(found: Sequence[LintFile], options: LintOptions, cancel: Cancel) -> LintResult:
    if not found:
        return LintResult()
    from .batch import OpenArchives, lint_archives  # the store behind it is slow to import, and Dockerfiles need none

    start = next((file.start for file in found if file.path == "-"), b"")
    with OpenArchives(cancel, start=start) as archives:
        linted = lint_archives([file.path for file in found], options.rules, options.today, archives, cancel)
    searched = {file.path for file in found if file.searched}
    none = {issue.archive for issue in linted.issues if issue.archive in searched and issue.code in _NO_IMAGES}
    return LintResult(
        files=tuple(file.path for file in found if file.path not in none),
        images=linted.names,
        findings=linted.findings,
        issues=tuple(issue for issue in linted.issues if issue.archive not in none),
    )


def lint_references(
    open_store: Callable[[], Store],
    names: Sequence[str],
    options: LintOptions,
    actor: tuple[str | None, str | None],
    cancel: Cancel,
) -> LintResult:
    """Lint images of a store (`batch.lint_stored`); `actor` is user and account. Raises what that does."""
    from ..cts import now_ms
    from .batch import lint_stored

    with open_store() as store:
        who: Actor = store.actor(*actor)
        linted = lint_stored(store, names, options.rules, options.today, who, cancel, new_run_id(now_ms()))
    return LintResult(images=linted.names, findings=linted.findings, issues=linted.issues)


def joined(results: Sequence[LintResult]) -> LintResult:
    """Several results as one."""
    return LintResult(
        files=tuple(file for one in results for file in one.files),
        images=tuple(image for one in results for image in one.images),
        findings=tuple(found for one in results for found in one.findings),
        issues=tuple(issue for one in results for issue in one.issues),
    )
