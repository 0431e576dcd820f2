"""The options of a check or an import, as values: held together once, before anything begins."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from .actors import DEFAULT_ACCOUNT, current_actor
from .attempt import OnConflict
from .errors import UsageError, printable
from .policy import Limits, Naming, is_registry, limits_for
from .rename import Rename, load_rename
from .sizes import parse_size

if TYPE_CHECKING:
    from .lint.gate import Gate

CompressionOption = Literal["auto", "gzip", "zstd", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """The options of a check or an import; the defaults are those of the command line.

    `limits` None takes the profile's. `registry`: the host of a new store, or the one that every name must have. `jobs` None:
    as many as there are processors. `against_new_store`: a check without a store finds what a new one would refuse. `lint` lints
    all images before.
    """

    profile: str = "page"
    limits: Limits | None = None
    naming: Naming = "guide"
    registry: str | None = None
    organization: str | None = None
    rename: Rename = field(default_factory=Rename)
    jobs: int | None = None
    compression: CompressionOption = "auto"
    on_conflict: OnConflict = "overwrite"
    create_org: bool = True
    hash_archives: bool = False
    fail_fast: bool = False
    user: str | None = None
    account: str | None = None
    report: str | None = None
    against_new_store: bool = False
    lint: Gate | None = None


def batch_options(
    *,
    retag: Sequence[str | os.PathLike[str]] = (),
    into: str | None = None,
    names: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    max_files: int | None = None,
    max_archive_size: int | str | None = None,
    max_layer_size: int | str | None = None,
    max_decompressed: int | str | None = None,
    lint: bool = False,
    lint_config: str | os.PathLike[str] | None = None,
    lint_fail_on: str | None = None,
    **fields: Any,
) -> BatchOptions:
    """`BatchOptions` from plain values; UsageError for an unknown field, profile, limit or rule."""
    known = {f.name for f in dataclasses.fields(BatchOptions)}
    if unknown := sorted(set(fields) - known):
        own = {"limits", "rename", "against_new_store"}
        more = {"max_files", "max_archive_size", "max_layer_size", "max_decompressed", "lint_config", "lint_fail_on"}
        there = sorted((known - own) | more | {"retag", "into", "names"})
        raise UsageError(f"unknown option {', '.join(unknown)}; there are {', '.join(there)}")
    limits = limits_for(
        fields.get("profile", "page"),
        max_files=max_files,
        max_archive_size=_bytes(max_archive_size),
        max_layer_size=_bytes(max_layer_size),
        max_decompressed=_bytes(max_decompressed),
    )
    gate = None
    if lint or lint_config is not None or lint_fail_on is not None:
        from .lint.gate import gate_of  # the rules are slow to import

        gate = gate_of(lint_config, lint_fail_on)
    rules = [retag] if isinstance(retag, str | os.PathLike) else retag
    rename = load_rename([os.fspath(rule) for rule in rules], into, names)
    where = None if report is None else os.fspath(report)
    chosen = BatchOptions(**{"limits": limits, "rename": rename, "report": where, "lint": gate, **fields})
    for name, value, allowed in (
        ("naming", chosen.naming, ("guide", "api")),
        ("compression", chosen.compression, ("auto", "gzip", "zstd", "none")),
        ("on_conflict", chosen.on_conflict, ("overwrite", "skip", "fail")),
    ):
        if value not in allowed:
            raise UsageError(f"{name} {value!r}: it is one of {', '.join(allowed)}")
    if chosen.jobs is not None and chosen.jobs < 1:
        raise UsageError(f"jobs {chosen.jobs}: at least 1")
    if chosen.registry is not None and not is_registry(chosen.registry):
        raise UsageError(f"registry {printable(chosen.registry)}: it is no host[:port]")
    current_actor(chosen.account or DEFAULT_ACCOUNT, chosen.user)
    return chosen


def _bytes(size: int | str | None) -> int | None:
    return parse_size(size) if isinstance(size, str) else size
