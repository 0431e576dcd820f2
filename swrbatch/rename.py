"""Renaming on import: the rules of `--retag`, `--into` and `--names`.

Only `load_rename` reads files, the user's own. What a rule makes is not judged here: `policy.parse_reference` does that.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .errors import UsageError, printable
from .policy import is_registry, looks_like_registry, split_name, why_invalid
from .sizes import format_size

_FIELD = re.compile(r"\{([^{}]*)\}")
_FIELDS = ("registry", "namespace", "repository", "path", "tag")
_IMAGE_ID = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})", re.ASCII)
_COLUMNS = ("archive", "image_id", "reference")
_MAX_FILE = 64 * 1024**2


_Rule = tuple[re.Pattern[str], Sequence[str], str]


@dataclass(frozen=True, slots=True)
class Rename:
    """Renaming on import; built by `load_rename`. `Rename()` changes nothing.

    A rule is a glob, its template as alternating text and field names, and where it was given. `named` maps (archive, first 12
    digits of the image ID) to (digits given, reference). `told` are the options that it was built of, for the report.
    """

    rules: Sequence[_Rule] = ()
    into: str | None = None
    named: Mapping[tuple[str, str], Sequence[tuple[str, str]]] = field(default_factory=lambda: MappingProxyType({}))
    told: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def apply(self, raw: str) -> tuple[str, bool]:
        """The name that `raw` gets, and whether a rule changed it. The result is not judged: `parse_reference` does."""
        registry, namespace, repository, written = split_name(raw)
        tag, full = ("latest", f"{raw}:latest") if written is None else (written, raw)
        for pattern, pieces, _ in self.rules:
            if pattern.match(full):
                path = f"{namespace}/{repository}" if namespace else repository
                fields = dict(zip(_FIELDS, (registry, namespace, repository, path, tag), strict=True))
                new = "".join(fields[piece] if i % 2 else piece for i, piece in enumerate(pieces))
                return new, new != full
        last = repository.rpartition("/")[2]
        if self.into is not None and not registry and last:
            return f"{self.into}/{last}:{tag}", True
        return raw, False

    def unused(self, originals: Iterable[str], nameless: Iterable[tuple[str, str]]) -> list[str]:
        """The options that renamed none of these: a --retag whose rules matched no name, a --names for other images.

        `nameless`: (archive, image ID) of images without a name. Of a file with many rules, one that matched is enough.
        """
        tagged = [raw if split_name(raw)[3] is not None else f"{raw}:latest" for raw in originals]
        options: dict[str, bool] = {}
        for pattern, _, where in self.rules:
            option = where.partition(": item ")[0]
            options[option] = options.get(option, False) or any(pattern.match(name) for name in tagged)
        if self.named:
            options[f"--names {self.told['names']}"] = any(self.names_for(*each) for each in nameless)
        return [option for option, matched in options.items() if not matched]

    def names_for(self, archive: str, image_id: str) -> list[str]:
        """The names for an image without any, of the rows that give `archive` as it is or its base name."""
        digits = image_id.lower().removeprefix("sha256:")
        keys = dict.fromkeys((archive, os.path.basename(archive)))
        rows = [row for key in keys for row in self.named.get((key, digits[:12]), ())]
        return list(dict.fromkeys(reference for prefix, reference in rows if digits.startswith(prefix)))


def load_rename(retag: Sequence[str] = (), into: str | None = None, names: str | os.PathLike[str] | None = None) -> Rename:
    """Read the rules of --retag, --into and --names; UsageError names the file, the place in it and the way out.

    `retag`: each item is `PATTERN=TEMPLATE`, or the path of a YAML file (an item with `=` is a path only if there is
    such a file). The file holds a list of `{match: PATTERN, to: TEMPLATE}` or one mapping of `PATTERN: TEMPLATE`; all
    its values are text. PATTERN is a glob (`*` also matches `/`) on the name as written in RepoTags, with `:latest`
    added when it has no tag, and nothing else added. TEMPLATE holds `{registry}` (may be empty), `{path}` (all the
    rest but the tag), `{namespace}` (the path's first part, empty when it is the only one), `{repository}` (the rest
    of the path) and `{tag}`. The first match wins; without a match a name stays.
    `into`: `HOST/ORG`; a name without a registry that no rule of `retag` matched becomes `HOST/ORG/<last part>:<tag>`
    (guide 4.1). `names`: CSV with the header `archive,image_id,reference`; image_id is at least 12 hex digits.
    """
    rules: list[_Rule] = []
    retag = [retag] if isinstance(retag, str) else list(retag)
    for item in retag:
        if "=" in item and not os.path.isfile(item):
            pattern, _, template = item.partition("=")
            rules.append(_rule(pattern, template, f"--retag {printable(item)}"))
        else:
            rules += [_rule(*found) for found in _rules_of_file(item)]
    if into is not None:
        host, _, org = into.partition("/")
        if not (looks_like_registry(host) and is_registry(host)) or why_invalid("namespace", org, "api"):
            raise UsageError(f"--into {printable(into)}: it must be HOST/ORG, such as registry.example.com/team")
    told = {"retag": retag, "into": into, "names": None if names is None else printable(os.fsdecode(names))}
    return Rename(tuple(rules), into, MappingProxyType({} if names is None else _names_of_file(names)), MappingProxyType(told))


def _rule(pattern: str, template: str, where: str) -> _Rule:
    """A rule of `Rename`. Templates never reach `str.format`: a field is one of five words, or an error."""
    pattern, template = pattern.strip(), template.strip()
    if not pattern or not template:
        raise UsageError(f"{where}: a rule has a pattern and a template, such as 'a/*=r.example.com/{{path}}:{{tag}}'")
    pieces = tuple(_FIELD.split(template))
    for i, piece in enumerate(pieces):
        if piece not in _FIELDS if i % 2 else "{" in piece or "}" in piece:
            fields = " ".join(f"{{{name}}}" for name in _FIELDS)
            raise UsageError(f"{where}: {printable(piece)!r} is no field of a template; the fields are {fields}")
    try:
        return re.compile(fnmatch.translate(pattern)), pieces, where
    except (re.error, OverflowError) as e:
        raise UsageError(f"{where}: the pattern {printable(pattern)!r} is no glob: {e}") from e


def _read_text(path: str | os.PathLike[str], where: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise UsageError(f"{where}: more than {format_size(_MAX_FILE)}; is this the file you meant?")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise UsageError(f"{where}: not UTF-8 ({e.reason} at byte {e.start}); save the file as UTF-8") from e
    except (OSError, ValueError) as e:
        reason = (e.strerror if isinstance(e, OSError) else None) or e
        hint = "; a rule without a file is PATTERN=TEMPLATE" if where.startswith("--retag") else ""
        raise UsageError(f"{where}: cannot be read: {reason}; check the path and the permissions{hint}") from e


def _rules_of_file(path: str) -> list[tuple[str, str, str]]:
    """(pattern, template, place) of each rule. YAML nodes are read, not values, so that `1.0` and `yes` stay text."""
    import yaml  # only who gives a file of rules pays for it

    where = f"--retag {printable(path)}"
    shape = "the file must be a list of {match: PATTERN, to: TEMPLATE} or a mapping of PATTERN: TEMPLATE"
    try:
        root = yaml.compose(_read_text(path, where), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as e:
        raise UsageError(f"{where}: no valid YAML: {printable(e)}; check the file") from e
    entries: list[tuple[object, object]] = []
    if isinstance(root, yaml.MappingNode):
        entries = root.value
        texts = {
            key.value for key, value in root.value if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)
        }
        if texts == {"match", "to"}:
            raise UsageError(f"{where}: one rule without its list; write '- ' before match, and indent to below it")
    elif isinstance(root, yaml.SequenceNode):
        for node in root.value:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            given = {key.value: value for key, value in pairs if isinstance(key, yaml.ScalarNode)}
            whole = len(pairs) == 2 and given.keys() == {"match", "to"}
            entries.append((given["match"], given["to"]) if whole else (None, None))
    rules = []
    for i, (pattern, template) in enumerate(entries, start=1):
        if not (isinstance(pattern, yaml.ScalarNode) and isinstance(template, yaml.ScalarNode)):
            raise UsageError(f"{where}: item {i} is no rule; {shape}")
        rules.append((pattern.value, template.value, f"{where}: item {i} (line {pattern.start_mark.line + 1})"))
    if not rules:
        raise UsageError(f"{where}: there is no rule in it; {shape}")
    return rules


def _names_of_file(path: str | os.PathLike[str]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    where = f"--names {printable(os.fspath(path))}"
    reader = csv.reader(io.StringIO(_read_text(path, where), newline=""), strict=True)
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    try:
        header = next(reader, [])
        if sorted(header) != sorted(_COLUMNS):
            raise UsageError(f"{where}: line 1 must be the header {','.join(_COLUMNS)}")
        for cells in filter(None, reader):
            row = dict(zip(header, map(str.strip, cells), strict=False))
            digits = _IMAGE_ID.fullmatch(row.get("image_id", "").lower())
            if len(cells) != len(header) or not (digits and row["archive"] and row["reference"]):
                raise UsageError(
                    f"{where}: line {reader.line_num} must hold an archive, an image ID (12 to 64 hex digits, with or "
                    "without sha256:) and a reference"
                )
            found.setdefault((row["archive"], digits[1][:12]), []).append((digits[1], row["reference"]))
    except csv.Error as e:
        raise UsageError(f"{where}: line {reader.line_num}: {e}; save it as comma-separated UTF-8") from e
    return found
