"""Chains of digest files, verified offline: CTS's own (MD5) and ours (SHA-256).

Verified are files in a folder, or what a dataset noted of digest and trace files when it took them: those may be gone since.

Problems, told apart:

    digest-unreadable   a digest file that cannot be read as one
    digest-changed      its hash is not the one that the next digest file gives
    digest-moved        it lies elsewhere than where it says
    gap                 a digest file that another one names, or time between two, is missing
    fork                two digest files follow the same one
    file-missing, file-changed   a trace file that a digest file vouches for
    file-unlisted       a trace file of an hour whose digest file does not name it
    hash-unknown        a hash of a kind that this program does not know
    signature-wrong     not the signature of this digest file under the given key

Notes, which prove nothing either way:

    head-unsigned       the newest digest file: its signature is not in any file (see `digests`)
    unsigned            an older one without a signature, though a key was given
    signature-unchecked there are signatures, and no key was given
    begins-here         what came before the oldest digest file is not here
    restarted           a chain that was ended, and one that was begun later
    not-covered         trace files that no digest file speaks of: newer than the newest, or of a service without any
    file-unpacked       a file that was decompressed: its hash was that of the compressed one
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import itertools
import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..disk import disk_errors
from ..errors import UsageError, printable
from .digests import SIGNATURE, signed_text
from .signing import Verifier

if TYPE_CHECKING:
    from .ingest import InputRow

NOTES: Final = frozenset(
    {"head-unsigned", "unsigned", "signature-unchecked", "begins-here", "restarted", "not-covered", "file-unpacked"}
)
_LARGEST: Final = 16 << 20
_DIGEST: Final = re.compile(r"_CloudTrace-Digest_|(?:^|/)Digest/")
_TRACE: Final = re.compile(r"_CloudTrace_.*?(\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}Z)[^/]*$", re.ASCII)
ALGORITHMS: Final = {"MD5": "md5", "SHA-256": "sha256", "SHA256": "sha256"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What verifying found: its kind, the file or event it is about, and the rest in words."""

    kind: str
    name: str
    detail: str

    @property
    def problem(self) -> bool:
        """Whether something is wrong, rather than unknown."""
        return self.kind not in NOTES

    def __str__(self) -> str:
        return f"{self.kind} {printable(self.name)}" + (f": {printable(self.detail)}" if self.detail else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time that a digest file speaks of, ms UTC, begin not included; `sound` when it and all its trace files are."""

    series: str
    begin: int
    end: int
    sound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestReport:
    """What was looked at and found; `windows` in order, a series (region, tracker, service) after another."""

    digests: int
    files: int
    findings: tuple[Finding, ...]
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """A digest file as read. Times are seconds; hashes are in hexadecimal by algorithm (`md5`, `sha256`).

    `files` are the trace files that it vouches for: key in the bucket, algorithm, hash.
    """

    path: str
    bucket: str
    object: str
    series: tuple[str, ...]
    begin: int
    end: int
    end_text: str
    ends: bool
    previous: str
    previous_hash: str
    previous_algorithm: str
    previous_signature: str
    files: tuple[tuple[str, str, str], ...]
    hashes: dict[str, str]

    @property
    def unpacked(self) -> bool:
        """Whether it was decompressed: its hashes are not those that the bucket's file has."""
        return self.object.endswith(".gz") and not self.path.endswith(".gz")


def verify_digests(
    root: str, verifier: Verifier | None = None, signatures: Sequence[str] = (), *, required: bool = True
) -> DigestReport:
    """Verify every chain of digest files below a folder, and the trace files that they vouch for.

    `signatures` are those of newest digest files, in hexadecimal. UsageError when there is no digest file at all (`required`),
    StoreError when a file cannot be read.
    """
    if not os.path.isdir(root):
        raise UsageError(f"{printable(root)}: there is no such folder")
    found = _Folder(root)
    if required and not found.digests and not found.unreadable:
        raise UsageError(f"{printable(root)} holds no digest files: nothing vouches for what is in it")
    return _verified(found, verifier, signatures)


def verify_taken(
    inputs: Sequence[InputRow], verifier: Verifier | None = None, signatures: Sequence[str] = ()
) -> DigestReport | None:
    """The same for the files that a dataset was made of, as they were then; None when there is no digest file among them."""
    taken = Taken(inputs)
    return _verified(taken, verifier, signatures) if taken.digests or taken.unreadable else None


def _verified(source: _Source, verifier: Verifier | None, signatures: Sequence[str]) -> DigestReport:
    check = _Check(source, verifier, signatures)
    check.run()
    findings = sorted(check.findings, key=lambda f: (not f.problem, f.kind, f.name))
    return DigestReport(digests=len(source.digests), files=check.files, findings=tuple(findings), windows=tuple(check.windows))


class _Source(Protocol):
    """Where digest files and trace files come from."""

    digests: list[Digest]
    unreadable: list[Finding]
    traces: dict[str, int]
    """Trace files and the second of their upload."""

    def find(self, key: str) -> list[str]:
        """The files that a key of the bucket may name."""

    def hash(self, place: str, algorithm: str) -> str | None:
        """The hash of a file in hexadecimal; None for an algorithm that is not known."""

    def signature(self, place: str) -> str:
        """What lies beside a digest file as its signature; "" without."""

    def moved(self, digest: Digest) -> bool:
        """Whether it lies elsewhere than where it says."""


class Taken:
    """The files that a dataset was made of."""

    def __init__(self, inputs: Sequence[InputRow]) -> None:
        self.digests: list[Digest] = []
        self.unreadable: list[Finding] = []
        self.traces: dict[str, int] = {}
        self._rows: dict[str, InputRow] = {}
        self._places: dict[str, list[str]] = {}
        for row in inputs:
            if row.kind == "digest":
                self._take(row)
            else:
                self._rows[row.path] = row
                self._places.setdefault(os.path.basename(row.path), []).append(row.path)
                if trace := _TRACE.search(row.path):
                    self.traces[row.path] = _second(trace[1]) or 0

    def _take(self, row: InputRow) -> None:
        try:
            self.digests.append(digest_of(json.loads(row.digest or ""), row.path, {"md5": row.md5 or "", "sha256": row.sha256}))
        except (ValueError, KeyError, TypeError) as e:
            self.unreadable.append(Finding("digest-unreadable", row.path, f"it cannot be read: {type(e).__name__} {e}"))

    def find(self, key: str) -> list[str]:
        # They may have been downloaded into any folder: names alone tell them apart, too.
        places = self._places.get(os.path.basename(key), [])
        return [place for place in places if same_place(place, key)] or places

    def hash(self, place: str, algorithm: str) -> str | None:
        row = self._rows[place]
        return {"md5": row.md5, "sha256": row.sha256}.get(ALGORITHMS.get(algorithm.upper(), ""))

    def signature(self, place: str) -> str:
        return ""

    def moved(self, digest: Digest) -> bool:
        return False


class _Folder:
    """The files below a folder: digest files as read, trace files by their place."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.digests: list[Digest] = []
        self.unreadable: list[Finding] = []
        self.traces: dict[str, int] = {}
        self._places: dict[str, list[str]] = {}
        with disk_errors(f"{root} cannot be read"):
            for folder, folders, names in os.walk(root):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in sorted(names):
                    if not name.startswith(".") and name.lower().endswith((".json", ".json.gz")):
                        self._take(os.path.relpath(os.path.join(folder, name), root))

    def _take(self, place: str) -> None:
        self._places.setdefault(os.path.basename(place), []).append(place)
        named = _DIGEST.search(place) is not None
        trace = _TRACE.search(place)
        if trace is not None and not named:
            self.traces[place] = _second(trace[1]) or 0
            return
        path = os.path.join(self.root, place)
        # A file whose name tells nothing may be a digest file that was saved under another one.
        if named or os.path.getsize(path) < 1 << 20:
            digest = _read(path, place)
            if isinstance(digest, Digest):
                self.digests.append(digest)
            elif named and os.path.getsize(path):
                self.unreadable.append(Finding("digest-unreadable", place, digest))

    def find(self, key: str) -> list[str]:
        # The folder may be the bucket, lie in it, or have it below.
        candidates = [place for place in self._places.get(os.path.basename(key), []) if same_place(place, key)]
        return [max(candidates, key=len)] if candidates else []

    def hash(self, place: str, algorithm: str) -> str | None:
        name = ALGORITHMS.get(algorithm.upper())
        if name is None:
            return None
        path = os.path.join(self.root, place)
        with disk_errors("a trace file cannot be read"), open(path, "rb", buffering=0) as f:
            return hashlib.file_digest(f, lambda: hashlib.new(name, usedforsecurity=False)).hexdigest()

    def signature(self, place: str) -> str:
        try:
            with open(os.path.join(self.root, place + SIGNATURE), encoding="ascii", errors="replace") as f:
                return f.read(1 << 16).strip()
        except FileNotFoundError:
            return ""

    def moved(self, digest: Digest) -> bool:
        return _DIGEST.search(digest.path) is not None and not any(
            same_place(path, digest.object) for path in (digest.path, f"{digest.path}.gz")
        )


def same_place(place: str, key: str) -> bool:
    """Whether a path below a folder can be that of a key: one is the end of the other, by whole parts."""
    return place == key or key.endswith(f"/{place}") or place.endswith(f"/{key}")


def _read(path: str, place: str) -> Digest | str:
    """A digest file, or why it is none."""
    with disk_errors("a digest file cannot be read"), open(path, "rb") as f:
        raw = f.read(_LARGEST + 1)
    try:
        value = json.loads(_gunzip(raw) if raw[:2] == b"\x1f\x8b" else raw)
        if len(raw) > _LARGEST:
            return "it is no digest file"
        hashes = {"md5": hashlib.md5(raw, usedforsecurity=False).hexdigest(), "sha256": hashlib.sha256(raw).hexdigest()}
        return digest_of(value, place, hashes)
    except (ValueError, KeyError, TypeError, OSError, EOFError, zlib.error, RecursionError) as e:
        return f"it cannot be read: {type(e).__name__} {e}"


def digest_of(value: Any, place: str, hashes: dict[str, str]) -> Digest:
    """A digest file out of its JSON; `hashes` are those of its file. ValueError, KeyError or TypeError for what is none."""
    if not isinstance(value["log_files"], list):
        raise ValueError("it is no digest file")
    begin, end = _second(value["digest_start_time"]), _second(value["digest_end_time"])
    if begin is None or end is None:
        raise ValueError("its times cannot be read")
    files = [(str(each["object"]), str(each["log_hash_algorithm"]), str(each["log_hash_value"])) for each in value["log_files"]]
    return Digest(
        path=place,
        bucket=_text(value, "digest_bucket"),
        object=str(value["digest_object"]),
        series=_series(os.path.dirname(str(value["digest_object"]))),
        begin=begin,
        end=end,
        end_text=str(value["digest_end_time"]),
        ends=value.get("digest_end") is True,
        previous=_text(value, "previous_digest_object"),
        previous_hash=_text(value, "previous_digest_hash_value").lower(),
        previous_algorithm=_text(value, "previous_digest_hash_algorithm"),
        previous_signature=_text(value, "previous_digest_signature"),
        files=tuple((name, algorithm, digest.lower()) for name, algorithm, digest in files),
        hashes=hashes,
    )


def _gunzip(raw: bytes) -> bytes:
    import io

    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as f:
        text = f.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise ValueError("larger than a digest file can be")
    return text


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    return "" if found is None else str(found)


def _second(text: object) -> int | None:
    """`2017-03-28T02-09-17Z` in seconds."""
    try:
        return int(datetime.datetime.strptime(str(text), "%Y-%m-%dT%H-%M-%SZ").replace(tzinfo=datetime.UTC).timestamp())
    except ValueError:
        return None


def _series(folder: str) -> tuple[str, ...]:
    """What the digest files of one chain, and their trace files, have in common: the folders but for the date."""
    return tuple(part for part in folder.split("/") if part and not part.isdigit() and part != "Digest")


class _Check:
    """One verification."""

    def __init__(self, source: _Source, verifier: Verifier | None, signatures: Sequence[str]) -> None:
        self.source, self.verifier, self.signatures = source, verifier, tuple(signatures)
        self.findings: list[Finding] = list(source.unreadable)
        self.windows: list[Window] = []
        self.files = 0
        self._listed: set[str] = set()
        self._by_object: dict[str, Digest] = {}
        self._next: dict[str, Digest] = {}
        self._bad: set[str] = set()
        self._changed: set[str] = set()

    def run(self) -> None:
        for digest in self.source.digests:
            self._register(digest)
        for digest in self._by_object.values():
            if digest.previous:
                other = self._next.setdefault(digest.previous, digest)
                if other is not digest:
                    self._add("fork", digest, f"{other.object} follows {digest.previous}, too")
        ordered = sorted(self._by_object.values(), key=lambda d: (d.series, d.end, d.object))
        for _, chain in itertools.groupby(ordered, key=lambda d: d.series):
            digests = list(chain)
            for before, digest in zip((None, *digests), digests, strict=False):
                self._link(digest, before)
            for digest in digests:
                self._vouched(digest)
                self._signature(digest, digest is digests[-1])
        self._unlisted(ordered)
        for digest in ordered:
            sound, series = digest.object not in self._bad, "/".join(digest.series)
            self.windows.append(Window(series=series, begin=digest.begin * 1000, end=digest.end * 1000, sound=sound))

    def _add(self, kind: str, digest: Digest, detail: str, name: str = "") -> None:
        self.findings.append(Finding(kind, name or digest.object, detail))
        if self.findings[-1].problem:
            self._bad.add(digest.object)

    def _register(self, digest: Digest) -> None:
        other = self._by_object.setdefault(digest.object, digest)
        if other is not digest and other.hashes != digest.hashes:
            self._add("fork", digest, f"{other.path} and {digest.path} both say that they are it")
        if self.source.moved(digest):
            self._add("digest-moved", digest, f"it lies at {digest.path}")

    def _link(self, digest: Digest, before: Digest | None) -> None:
        """How a digest file joins the one before it; `before` is the one that comes before it in time."""
        previous = self._by_object.get(digest.previous) if digest.previous else None
        if previous is not None:
            algorithm = ALGORITHMS.get(digest.previous_algorithm.upper())
            if algorithm is None:
                self._add("hash-unknown", digest, f"{digest.previous_algorithm!r} of the digest file before")
            elif previous.unpacked:
                self._add("file-unpacked", previous, "it cannot be compared with what the next digest file says")
            elif previous.hashes[algorithm] != digest.previous_hash:
                self._changed.add(previous.object)
                self._add("digest-changed", previous, f"its {digest.previous_algorithm} is not what {digest.object} says")
            if digest.begin > previous.end:
                self._add("gap", digest, f"nothing vouches for the {digest.begin - previous.end} seconds before it")
        elif digest.previous and before is not None:
            self._add("gap", digest, "it follows this one, which is missing", digest.previous)
        elif digest.previous:
            self._add("begins-here", digest, f"{digest.previous} is not here")
        elif before is not None and before.ends:
            self._add("restarted", digest, f"nothing vouches for the {digest.begin - before.end} seconds before it")
        elif before is not None:
            self._add("gap", digest, f"the chain begins anew here, and {before.object} does not end it")

    def _vouched(self, digest: Digest) -> None:
        """The trace files of a digest file."""
        for key, algorithm, expected in digest.files:
            self.files += 1
            places = self.source.find(key)
            hashes = {self.source.hash(place, algorithm) for place in places}
            self._listed.update(places)
            if not places and (unpacked := self.source.find(key.removesuffix(".gz"))):
                self._listed.update(unpacked)
                self._add("file-unpacked", digest, f"it cannot be compared with what {digest.object} says", key)
            elif not places:
                self._add("file-missing", digest, f"{digest.object} vouches for it", key)
            elif None in hashes:
                self._add("hash-unknown", digest, f"{algorithm!r} of {key}")
            elif expected not in hashes:
                self._add("file-changed", digest, f"its {algorithm} is not what {digest.object} says", key)

    def _signature(self, digest: Digest, newest: bool) -> None:
        following = self._next.get(digest.object)
        beside = self.source.signature(digest.path)
        known = [following.previous_signature] if following is not None else [beside] if beside else list(self.signatures)
        known = [each for each in known if each]
        if not known and newest:
            self._add("head-unsigned", digest, "its signature is in no file: give it, or wait for the next digest file")
        elif not known and self.verifier is not None:
            self._add("unsigned", digest, "nothing but the hash in the next digest file holds it")
        elif known and self.verifier is None and newest:
            self._add("signature-unchecked", digest, "give --public-key to check the signatures of its chain")
        elif known and not digest.unpacked and digest.object not in self._changed and not self._signed(digest, following, known):
            self._add("signature-wrong", digest, "it is not signed by this key, or was changed since")

    def _signed(self, digest: Digest, following: Digest | None, signatures: Sequence[str]) -> bool:
        """Whether one of these is the digest file's signature; True where no key was given to tell.

        Which hash was signed stands in the digest files beside it.
        """
        if self.verifier is None:
            return True
        named = [following.previous_algorithm] if following is not None else []
        named += [digest.previous_algorithm, *(algorithm for _, algorithm, _ in digest.files[:1]), "MD5", "SHA-256"]
        for algorithm in dict.fromkeys(ALGORITHMS[name.upper()] for name in named if name.upper() in ALGORITHMS):
            text = signed_text(digest.end_text, digest.object, digest.hashes[algorithm], digest.previous_signature)
            if any(self.verifier.verify(text, signature) for signature in signatures):
                return True
        return False

    def _unlisted(self, digests: Sequence[Digest]) -> None:
        """Trace files that no digest file names."""
        outside: list[str] = []
        for place, second in sorted(self.source.traces.items()):
            if place in self._listed:
                continue
            own = [d for d in digests if _of_series(place, d.series)]
            covering = next((d for d in own if d.begin < second <= d.end), None)
            if covering is not None:
                self._add("file-unlisted", covering, f"{covering.object}, the digest file of its hour, does not name it", place)
            else:
                outside.append(place)
        if outside:
            more = f"; {len(outside) - 1} more like it" if len(outside) > 1 else ""
            self.findings.append(Finding("not-covered", outside[0], f"no digest file speaks of its time and service{more}"))


def _of_series(place: str, series: tuple[str, ...]) -> bool:
    own = _series(os.path.dirname(place))
    shorter = min(len(own), len(series))
    return shorter == 0 or own[-shorter:] == series[-shorter:]
