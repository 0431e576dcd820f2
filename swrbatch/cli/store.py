"""`swrbatch init`, `images`, `verify` and `serve-config`."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Annotated, Any

import typer

from ..errors import ExitCode, UsageError, printable
from .acts import utc
from .options import (
    AccountOption,
    Format,
    FormatOption,
    LangOption,
    Language,
    StoreOption,
    UserOption,
    exits,
    lang,
    show,
    store_path,
    tell,
)

app = typer.Typer(rich_markup_mode=None)
_ALL = 2**31 - 1


class RequiredProfile(enum.StrEnum):
    """What a store may demand of imports."""

    PAGE = "page"
    CLIENT = "client"
    ANY = "any"


@app.command("init")
def init(
    store: StoreOption = None,
    registry: Annotated[str | None, typer.Option(metavar="HOST", help="The registry host of all its names.")] = None,
    region: Annotated[str | None, typer.Option(metavar="NAME", help="The region (default local).")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="The account (default 'default').")] = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Who acts (default $SWRBATCH_USER, else the login).")] = None,
    org_quota: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Organizations that a user may create (default 5).")
    ] = None,
    require_profile: Annotated[
        RequiredProfile | None,
        typer.Option("--require-profile", metavar="NAME", help="Take imports under page or client only; any: under all."),
    ] = None,
) -> None:
    """Make a store and set its registry, region, account and quota.

    Without --registry the first import sets it. A store that exists keeps what it has; other values are refused, but an
    administrator can change the quota and the profile. Whoever makes a store is the first administrator of its account.
    """
    from ..actors import DEFAULT_ACCOUNT, check_name, current_actor
    from ..policy import is_registry
    from ..store import Store

    with exits():
        if registry is not None and not is_registry(registry):
            raise UsageError(f"--registry {printable(registry)} is no host[:port]")
        current_actor(account or DEFAULT_ACCOUNT, user)
        check_name("region", region or "-")
        with Store(store_path(store), create=True) as opened:
            actor = opened.actor(user, account)
            given = {"registry": registry, "region": region, "account": account, "org_quota": org_quota}
            settings = opened.init(actor=actor, require_profile=require_profile and require_profile.value, **given)
        names = ("registry", "region", "account", "org_quota", *(["require_profile"] if "require_profile" in settings else []))
        shown = [f"{name}: {settings.get(name, '(set by the first import)')}" for name in names]
        show("\n".join([f"store {opened.path}", *shown]))


@app.command("images")
def images(
    store: StoreOption = None,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """List the images of a store that the actor may download."""
    from ..ledger.repositories import list_repositories
    from ..sizes import format_size
    from .acts import look_at
    from .text import table, word

    with look_at(locals()) as (opened, act):
        seen = {row["name"] for row in list_repositories(act, limit=_ALL)}
        all_rows = opened.images()
        rows = [row for row in all_rows if f"{row['organization']}/{row['repository']}" in seen]
    if all_rows and not rows:
        told = f"{act.actor.user} may download none of this store's images"
        tell(f"swrbatch: {told}: an administrator gives rights with swrbatch grant set")
    if format is Format.JSON:
        show(json.dumps(rows, ensure_ascii=False))
        return
    head = ("reference", "image ID", "digest", "platform", "layers", "size", "by", "updated")
    lines = [
        (
            row["reference"],
            row["image_id"][7:19],
            row["digest"][7:19],
            f"{row['os']}/{row['architecture']}",
            str(row["layers"]),
            format_size(row["stored_bytes"]),
            f"{row['account']}/{row['user']}",
            utc(row["updated"]),
        )
        for row in rows
    ]
    show(table([word(text, lang(lang_)) for text in head], lines))


@app.command("verify")
def verify(
    store: StoreOption = None,
    deep: Annotated[bool, typer.Option("--deep", help="Hash every blob, and every layer's content.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Write links again, set damaged blobs aside.")] = False,
    user: UserOption = None,
    account: AccountOption = None,
    format: FormatOption = Format.TEXT,
    lang_: LangOption = Language.EN,
) -> None:
    """Check a store's blobs, links, tags and events against each other.

    --repair is for administrators. Exit code 1 when an error is found (and left, with --repair); tags pushed by something else
    are only warnings.
    """
    from ..verify import verify_store
    from .acts import administering
    from .acts import opened as opening

    given = locals()
    with opening(given) as (opened, actor):
        if repair:
            administering(opened, actor, "verify --repair")
        result = verify_store(opened, deep=deep, repair=repair)
    if format is Format.JSON:
        show(json.dumps(_verify_json(result), ensure_ascii=False))
    else:
        show(_verify_text(result, deep, lang(lang_)))
    raise typer.Exit(int(ExitCode.OK if result.ok else ExitCode.REJECTED))


def _verify_json(result: Any) -> dict[str, Any]:
    from .text import issue_values

    values = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    values["issues"] = [issue_values(found) for found in result.issues]
    return {"ok": result.ok, **values}


def _verify_text(result: Any, deep: bool, language: Any) -> str:
    from ..sizes import counted, format_size
    from .text import way_out, word

    chinese = language == "zh"
    lines = []
    for found in result.issues:
        text = found.text(language)
        place = "" if found.place in text else f" {found.place}"
        lines += [f"{word(found.severity.value, language)} {found.code}{place}: {text}"]
        lines += [f"  {way_out(found, language)}"]
    lines += [f"已修复：{done}" for done in result.repaired_zh] if chinese else [f"repaired: {done}" for done in result.repaired]
    if chinese:
        hashed = f"，已校验{format_size(result.bytes_hashed)}" if deep else ""
        unused = f"其中{result.unreferenced}个（{format_size(result.unreferenced_bytes)}）不属于任何镜像版本"
        lines.append(f"{result.tags}个镜像版本，{result.events}条事件，{result.blobs}个数据块，{unused}{hashed}")
        lines.append("仓库完好" if result.ok else "仓库有问题")
        return "\n".join(lines)
    unreferenced = f"{result.unreferenced} of no tag here ({format_size(result.unreferenced_bytes)})"
    hashed = f", {format_size(result.bytes_hashed)} hashed" if deep else ""
    held = f"{counted(result.tags, 'tag')}, {counted(result.events, 'event')}, {counted(result.blobs, 'blob')}"
    lines.append(f"{held}, {unreferenced}{hashed}")
    lines.append("the store is sound" if result.ok else "the store is NOT sound")
    return "\n".join(lines)


@app.command("serve-config")
def serve_config(
    store: StoreOption = None,
    addr: Annotated[str, typer.Option("--addr", metavar="HOST:PORT", help="Where the registry listens.")] = "127.0.0.1:5000",
    writable: Annotated[bool, typer.Option("--writable", help="Allow pushes; read-only otherwise.")] = False,
) -> None:
    """Print the config.yml with which a stock registry serves a store.

    swrbatch serve-config --store DIR > config.yml && registry serve config.yml
    """
    import yaml

    from ..policy import is_address
    from ..store import Store

    with exits(), Store(store_path(store)) as opened:
        if not is_address(addr):
            raise UsageError(f"--addr {printable(addr)} is no HOST:PORT: write 127.0.0.1:5000, [::1]:5000 or :5000")
        # No blob descriptor cache: after a garbage collection clients would skip layers that are gone (distribution 2966, 3743).
        storage: dict[str, Any] = {"filesystem": {"rootdirectory": opened.path}, "delete": {"enabled": writable}}
        if not writable:
            storage["maintenance"] = {"readonly": {"enabled": True}}
        config = {"version": "0.1", "log": {"level": "warn"}, "storage": storage, "http": {"addr": addr}}
    show(yaml.safe_dump(config, sort_keys=False).rstrip())
