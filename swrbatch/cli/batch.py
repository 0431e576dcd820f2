"""`swrbatch check` and `swrbatch import`."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from ..errors import ExitCode, UsageError, printable, to_json_text
from ..sizes import counted, parse_size
from ..sources import SUFFIXES, expand
from .options import (
    Conflict,
    Format,
    FormatOption,
    LangOption,
    Language,
    ManifestsOption,
    PatchOnly,
    Severity,
    cancelled_by_signals,
    check_manifests,
    exits,
    is_terminal,
    lang,
    show,
    store_path,
    tell,
)

app = typer.Typer(rich_markup_mode=None)


class Profile(enum.StrEnum):
    """Whose limits hold (guide 1.5, 4.1, 4.3)."""

    PAGE = "page"
    CLIENT = "client"
    NONE = "none"


class NamingRule(enum.StrEnum):
    """Which rule names follow."""

    GUIDE = "guide"
    API = "api"


class Compress(enum.StrEnum):
    """How layers are stored."""

    AUTO = "auto"
    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"


Archives = Annotated[
    list[str],
    typer.Argument(
        metavar="ARCHIVE",
        help="Files, folders (searched), globs, @list.txt, @- for a list on stdin, - for one archive on stdin.",
    ),
]
Size = Annotated[str | None, typer.Option(metavar="SIZE", help="A size such as 2GiB; overrides the profile's.")]
ReportOption = Annotated[str | None, typer.Option("--report", metavar="DIR", help="Write the Parquet report below DIR.")]
ProfileOption = Annotated[Profile, typer.Option("--profile", help="The limits of the page, the client, or none.")]
MaxFiles = Annotated[int | None, typer.Option("--max-files", min=1, help="Refuse archives beyond this number.")]
NamingOption = Annotated[NamingRule, typer.Option("--naming", help="The guide's naming rule, or today's API's.")]
Registry = Annotated[str | None, typer.Option("--registry", metavar="HOST", help="The registry that every name must have.")]
Org = Annotated[str | None, typer.Option("--org", metavar="NAME", help="The organization that every name must be in.")]
Retag = Annotated[
    list[str] | None,
    typer.Option(
        "--retag",
        metavar="RULE",
        help="PATTERN=TEMPLATE (HOST/old/*=HOST/new/{repository}:{tag}), or a YAML file of rules; the first match wins.",
    ),
]
Into = Annotated[str | None, typer.Option("--into", metavar="HOST/ORG", help="Put names without a registry there.")]
Names = Annotated[
    str | None, typer.Option("--names", metavar="FILE", help="CSV (archive,image_id,reference) for images without a name.")
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Workers (default: one for each processor).")]
Junit = Annotated[str | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop after the first rejected archive.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bars, not even on a terminal.")]
User = Annotated[str | None, typer.Option("--user", metavar="NAME", help="Who acts (default $SWRBATCH_USER, else the login).")]
Account = Annotated[str | None, typer.Option("--account", metavar="NAME", help="The account of the actor (default the store's).")]
OnConflict = Annotated[Conflict, typer.Option("--on-conflict", help="What happens to a tag that has another image.")]
CreateOrg = Annotated[bool, typer.Option("--create-org/--no-create-org", help="Create missing organizations, within the quota.")]
Lint = Annotated[bool, typer.Option("--lint", help="Lint the images too; what is found stands in the report.")]
LintConfig = Annotated[
    str | None, typer.Option("--lint-config", metavar="FILE", help="The configuration of lint, its fail-on too; asks for lint.")
]
LintFailOn = Annotated[
    Severity | None, typer.Option("--lint-fail-on", help="Reject images with findings from this level on; asks for lint.")
]
HashArchives = Annotated[bool, typer.Option("--hash-archives", help="Put each file's sha256 into the report.")]


@app.command("check")
def check(
    archives: Archives,
    store: Annotated[str | None, typer.Option("--store", metavar="DIR", help="Also find what this store would refuse.")] = None,
    report: ReportOption = None,
    profile: ProfileOption = Profile.PAGE,
    max_files: MaxFiles = None,
    max_archive_size: Size = None,
    max_layer_size: Size = None,
    max_decompressed: Size = None,
    naming: NamingOption = NamingRule.GUIDE,
    registry: Registry = None,
    org: Org = None,
    retag: Retag = None,
    into: Into = None,
    names: Names = None,
    user: User = None,
    account: Account = None,
    on_conflict: OnConflict = Conflict.OVERWRITE,
    create_org: CreateOrg = True,
    jobs: Jobs = None,
    format: FormatOption = Format.TEXT,
    junit: Junit = None,
    fail_fast: FailFast = False,
    hash_archives: HashArchives = False,
    lint: Lint = False,
    lint_config: LintConfig = None,
    lint_fail_on: LintFailOn = None,
    no_progress: NoProgress = False,
    lang: LangOption = Language.EN,
) -> None:
    """Check image archives against structure, digests, names and limits; store nothing.

    With --store also find what would be refused there: another registry, the quota of organizations, a tag that exists.
    """
    _run(locals(), load=False)


@app.command("import")
def import_(
    archives: Archives,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="DIR", help="The store, made at need; $SWRBATCH_STORE or ./swr-store."),
    ] = None,
    report: ReportOption = None,
    profile: ProfileOption = Profile.PAGE,
    max_files: MaxFiles = None,
    max_archive_size: Size = None,
    max_layer_size: Size = None,
    max_decompressed: Size = None,
    naming: NamingOption = NamingRule.GUIDE,
    registry: Registry = None,
    org: Org = None,
    retag: Retag = None,
    into: Into = None,
    names: Names = None,
    user: User = None,
    account: Account = None,
    compression: Annotated[Compress, typer.Option("--compression", help="How plain layers are stored.")] = Compress.AUTO,
    on_conflict: OnConflict = Conflict.OVERWRITE,
    create_org: CreateOrg = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check only, against the store.")] = False,
    manifests: ManifestsOption = None,
    patch_only: PatchOnly = False,
    jobs: Jobs = None,
    format: FormatOption = Format.TEXT,
    junit: Junit = None,
    fail_fast: FailFast = False,
    hash_archives: HashArchives = False,
    lint: Lint = False,
    lint_config: LintConfig = None,
    lint_fail_on: LintFailOn = None,
    no_progress: NoProgress = False,
    lang: LangOption = Language.EN,
) -> None:
    """Check image archives and load what passes into a store.

    An image loads whole or not at all; a bad one never stops the others. The effect is that of the archives one after another.
    """
    _run(locals(), load=True)


def _run(given: dict[str, Any], *, load: bool) -> None:
    """Run a batch with the options of the command line, print what came of it, and exit."""
    from ..batch import run_batch, space_warning
    from ..batch_options import batch_options

    dry_run = given.pop("dry_run", False)
    with exits():
        check_manifests(given.get("manifests"), given.get("patch_only", False))
        _check_given(given)
        left_out: list[str] = []
        # Before signals only ask: a list on a terminal or a pipe may never come to its end.
        names = expand(given["archives"], left_out)
        if left_out:
            tell(
                f"swrbatch: {counted(len(left_out), 'file')} left out that may be archives, such as {printable(left_out[0])}: "
                f"in folders only what ends in {', '.join(SUFFIXES)} is taken; name others themselves"
            )
        options = batch_options(**_fields(given), against_new_store=dry_run)
    with exits(), cancelled_by_signals() as cancel:
        with _open_store(given["store"], cancel, load=load, dry_run=dry_run) as opening:
            _check_junit(given["junit"], opening)
            if opening is not None and load and not dry_run and (warning := space_warning(names, opening.folder.path)):
                tell(f"swrbatch: {warning}")
            bars = _bars(given["no_progress"])
            try:
                result = run_batch(names, opening, options, load=load and not dry_run, cancel=cancel, progress=bars)
            finally:
                if bars is not None:
                    bars.close()
            for repository, tag, digest in opening.store().foreign if opening is not None else ():
                tell(f"swrbatch: the tag {repository}:{tag} was pushed over by something else ({digest}) and is kept")
            set_off = []
            if opening is not None and given.get("manifests") is not None and not dry_run and result.failure is None:
                set_off = _run_triggers(opening.store(), given)
        result = _with_junit(result, given)
        _print(result, set_off, given, options.rename)
    raise typer.Exit(int(result.exit_code))


def _check_given(given: Mapping[str, Any]) -> None:
    """UsageError for options with nothing in them: a variable that was not set must not pass for an option that was not given."""
    for name in ("report", "junit", "registry", "org", "into", "names", "lint_config"):
        if given.get(name) == "":
            raise UsageError(f"--{name.replace('_', '-')} is empty (is a variable unset?)")


def _check_junit(path: str | None, opening: Any) -> None:
    """UsageError for a report that could not be written, or that would lie in the store."""
    if path is None:
        return
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder) or os.path.isdir(path):
        raise UsageError(f"--junit {printable(path)}: it must be a file in a folder that there is")
    if opening is not None and opening.folder.holds(path):
        raise UsageError(f"--junit {printable(path)}: it lies in the store, which holds nothing else")


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The options of `batch_options` out of those of the command line."""
    same = ("report", "max_files", "registry", "into", "names", "user", "account", "create_org", "jobs", "fail_fast")
    fields = {name: given[name] for name in (*same, "hash_archives", "lint", "lint_config")}
    for name in ("max_archive_size", "max_layer_size", "max_decompressed"):
        fields[name] = None if given[name] is None else parse_size(given[name])
    for name in ("profile", "naming", "on_conflict", "compression", "lint_fail_on"):
        if given.get(name) is not None:
            fields[name] = given[name].value
    return fields | {"organization": given["org"], "retag": given["retag"] or ()}


@contextmanager
def _open_store(path: str | None, cancel: Any, *, load: bool, dry_run: bool) -> Iterator[Any]:
    """The store of an import (made at need); of a check the one that is named, if any. It is opened while archives are read."""
    from ..opening import Opening
    from ..store_folder import StoreFolder

    if not load and path is None:
        yield None
        return
    if dry_run and not StoreFolder.exists(store_path(path)):
        yield None  # judged against a new store (`against_new_store`)
        return
    with Opening(store_path(path), create=load and not dry_run, cancel=cancel) as opening:
        yield opening


def _bars(no_progress: bool) -> Any:
    if no_progress or not is_terminal(sys.stderr):
        return None
    from .progress import Bars  # tqdm is slow to import

    return Bars()


def _with_junit(result: Any, given: dict[str, Any]) -> Any:
    """Write the JUnit report, if one is asked for; the result, which says so when that failed."""
    from ..errors import StoreError

    if given["junit"] is not None:
        from .junit import write_junit

        try:
            write_junit(given["junit"], result, lang(given["lang"]))
        except StoreError as e:
            failure = result.failure or e
            return replace(result, failure=failure, run=replace(result.run, exit_code=failure.exit_code, error=str(failure)))
    return result


def _run_triggers(store: Any, given: dict[str, Any]) -> list[Any]:
    """Carry out what the loads, and those before them, set off."""
    from ..triggers import run_triggers

    actor = store.actor(given["user"], given["account"])
    return run_triggers(store, given["manifests"], actor=actor, patch_only=given["patch_only"])


def _unused(result: Any, rename: Any) -> list[str]:
    """What was given to rename images and renamed none: mostly a slip of the pen."""
    names = [row.original_reference for row in result.images if row.original_reference is not None]
    nameless = [(row.archive, row.image_id) for row in result.images if row.original_reference is None and row.image_id]
    told: list[str] = rename.unused(names, nameless)
    return told


def _print(result: Any, set_off: list[Any], given: dict[str, Any], rename: Any) -> None:
    if given["format"] is Format.JSON:
        triggers = {"triggers": [asdict(run) for run in set_off]} if given.get("manifests") is not None else {}
        show(to_json_text({**result.to_dict(), **triggers}))
    else:
        from .text import summary, trigger_lines

        show("\n".join([summary(result, lang(given["lang"])), *trigger_lines(set_off)]))
    # A run that ended early has not met all names.
    for unused in _unused(result, rename) if result.run.error is None else ():
        tell(f"swrbatch: {unused} matched nothing")
    if result.run.error is not None:
        tell(f"swrbatch: {result.run.error}")


__all__ = ["ExitCode", "UsageError", "app"]
