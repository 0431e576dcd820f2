"""`swrbatch audit …`."""

from __future__ import annotations

import enum
import json
import os
import sys
import time
from typing import Annotated, Any

import typer

from ..errors import ExitCode, UsageError
from ..sizes import counted
from .options import Format, FormatOption, LangOption, Language, Severity, exits, lang, show, store_path, tell

app = typer.Typer(rich_markup_mode=None)
audit = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="The audit trail: catalog, ingest, export, query, report, reconcile, verify, prune.",
)
app.add_typer(audit, name="audit")


class Catalog(enum.StrEnum):
    """The event catalogs."""

    GUIDE_2020 = "guide_2020"
    V0 = "v0"
    V1 = "v1"
    V2 = "v2"


class ExportForm(enum.StrEnum):
    """What an export writes."""

    PARQUET = "parquet"
    CTS_OBS = "cts-obs"
    CTS_API = "cts-api"
    OCSF = "ocsf"
    CSV = "csv"


class QueryFormat(enum.StrEnum):
    """How a query is printed."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


StoreDir = Annotated[
    str | None, typer.Option("--store", metavar="DIR", help="The store's folder; $SWRBATCH_STORE or ./swr-store if not given.")
]
UserOption = Annotated[
    str | None, typer.Option("--user", metavar="NAME", help="Who acts (default $SWRBATCH_USER, else the login).")
]
CatalogOption = Annotated[Catalog, typer.Option("--catalog", help="The catalog of events.")]


def _now() -> int:
    return time.time_ns() // 1_000_000


@audit.command("catalog")
def catalog(name: CatalogOption = Catalog.GUIDE_2020, format: FormatOption = Format.TEXT) -> None:
    """List the events of a catalog: operation (zh, en), resource type, event, who emits it."""
    from ..cts import EMITTED
    from ..cts import catalog as entries
    from .text import table

    with exits():
        listed = list(entries(name.value).values())
    names = ("operation", "operation_en", "resource_type", "trace_name", "emitted_by")
    rows = [
        (e.operation, e.operation_en, e.resource_type, e.trace_name, "SWR, swrbatch" if e.trace_name in EMITTED else "SWR")
        for e in listed
    ]
    if format is Format.JSON:
        show(json.dumps([dict(zip(names, row, strict=True)) for row in rows], ensure_ascii=False))
    else:
        show(table(["operation", "in English", "resource type", "event", "emitted by"], rows))


@audit.command("ingest")
def ingest(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Trace files, folders, globs.")],
    to: Annotated[str, typer.Option("--to", metavar="DATASET", help="The dataset; made at need.")],
    name: CatalogOption = Catalog.GUIDE_2020,
    format: FormatOption = Format.TEXT,
) -> None:
    """Take CTS trace files into a dataset of checked Parquet; what was taken before is not taken again."""
    import dataclasses

    from ..audit.dataset import Dataset
    from ..audit.ingest import ingest as run

    with exits():
        result = run(paths, Dataset(to, create=True, catalog=name.value), now=_now())
    for reject in result.rejects:
        tell(f"swrbatch: rejected {reject}")
    if more := result.rejected - len(result.rejects):
        tell(f"swrbatch: and {counted(more, 'more record')}")
    if format is Format.JSON:
        show(json.dumps(dataclasses.asdict(result)))
        return
    show(f"files     {result.files} taken, {result.files_known} known before, {result.digest_files} of them digests")
    show(f"traces    {result.records} read, {result.kept} kept, {result.duplicates} duplicates dropped")
    show(f"rejected  {counted(result.rejected, 'record')}" + (f" (see {to}/_swrbatch/rejects)" if result.rejected else ""))
    for flag, count in result.flags.items():
        show(f"flag      {flag}: {count}")


@audit.command("export")
def export(
    to: Annotated[str, typer.Option("--to", metavar="DEST", help="The destination, a folder of its own for each form.")],
    store: StoreDir = None,
    form: Annotated[ExportForm, typer.Option("--as", help="What to write.")] = ExportForm.PARQUET,
    since: Annotated[
        str, typer.Option("--since", metavar="last|TIME", help="What is not there yet, or only events recorded since then.")
    ] = "last",
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only events recorded before then.")] = None,
    sign_key: Annotated[
        str | None, typer.Option("--sign-key", metavar="FILE", help="An RSA key (PEM) that signs the digest files of cts-obs.")
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Write the store's events that the destination does not have yet, each exactly once.

    A period (--since TIME, --until TIME) may go to the same destination as the hourly run: nothing is written twice.
    """
    import dataclasses

    from ..audit.export import export as run
    from ..store import Store

    with exits(), Store(store_path(store)) as opened:
        begin = None if since == "last" else _time(since)
        end = None if until is None else _time(until)
        result = run(opened, to, form.value, now=_now(), since=begin, until=end, sign_key=sign_key)
    for first, last in result.missing:
        tell(f"swrbatch: events {first} to {last} were pruned before and are not in {to}")
    if result.lost:
        there = f"{counted(len(result.lost), 'file')} of earlier runs, first {result.lost[0]}, not in {to} any more"
        tell(f"swrbatch: {there}: their events are not written again (swrbatch audit verify {to} tells all)")
    if format is Format.JSON:
        show(json.dumps(dataclasses.asdict(result)))
        return
    known = f", {result.duplicates} were there already" if result.duplicates else ""
    show(f"{counted(result.events, 'event')} written{known}, up to sequence {result.seq}")
    show(f"chain head {result.head}")


@audit.command("query")
def query(
    dataset: Annotated[str | None, typer.Argument(metavar="DATASET", help="A dataset; without it the store.")] = None,
    store: StoreDir = None,
    trace_id: Annotated[str | None, typer.Option(help="One trace; overrides all other filters.")] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help="After this time (2026-01-31T00:00:00Z).")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Before this time.")] = None,
    last: Annotated[str | None, typer.Option("--last", metavar="1h|1d|1w", help="The last hour, day or week.")] = None,
    user: Annotated[str | None, typer.Option(help="Name of the user.")] = None,
    account: Annotated[str | None, typer.Option(help="Name of the account.")] = None,
    service_type: Annotated[str | None, typer.Option(help="Such as SWR.")] = None,
    resource_type: Annotated[str | None, typer.Option(help="Such as image.")] = None,
    resource_id: Annotated[str | None, typer.Option(help="Id of the resource.")] = None,
    resource_name: Annotated[str | None, typer.Option(help="Such as team/hello:v1.")] = None,
    trace_name: Annotated[str | None, typer.Option(help="Such as uploadImagePackage.")] = None,
    trace_rating: Annotated[str | None, typer.Option(help="normal, warning or incident.")] = None,
    trace_type: Annotated[str | None, typer.Option(help="Such as ApiCall.")] = None,
    event_type: Annotated[str | None, typer.Option(help="Such as system.")] = None,
    tracker_name: Annotated[str | None, typer.Option(help="Name of the tracker.")] = None,
    enterprise_project_id: Annotated[str | None, typer.Option(help="Enterprise project.")] = None,
    source_ip: Annotated[str | None, typer.Option(help="Source address.")] = None,
    flag: Annotated[str | None, typer.Option(help="A finding of the checks, such as unknown-event.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows of one page (default: all).")] = None,
    next_: Annotated[str | None, typer.Option("--next", metavar="MARKER", help="The marker of the page before.")] = None,
    format: Annotated[
        QueryFormat, typer.Option("--format", help="text for people; json, csv, parquet for programs.")
    ] = QueryFormat.TEXT,
) -> None:
    """Find traces with the console's and the API's filters, newest first."""
    given = dict(locals())
    from ..audit.dataset import Dataset
    from ..audit.query import Filters, query_page
    from ..store import Store

    with exits():
        begin, end = _period(since, to, last)
        names = set(Filters.__slots__) - {"from_", "to"}
        filters = Filters(from_=begin, to=end, **{name: given[name] for name in names})
        if dataset is not None:
            page = query_page(Dataset(dataset), filters, limit=limit, next_=next_)
        else:
            with Store(store_path(store)) as opened:
                page = query_page(opened, filters, limit=limit, next_=next_)
        _print_page(page, format)


def _period(since: str | None, to: str | None, last: str | None) -> tuple[int | None, int | None]:
    from ..audit.query import PRESETS

    if last is not None:
        if last not in PRESETS or since or to:
            raise UsageError(f"--last {last}: it is one of {', '.join(PRESETS)}, and stands without --from and --to")
        return _now() - PRESETS[last], None
    begin, end = (None if text is None else _time(text) for text in (since, to))
    if begin is not None and end is not None and begin >= end:
        raise UsageError(f"--from {since} is not before --to {to}")
    return begin, end


def _time(text: str) -> int:
    """A time with its zone as ms UTC."""
    import datetime

    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as e:
        raise UsageError(f"{text!r} is no time: write 2026-01-31T23:59:59Z") from e
    if moment.tzinfo is None:
        raise UsageError(f"{text!r} has no zone: write {moment.isoformat()}Z for UTC")
    return int(moment.timestamp() * 1000)


def _print_page(page: Any, format: QueryFormat) -> None:
    from ..audit.export import spreadsheet, utc_text
    from .text import table

    if format is QueryFormat.PARQUET:
        from ..audit.traces import TraceRow
        from ..tables import to_parquet

        if sys.stdout.isatty():
            raise UsageError(
                "--format parquet: no terminal shows it; send it into a file: swrbatch audit query … > traces.parquet"
            )
        show(to_parquet(page.rows, TraceRow))
        _tell_next(page)
        return
    rows = page.rows.to_pylist()
    for row in rows:
        for name in ("time", "record_time", "uploaded"):
            row[name] = None if row[name] is None else utc_text(round(row[name].timestamp() * 1000))
    if format is QueryFormat.JSON:
        show(json.dumps({"traces": rows, "next": page.next}, ensure_ascii=False))
    elif format is QueryFormat.CSV:
        import csv
        import io

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(page.rows.column_names)
        writer.writerows([spreadsheet(tuple(v) if isinstance(v, list) else v) for v in row.values()] for row in rows)
        show(text.getvalue().removesuffix("\n"))
        _tell_next(page)
    else:
        names = ("time", "trace_name", "trace_rating", "user_name", "resource_name", "code")
        lines = [[str(row[name] or "") for name in names] + [" ".join(row["flags"])] for row in rows]
        show(table(["time", "event", "rating", "user", "resource", "code", "findings"], lines))
        show(counted(len(rows), "trace") + (f"; more: --next {page.next}" if page.next else ""))


def _tell_next(page: Any) -> None:
    """On stderr, where the output has no place for it."""
    if page.next:
        tell(f"more: --next {page.next}")


@audit.command("report")
def report(
    datasets: Annotated[
        list[str],
        typer.Argument(metavar="DATASET...", help="Datasets; for the notebook import_report an import's report folder."),
    ],
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="The folder of the report; made at need.")],
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help="From this time on (2026-01-31T00:00:00Z).")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before this time.")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Only acts of this account's users (name or id).")] = None,
    org: Annotated[str | None, typer.Option("--org", metavar="NAME", help="Only resources of this organization.")] = None,
    store: Annotated[str | None, typer.Option("--store", metavar="DIR", help="Also hold the events against this store.")] = None,
    fail_on: Annotated[
        Severity | None, typer.Option("--fail-on", help="Exit code 1 for a finding of this severity, or a worse one.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Rows of a list of single events, the newest.")] = 100_000,
    notebook: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Run a notebook into a page instead: compliance_report, import_report, a path."),
    ] = None,
    lang_: LangOption = Language.EN,
    format: FormatOption = Format.TEXT,
) -> None:
    """Write what an auditor asks as tables (Parquet, CSV) and one HTML page that loads nothing.

    Severities: error (a gap or a broken chain proved, differences from the store, incidents), warning (failures, refusals,
    unknown events, late, damaged or contradictory records, expired shares), info (deletions, changes of access, the unknown).
    """
    from ..audit.report import Scope

    with exits():
        begin, end = _period(since, until, None)
        if begin is not None and end is not None and begin >= end:
            raise UsageError("the period is empty: --from is not before --until")
        scope = Scope(begin=begin, end=end, account=account, organization=org)
        if notebook is not None:
            if store is not None or fail_on is not None:
                raise UsageError("--notebook runs a notebook only: it stands without --store and --fail-on")
            show(_notebook(notebook, datasets, to, scope, lang(lang_), format))
            return
        built, written = _report(datasets, to, scope, store, most, lang(lang_))
    show(_report_text(built, written, lang(lang_), format))
    raise typer.Exit(int(ExitCode.REJECTED if fail_on is not None and built.reaches(fail_on.value) else ExitCode.OK))


def _report(datasets: list[str], to: str, scope: Any, store: str | None, most: int, language: Any) -> tuple[Any, list[str]]:
    from contextlib import nullcontext

    from ..audit.report import build
    from ..store import Store

    with nullcontext() if store is None else Store(store) as opened:
        built = build(datasets, now=_now(), scope=scope, store=opened, most=most)
    return built, built.write(to, language)


def _notebook(name: str, sources: list[str], to: str, scope: Any, language: str, format: Format) -> str:
    from ..audit.notebook import run_notebook

    given = {"begin": scope.begin, "end": scope.end, "account": scope.account, "organization": scope.organization}
    sources = [os.path.abspath(path) for path in sources]
    page = run_notebook(name, to, {"sources": sources, "lang": language, "now": _now(), **given})
    return json.dumps({"page": page}, ensure_ascii=False) if format is Format.JSON else page


def _report_text(built: Any, written: list[str], language: str, format: Format) -> str:
    import dataclasses

    from .text import table

    findings = built.findings
    if format is Format.JSON:
        values = {"report": dataclasses.asdict(built.about), "findings": [dataclasses.asdict(f) for f in findings]}
        return json.dumps({**values, "files": written}, ensure_ascii=False)
    chinese = language == "zh"
    head = ["级别", "数量", "发现", "含义"] if chinese else ["severity", "count", "finding", "meaning"]
    lines = [(f.severity, f"{f.count}", f.code, f.message_zh if chinese else f.message) for f in findings]
    events, files = built.about.events, len(written)
    totals = f"{events}条事件，{files}个文件" if chinese else f"{counted(events, 'event')}, {counted(files, 'file')}"
    return "\n".join([*([table(head, lines)] if lines else []), totals, written[-1]])


@audit.command("reconcile")
def reconcile(
    datasets: Annotated[list[str] | None, typer.Argument(metavar="[DATASET]...", help="More events, beside the store's.")] = None,
    store: StoreDir = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Record what was pushed into the served store, with the events that were missing.")
    ] = False,
    user: UserOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Hold the events against what the store serves; exit code 1 on any difference (that is left, with --adopt)."""
    from ..audit.dataset import Dataset
    from ..audit.reconcile import reconcile as run
    from ..store import Store

    adopted: list[str] = []
    left: dict[str, str] = {}
    with exits(), Store(store_path(store)) as opened:
        opened_datasets = [Dataset(path) for path in datasets or ()]
        found = run(opened, opened_datasets)
        if adopt and found:
            adopted, left = _adopt(opened, found, user)
            found = run(opened, opened_datasets)
    _print_differences(found, adopted, left, format)
    raise typer.Exit(int(ExitCode.REJECTED if found else ExitCode.OK))


def _adopt(store: Any, differences: Any, user: str | None) -> tuple[list[str], dict[str, str]]:
    """Names adopted, and the reason for each that was not."""
    from ..attempt import LoadRules
    from ..audit.adopt import adopt
    from ..cts import new_run_id
    from ..store import initial_settings

    actor = _actor(store, user)
    rules = LoadRules(defaults=initial_settings(account=actor.account))
    adopted, refusals = adopt(store, differences, actor=actor, rules=rules, run_id=new_run_id(_now()), now=_now())
    return adopted, {each.name: each.reason for each in refusals}


def _print_differences(found: Any, adopted: list[str], left: dict[str, str], format: Format) -> None:
    import dataclasses

    from .text import table

    if format is Format.JSON:
        differences = [dataclasses.asdict(each) for each in found]
        show(json.dumps({"differences": differences, "adopted": adopted, "not_adopted": left}, ensure_ascii=False))
        return
    for name in adopted:
        show(f"adopted {name}")
    for name, reason in left.items():
        show(f"not adopted {name}: {reason}")
    if found:
        head = ["difference", "name", "the events say", "the store has"]
        show(table(head, [(d.kind, d.name, d.expected or "nothing", d.actual or "nothing") for d in found]))
    else:
        show("the events tell exactly what the store holds")


def _actor(store: Any, user: str | None) -> Any:
    return store.actor(user, None)


@audit.command("verify")
def verify(
    path: Annotated[
        str | None, typer.Argument(metavar="[DATASET|PATH]", help="A dataset, an export, or files of a bucket; else the store.")
    ] = None,
    store: StoreDir = None,
    expect_head: Annotated[str | None, typer.Option(metavar="SEQ:HASH", help="A head kept elsewhere.")] = None,
    print_head: Annotated[bool, typer.Option("--print-head", help="Print only the head, as SEQ:HASH.")] = False,
    public_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="The RSA key that digest files are signed with (PEM, DER or its base64).")
    ] = None,
    signature: Annotated[
        list[str] | None, typer.Option(metavar="HEX", help="The signature of a newest digest file (OBS: meta-signature).")
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Verify the chain of the store's events, a dataset, an export, or chains of CTS digest files; exit code 1 on any problem.

    Any changed, removed, inserted or reordered event breaks the chain. A cut tail, or a chain that was computed anew, shows only
    against a head kept elsewhere (--print-head, --expect-head).
    """
    from ..audit.verify import head_of, verify_store_chain
    from ..store import Store

    with exits():
        if path is not None:
            if expect_head is not None or print_head:
                raise UsageError("--expect-head and --print-head are about a store, not about DATASET or PATH")
            _print_verdict(_verify_path(path, store, public_key, signature or []), format)
        with Store(store_path(store)) as opened:
            if print_head:
                show("{}:{}".format(*head_of(opened)))
                return
            verdict = verify_store_chain(opened, expect_head)
        _print_verdict(verdict, format)


def _verify_path(path: str, store: str | None, public_key: str | None, signatures: list[str]) -> Any:
    import contextlib

    from ..audit.signing import Verifier
    from ..audit.verify import verify_path
    from ..store import Store

    verifier = None if public_key is None else Verifier(public_key)
    with contextlib.ExitStack() as stack:
        opened = None if store is None else stack.enter_context(Store(store))
        return verify_path(path, verifier=verifier, signatures=signatures, store=opened)


def _print_verdict(verdict: Any, format: Format) -> None:
    """Print it and exit."""
    if format is Format.JSON:
        names = ("kind", "name", "detail", "problem")
        findings = [{name: getattr(each, name) for name in names} for each in verdict.findings]
        show(json.dumps({"sound": verdict.sound, "findings": findings, "looked_at": verdict.looked_at}, ensure_ascii=False))
    else:
        for each in verdict.findings:
            show(("" if each.problem else "note: ") + str(each))
        show(f"{verdict.looked_at}: " + ("sound" if verdict.sound else "NOT sound"))
    raise typer.Exit(int(ExitCode.OK if verdict.sound else ExitCode.REJECTED))


@audit.command("prune")
def prune(
    before: Annotated[
        str, typer.Option("--before", metavar="TIME", help="Remove events recorded before (2026-01-31T00:00:00Z).")
    ],
    exported_to: Annotated[str, typer.Option("--exported-to", metavar="DEST", help="The export that has them.")],
    store: StoreDir = None,
    user: UserOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Remove old events that an export provably has; a checkpoint keeps the chain and the replay verifiable."""
    import dataclasses

    from ..audit.prune import prune as run
    from ..cts import new_run_id
    from ..store import Store
    from .acts import administering

    with exits(), Store(store_path(store)) as opened:
        actor, moment = _actor(opened, user), _time(before)
        if not dry_run:
            administering(opened, actor, "audit prune")
        result = run(opened, exported_to, before=moment, actor=actor, run_id=new_run_id(_now()), now=_now(), dry_run=dry_run)
    if format is Format.JSON:
        show(json.dumps(dataclasses.asdict(result)))
        return
    removed = f"{counted(result.events, 'event')} {'would be ' if dry_run else ''}removed"
    show(f"{removed}; the chain begins behind sequence {result.seq}")
    if result.held:
        show(f"{result.held} more are as old, and stay: {exported_to} does not have them")
