"""The registry's rules that need no archive: how an image may be named, and how large it may be.

Pure functions over values. Sources: the guide's 1.5 and 4.3 (limits),
4.1 (docker tag), 9.3.2 and 9.3.3 (names). The guide's regular expressions are garbled, and the official ones (support
page swr_faq_0017) take exponential time in Python's `re`; those below accept the same language in linear time.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from .errors import Issue, UsageError, issue, printable
from .sizes import GIB

Naming = Literal["guide", "api"]
Part = Literal["namespace", "repository", "tag"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A whole name, `registry/namespace/repository:tag` (guide 9.3.3). The registry is kept as written."""

    registry: str
    namespace: str
    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.name}"

    @property
    def path(self) -> str:
        """`namespace/repository`: the repository's path in a registry's store."""
        return f"{self.namespace}/{self.repository}"

    @property
    def name(self) -> str:
        return f"{self.path}:{self.tag}"


# A repository's pattern is that of one component of its path: only the api profile knows more than one.
PATTERNS: Mapping[tuple[Part, Naming], re.Pattern[str]] = MappingProxyType(
    {
        ("namespace", "guide"): re.compile(r"[a-z][a-z0-9]*(?:(?:__?|-+)[a-z0-9]+)*", re.ASCII),
        ("namespace", "api"): re.compile(r"[a-z][a-z0-9]*(?:(?:\.|__?|-+)[a-z0-9]+)*", re.ASCII),
        ("repository", "guide"): re.compile(r"[a-z0-9]+(?:(?:__?|-+)[a-z0-9]+)*", re.ASCII),
        ("repository", "api"): re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*", re.ASCII),
        ("tag", "guide"): re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII),
        ("tag", "api"): re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII),
    }
)
_LONGEST: Mapping[Part, int] = MappingProxyType({"namespace": 64, "repository": 128, "tag": 128})
# Why a part does not match: the words, the parts and the profiles they hold for, and what shows the fault.
_REASONS = tuple(
    (words, parts, namings, re.compile(shown, re.ASCII))
    for words, parts, namings, shown in (
        ("empty", "namespace repository tag", "guide api", r"\A\Z"),
        ("upper case", "namespace repository", "guide api", r"[A-Z]"),
        ("starts with a digit", "namespace", "guide api", r"\A[0-9]"),
        ("starts with a separator", "namespace repository", "guide api", r"\A[._-]"),
        ("starts with a separator", "tag", "guide api", r"\A[.-]"),
        ("ends with a separator", "namespace repository", "guide api", r"[._-]\Z"),
        ("separators in a row", "namespace repository", "guide api", r"___|-[._]|_[.-]|\.[._-]"),
        ("allowed by the api profile only", "namespace repository", "guide", r"\."),
        ("character not allowed", "namespace repository tag", "guide api", r"[^A-Za-z0-9._-]"),
    )
)
_HOST = re.compile(r"[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*(?:\.[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*)*", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


def why_invalid(part: Part, text: str, naming: Naming) -> str:
    """The rules that `text` breaks as this part of a name, in a few words with the pattern; "" when it is valid."""
    found: dict[str, None] = {}
    if len(text) > _LONGEST[part]:
        found[f"too long: {len(text)} characters, at most {_LONGEST[part]}"] = None
    pattern = PATTERNS[part, naming]
    wrong = [piece for piece in (text.split("/") if part == "repository" else [text]) if not pattern.fullmatch(piece)]
    for piece in wrong:
        for words, parts, namings, shown in _REASONS:
            if part in parts and naming in namings and (match := shown.search(piece)):
                found[f"{words}: {match[0]!r}" if match[0] else words] = None
    return "; ".join([*found, pattern.pattern] if wrong else found)


def same_registry(a: str, b: str) -> bool:
    """Host names do not tell upper from lower case."""
    return a.lower() == b.lower()


def is_address(text: str) -> bool:
    """Whether a server can listen at `text`: `host:port`, or `:port` for every interface."""
    host, colon, port = text.rpartition(":")
    return is_registry(f"{host or 'localhost'}:{port}") if colon else False


def is_registry(text: str) -> bool:
    """Whether `text` is a valid `host[:port]`: a DNS name, an IPv4 address or an [IPv6] address."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host = text
    elif not _PORT.fullmatch(port) or int(port) > 65535:
        return False
    try:
        if host.startswith("[") and host.endswith("]"):
            return ipaddress.IPv6Address(host[1:-1]).scope_id is None
        labels = host.split(".")
        if labels[-1].isdecimal():  # as in URLs: what ends in a number is an IPv4 address or nothing
            return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False
    return len(host) <= 253 and _HOST.fullmatch(host) is not None and all(len(label) <= 63 for label in labels)


def looks_like_registry(part: str) -> bool:
    """Docker's rule for the first of several parts: it has a `.` or a `:`, or is localhost."""
    return "." in part or ":" in part or part.lower() == "localhost"


def split_name(raw: str) -> tuple[str, str, str, str | None]:
    """`raw` as registry, namespace, repository (it may hold `/`), tag; what is not there is "", the tag None."""
    parts = raw.split("/")
    parts[-1], colon, tag = parts[-1].partition(":")
    has_registry = len(parts) > 1 and (not parts[0] or looks_like_registry(parts[0]))
    registry = parts.pop(0) if has_registry else ""
    namespace = parts.pop(0) if len(parts) > 1 else ""
    return registry, namespace, "/".join(parts), tag if colon else None


def _not_a_reference(raw: object) -> str:
    if not isinstance(raw, str) or not raw:
        return "empty" if raw == "" else f"not a string but {type(raw).__name__}"
    if unfit := next((c for c in raw if c == " " or not c.isprintable()), None):
        return f"whitespace or control character: U+{ord(unfit):04X}"
    if "@" in raw:
        return "a digest (@) in place of a tag"
    return "a scheme (://)" if "://" in raw else ""


def parse_reference(raw: object, naming: Naming, *, place: str) -> tuple[Reference | None, list[Issue]]:
    """Judge a name as written in RepoTags by the rules of guide 9.3.3; no tag means `latest`.

    Returns the reference and no issue, or None and every fault (reference-invalid stands alone, the others add up).
    Under `guide` a name has exactly three parts; under `api` the repository may hold `/`. The first of several parts
    is the registry if it has a `.` or a `:` or is localhost.
    """
    if (detail := _not_a_reference(raw)) or not isinstance(raw, str):
        shown = raw if isinstance(raw, str) and raw else '""'
        return None, [issue("reference-invalid", place=place, reference=shown, detail=detail)]
    registry, namespace, repository, written = split_name(raw)
    tag = "latest" if written is None else written
    found: list[Issue] = []
    if not registry:
        found.append(issue("registry-missing", place=place, reference=raw))
    elif not is_registry(registry):
        found.append(issue("registry-invalid", place=place, reference=raw, registry=registry))
    if naming == "guide" and raw.count("/") > 2:
        found.append(issue("too-many-parts", place=place, reference=raw, parts=raw.count("/") + 1))
    if not namespace:
        found.append(issue("namespace-missing", place=place, reference=raw))
    elif detail := why_invalid("namespace", namespace, naming):
        found.append(issue("namespace-invalid", place=place, reference=raw, namespace=namespace, detail=detail))
    if detail := why_invalid("repository", repository, naming):
        shown = repository or '""'
        found.append(issue("repository-invalid", place=place, reference=raw, repository=shown, detail=detail))
    if detail := why_invalid("tag", tag, naming):
        found.append(issue("tag-invalid", place=place, reference=raw, tag=tag or '""', detail=detail))
    return None if found else Reference(registry, namespace, repository, tag), found


def normalise(name: str) -> str:
    """`name` as Docker completes it, for comparing names only (`repositories`, RepoTags, index.json); never raises.

    As distribution/reference does: a first part without `.`, `:` or upper case that is not localhost belongs to the
    path, a missing registry is docker.io, a single part of its path gets `library/`, a missing tag is `latest`.
    Beyond that the registry is in lower case (`same_registry`). A digest is kept and gets no tag.
    """
    first, slash, rest = name.partition("/")
    registry = "docker.io"
    if slash and (looks_like_registry(first) or first != first.lower()):
        registry, name = first.lower(), rest
    if registry in ("docker.io", "index.docker.io"):
        registry, name = "docker.io", name if "/" in name else f"library/{name}"
    return f"{registry}/{name}" if ":" in name.rpartition("/")[2] else f"{registry}/{name}:latest"


# --- attributes and rules of what people enter --------------------------------------------------------------------------

CATEGORIES: Mapping[str, str] = MappingProxyType(
    {
        "app_server": "应用服务器",
        "linux": "Linux",
        "windows": "Windows",
        "arm": "Arm",
        "framework_app": "框架与应用",
        "database": "数据库",
        "lang": "语言",
        "other": "其他",
    }
)
"""The categories of a repository as the public API spells them, with the names of the console (guide 4.5)."""
ORGANIZATIONS_OF_A_USER = 5
"""How many organizations a user may create, unless the store says otherwise (guide 9.1.5)."""
REPOSITORY_DESCRIPTION = 30_000
SHARE_DESCRIPTION = 1_000
"""Characters at most (guide 4.5, 4.6)."""
SHARES_OF_AN_IMAGE = 500
"""Accounts that one private image can be shared with (guide 9.2.2)."""


def parse_category(text: str) -> str:
    """A category by the API's or the console's name; UsageError for any other."""
    known = {name.lower(): key for key, chinese in CATEGORIES.items() for name in (key, chinese)}
    if (found := known.get(text.strip().lower())) is None:
        raise UsageError(
            f"--category {printable(text)}: it is one of {', '.join(CATEGORIES)} (or {', '.join(CATEGORIES.values())})"
        )
    return found


def check_description(text: str, limit: int, *, place: str) -> list[Issue]:
    """description-too-long for more than `limit` characters."""
    return [issue("description-too-long", place=place, length=len(text), limit=limit)] if len(text) > limit else []


# --- limits --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may take; sizes in bytes, None for no limit.

    `max_files` ends the run's intake; `files_per_upload` only splits it into uploads (`upload_seq`). A layer counts as
    stored and as decompressed. `max_decompressed` is never None: an archive is always bounded. `outer_compressions`
    are the accepted compressions of the file itself ("none" is a plain tar).
    """

    max_files: int | None = None
    files_per_upload: int | None = None
    max_archive_size: int | None = None
    max_layer_size: int | None = None
    max_decompressed: int = 64 * GIB
    outer_compressions: frozenset[str] | None = None


# Guide 1.5, 4.1, 4.3: its 2G and 10G are powers of 1024; the page's size counts before and after decompression.
_PAGE_COMPRESSIONS = frozenset({"none", "gzip"})
PROFILES: Mapping[str, Limits] = MappingProxyType(
    {
        "page": Limits(
            files_per_upload=10, max_archive_size=2 * GIB, max_decompressed=2 * GIB, outer_compressions=_PAGE_COMPRESSIONS
        ),
        "client": Limits(max_layer_size=10 * GIB),
        "none": Limits(),
    }
)


def limits_for(
    profile: str,
    *,
    max_files: int | None = None,
    max_archive_size: int | None = None,
    max_layer_size: int | None = None,
    max_decompressed: int | None = None,
) -> Limits:
    """The profile's limits with those given put in their place; UsageError for an unknown profile or a limit below 1.

    A given `max_files` is a hard limit and switches the splitting into uploads off. A given `max_archive_size` moves
    `max_decompressed` too unless that is given: to the same under `page`, whose 2 GiB is one limit for both (guide
    4.3), and elsewhere at least up to it, or a plain tar of an allowed size would be refused.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {printable(profile)!r}: it is one of {', '.join(PROFILES)}")
    for option, value in (
        ("files", max_files),
        ("archive-size", max_archive_size),
        ("layer-size", max_layer_size),
        ("decompressed", max_decompressed),
    ):
        if value is not None and value < 1:
            raise UsageError(f"--max-{option} {value}: the limit must be at least 1; leave it out for none")
    base = PROFILES[profile]
    unpacked = base.max_decompressed
    if max_archive_size is not None:
        unpacked = max_archive_size if profile == "page" else max(max_archive_size, unpacked)
    return replace(
        base,
        max_files=max_files,
        files_per_upload=base.files_per_upload if max_files is None else None,
        max_archive_size=max_archive_size or base.max_archive_size,
        max_layer_size=max_layer_size or base.max_layer_size,
        max_decompressed=max_decompressed or unpacked,
    )


def upload_seq(position: int, limits: Limits) -> int:
    """The number, from 1, of the upload that takes the file at `position`, from 0 (guide 4.3: ten files a time)."""
    return 1 if limits.files_per_upload is None else position // limits.files_per_upload + 1
