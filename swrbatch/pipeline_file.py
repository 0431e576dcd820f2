"""A pipeline's file: YAML that says what a store is to have, read into values, every fault located by line and column.

    read_pipeline("ci.yaml", {"TAG": "v2"}, os.environ) -> Pipeline

`schemas/pipeline.schema.json` is the contract; unknown keys are refused. `${NAME}` in a value stands for what is set for this
run, or for the environment's variable; `${NAME:-text}` has a default, `$${` is a plain `${`. Nothing is evaluated: a value that
comes in so is a text, and as such part of the one value that it stands in. Paths are relative to the file's folder, so that a
run does not depend on where it was started.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .actors import check_name
from .errors import UsageError, printable
from .export import compression_of_name, parse_name
from .ledger.shares import Terms as ShareTerms
from .ledger.shares import parse_deadline
from .ledger.triggers import Terms as TriggerTerms
from .login import VARIABLES
from .policy import looks_like_registry, parse_category
from .rights import LEVELS, Level
from .settings_file import Place, SettingsFile, Told
from .sizes import parse_size
from .yamltree import Scalar

_REFERENCE: Final = re.compile(r"\$(?:\$(?=\{)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<bad>\{))")
_SECRETS: Final = frozenset(secret for _, secret in VARIABLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySpec:
    """A repository that is to be there, `path` as ORG/REPO; what is None or left out stays as it is."""

    path: str
    is_public: bool | None = None
    category: str | None = None
    description: str | None = None
    grants: Mapping[str, Level] = field(default_factory=dict)
    shares: Mapping[str, ShareTerms] = field(default_factory=dict)
    triggers: Mapping[str, TriggerTerms] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSpec:
    """Archives to be imported: `sources` as on the command line, `options` of `batch_options` by name."""

    sources: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSpec:
    """Images to be exported, by name."""

    images: tuple[str, ...]
    to: str
    form: str = "docker-archive"
    compression: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What a file says. Paths are absolute; `settings` are those of `Store.init`; `audit_exports`: (destination, form)."""

    path: str
    store: str
    settings: Mapping[str, str | int]
    user: str | None = None
    account: str | None = None
    report: str | None = None
    administrators: tuple[str, ...] = ()
    organizations: Mapping[str, Mapping[str, Level]] = field(default_factory=dict)
    repositories: tuple[RepositorySpec, ...] = ()
    imports: tuple[ImportSpec, ...] = ()
    manifests: str | None = None
    patch_only: bool = False
    exports: tuple[ExportSpec, ...] = ()
    audit_exports: tuple[tuple[str, str], ...] = ()
    audit_datasets: tuple[str, ...] = ()
    audit_report: str | None = None
    audit_lang: str = "en"


def read_pipeline(path: str, given: Mapping[str, str], environment: Mapping[str, str]) -> Pipeline:
    """Read a pipeline. UsageError with all faults that were found, each as `FILE:LINE:COLUMN: place: what`."""
    return _Reading(path, given, environment).run()


class _Reading(SettingsFile):
    """The reading of one file."""

    def __init__(self, path: str, given: Mapping[str, str], environment: Mapping[str, str]) -> None:
        super().__init__(path, "pipeline", "pipeline.schema.json")
        self.given = given
        self.environment = environment
        self.folder = os.path.dirname(os.path.abspath(path))
        self.used: set[str] = set()

    def run(self) -> Pipeline:
        made = self._pipeline(self.read())
        self.stop()
        if unused := sorted(set(self.given) - self.used):
            raise UsageError(f"--set {unused[0]}: {printable(self.path)} does not use ${{{unused[0]}}}")
        return made

    def plain(self, node: Scalar, place: Place) -> Any:
        if "${" in node.value:
            return _REFERENCE.sub(lambda match: self._substitute(match, node, place), node.value)
        return super().plain(node, place)

    def _substitute(self, match: re.Match[str], node: Scalar, place: Place) -> str:
        name = match["name"]
        if name in _SECRETS:
            self.faults.append((node.start, place, f"${{{name}}} is a secret: it would stand in events and reports"))
            return ""
        if match["default"] and "${" in match["default"]:
            self.faults.append((node.start, place, "a default is a plain text: it cannot hold ${"))
            return ""
        if match["bad"]:
            self.faults.append((node.start, place, "${ begins a name: write ${NAME}, ${NAME:-default}, or $${ for a plain ${"))
            return ""
        if name is None:
            return "$"
        self.used.add(name)
        for source in (self.given, self.environment):
            if name in source:
                return source[name]
        if match["default"] is None:
            way_out = f"give --set {name}=VALUE, or set it in the environment"
            self.faults.append((node.start, place, f"${{{name}}} is not set: {way_out}"))
        return match["default"] or ""

    # --- what it says --------------------------------------------------------------------------------------------------

    def _check_names(self, value: dict[str, Any]) -> None:
        """Users and accounts as the command line takes them; nothing stands twice in a list."""
        users: list[tuple[Place, str, str]] = [
            (("administrators", n), "user", name) for n, name in enumerate(value.get("administrators", ()))
        ]
        users += [(("actor", what), what, name) for what, name in value.get("actor", {}).items()]
        for kind in ("organizations", "repositories"):
            self._once((kind,), [each["name"] for each in value.get(kind, ())])
            for n, each in enumerate(value.get(kind, ())):
                users += [((kind, n, "grants", name), "user", name) for name in each.get("grants", {})]
                users += [((kind, n, "shares", m, "with"), "account", s["with"]) for m, s in enumerate(each.get("shares", ()))]
                self._once((kind, n, "shares"), [share["with"] for share in each.get("shares", ())])
                self._once((kind, n, "triggers"), [trigger["name"] for trigger in each.get("triggers", ())])
        for place, what, name in users:
            with Told(self, place):
                check_name(what, name)

    def _once(self, place: Place, names: list[str]) -> None:
        for number, name in enumerate(names):
            if name in names[:number]:
                self.fault((*place, number), f"{printable(name)} stands here twice: say all of it in one place")

    def _pipeline(self, value: dict[str, Any]) -> Pipeline:
        self._check_names(value)
        store = value["store"]
        settings = {key.replace("-", "_"): text for key, text in store.items() if key != "path"}
        if "org_quota" in settings:
            settings["org_quota"] = int(settings["org_quota"])
        actor, audit, manifests = value.get("actor", {}), value.get("audit", {}), value.get("manifests", {})
        report = audit.get("report", {})
        defaults = value.get("defaults", {})
        imports = enumerate(value.get("imports", ()))
        return Pipeline(
            path=self.path,
            store=self._path(store["path"]),
            settings=settings,
            user=actor.get("user"),
            account=actor.get("account"),
            report=self._path(value.get("report")),
            administrators=tuple(value.get("administrators", ())),
            organizations={each["name"]: _levels(each) for each in value.get("organizations", ())},
            repositories=tuple(self._repository(each, n) for n, each in enumerate(value.get("repositories", ()))),
            imports=tuple(self._import(each, defaults, ("imports", n)) for n, each in imports),
            manifests=self._path(manifests.get("folder")),
            patch_only=_flag(manifests.get("patch-only", False)),
            exports=tuple(self._export(each, ("exports", n)) for n, each in enumerate(value.get("exports", ()))),
            audit_exports=tuple((self._path(e["to"]), e.get("as", "parquet")) for e in audit.get("exports", ())),
            audit_datasets=tuple(self._path(each) for each in report.get("datasets", ())),
            audit_report=self._path(report.get("to")),
            audit_lang=report.get("lang", "en"),
        )

    def _path(self, text: Any) -> Any:
        """Absolute; None stays None."""
        return None if text is None else os.path.normpath(os.path.join(self.folder, text))

    def _repository(self, value: dict[str, Any], number: int) -> RepositorySpec:
        place: Place = ("repositories", number)
        shares = {}
        for n, each in enumerate(value.get("shares", ())):
            with Told(self, (*place, "shares", n, "until")):
                deadline = parse_deadline(each["until"])
                shares[each["with"]] = ShareTerms(deadline_ms=deadline, description=each.get("description", ""))
        triggers = {}
        for n, each in enumerate(value.get("triggers", ())):
            with Told(self, (*place, "triggers", n)):
                triggers[each["name"]] = _trigger(each)
        category = None
        with Told(self, (*place, "category")):
            category = None if "category" not in value else parse_category(value["category"])
        return RepositorySpec(
            path=value["name"],
            is_public=_flag(value["public"]) if "public" in value else None,
            category=category,
            description=value.get("description"),
            grants=_levels(value),
            shares=shares,
            triggers=triggers,
        )

    def _import(self, value: dict[str, Any], defaults: dict[str, Any], place: Place) -> ImportSpec:
        options: dict[str, Any] = {}
        for key, text in {**defaults, **value}.items():
            if key == "from":
                continue
            name = {"org": "organization"}.get(key, key.replace("-", "_"))
            with Told(self, (*place, key) if key in value else ("defaults", key)):
                options[name] = self._option(key, text)
        return ImportSpec(sources=tuple(map(self._source, value["from"])), options=options)

    def _option(self, key: str, text: Any) -> Any:
        if key in ("create-org", "hash-archives", "lint"):
            return _flag(text)
        if key in ("jobs", "max-files"):
            return int(text)
        if key in ("max-archive-size", "max-layer-size", "max-decompressed"):
            return parse_size(str(text))
        if key == "names":
            return self._path(text)
        if key == "lint-config":
            from .lint.config import read_config  # the rules are slow to import

            read_config(self._path(text))
            return self._path(text)
        if key == "retag":
            # A rule has a =; anything else is a file of rules.
            return [rule if "=" in rule else self._path(rule) for rule in text]
        return text

    def _source(self, text: str) -> str:
        return f"@{self._path(text[1:])}" if text.startswith("@") and text != "@-" else text if text == "-" else self._path(text)

    def _image(self, name: str, place: Place) -> str:
        host = name.partition("/")[0]
        with Told(self, place):
            parse_name(name, host if looks_like_registry(host) else "")
        return name

    def _export(self, value: dict[str, Any], place: Place) -> ExportSpec:
        return ExportSpec(
            images=tuple(self._image(name, (*place, "images", n)) for n, name in enumerate(value["images"])),
            to=self._path(value["to"]),
            form=value.get("form", "docker-archive"),
            compression=value.get("compress") or compression_of_name(value["to"]).value,
        )


def _levels(value: dict[str, Any]) -> dict[str, Level]:
    return {user: LEVELS[level] for user, level in value.get("grants", {}).items()}


def _flag(value: Any) -> bool:
    return value in (True, "true")


def _trigger(value: dict[str, Any]) -> TriggerTerms:
    names = {"app-type": "app_type", "namespace": "cluster_ns", "type": "trigger_type", "mode": "trigger_mode"}
    fields = {names.get(key, key.replace("-", "_")): text for key, text in value.items() if key not in ("name", "containers")}
    if "enabled" in fields:
        fields["enabled"] = _flag(fields["enabled"])
    return TriggerTerms(**fields, container=tuple(value.get("containers", ())))
