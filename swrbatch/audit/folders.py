"""Destinations of files: a folder with a manifest that says which of its files count, and what they hold.

    DEST/.swrbatch-export.json   form, store, what was reached, and every file with its events and its SHA-256
    DEST/…                       the files of the form (see `forms`)

The manifest is renamed into place last. A run that is killed leaves files that it does not name; the next run removes them (and
nothing that an export did not write) and writes their events again. The first manifest is written before the first file, and
only into an empty folder: a folder of other files is never taken for a destination.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

from .. import faults
from ..disk import disk_errors
from ..errors import StoreError, UsageError
from ..store import Store
from ..tables import replacing
from . import digests, forms
from .forms import Context, Form
from .reached import Reached, Walk
from .signing import Signer

MANIFEST: Final = ".swrbatch-export.json"
LOCK: Final = ".swrbatch-lock"
_FORMAT: Final = 1
_READ: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFile:
    """A file that counts: its path below the destination, its events (sequence numbers, how many), its SHA-256.

    A digest file, and a signature, hold none: their numbers are 0.
    """

    name: str
    sha256: str
    first: int = 0
    last: int = 0
    events: int = 0


@dataclass(slots=True, kw_only=True)
class FolderManifest:
    """What counts in a destination. `digest` is the head of the chain of digest files (see `digests.Head`)."""

    format: int = _FORMAT
    form: Form
    reached: dict[str, Any]
    files: list[ExportFile] = field(default_factory=list)
    digest: dict[str, Any] | None = None

    def to_json(self) -> str:
        values = {"format": self.format, "form": self.form, "reached": self.reached, "digest": self.digest}
        return json.dumps(values | {"files": [_packed(each) for each in self.files]}, ensure_ascii=False, indent=1)


def _packed(file: ExportFile) -> dict[str, Any]:
    numbers = {"first": file.first, "last": file.last, "events": file.events} if file.events else {}
    return {"name": file.name, "sha256": file.sha256, **numbers}


def is_destination(path: str) -> bool:
    """Whether this folder is a destination of files."""
    return os.path.exists(os.path.join(path, MANIFEST))


def read_manifest(path: str) -> FolderManifest | None:
    """The manifest of a destination; None where there is none. StoreError when it cannot be read."""
    name = os.path.join(path, MANIFEST)
    try:
        with open(name, encoding="utf-8") as f:
            value = json.load(f)
        if value["format"] != _FORMAT:
            raise StoreError(f"the export {path} has the format {value['format']}: use a newer swrbatch")
        return FolderManifest(**{**value, "files": [ExportFile(**each) for each in value["files"]]})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise StoreError(f"{name} cannot be read: {e}; restore it from a backup") from e


def other_form(to: str, manifest: FolderManifest, form: str) -> UsageError:
    """What is wrong with a destination that has another form than the one that is asked for."""
    return UsageError(
        f"{to} holds an export as {manifest.form}: add --as {manifest.form}, or export as {form} to a folder of its own"
    )


class Folder:
    """A destination of files, for one run. `written` is what it wrote, in order; `lost` is what somebody took away before."""

    def __init__(self, store: Store, to: str, form: Form, now: int, signer: Signer | None = None) -> None:
        self.to = os.path.abspath(to)
        self.written: list[ExportFile] = []
        self.lost: tuple[str, ...] = ()
        self._store, self._form, self._now, self._signer = store, form, now, signer
        self._settings = store.settings()
        self._region = digests.safe_region(self._settings.get("region", "local"))

    def run(self, since: int | None, until: int | None) -> Walk:
        """Write the events of the period that are not there yet; what was walked. Errors as `export.export`."""
        with disk_errors(f"the destination {self.to} cannot be written"):
            os.makedirs(self.to, exist_ok=True)
        with locked(self.to):
            manifest = self._load()
            self.lost = tuple(each.name for each in manifest.files if not os.path.isfile(os.path.join(self.to, each.name)))
            walk = Walk(self._store, Reached.of(manifest.reached, self._store, self.to), since, until)
            head = digests.Head.of(manifest.digest)
            if head is not None and head.signature and self._signer is None:
                raise UsageError(f"the digest files of {self.to} are signed: give --sign-key, or their chain would end")
            with disk_errors(f"the destination {self.to} cannot be written"):
                self._sweep(manifest)
                self._write_all(walk, manifest, head)
            return walk

    def _load(self) -> FolderManifest:
        manifest = read_manifest(self.to)
        if manifest is None:
            if os.path.exists(os.path.join(self.to, "_swrbatch")):
                raise UsageError(f"{self.to} is a dataset (parquet): export as {self._form} to a folder of its own")
            if set(os.listdir(self.to)) - {LOCK, f".{MANIFEST}.tmp", "lost+found"}:
                raise UsageError(f"{self.to} is not empty and holds no export: choose an empty or a new folder")
            return FolderManifest(form=self._form, reached={})
        if manifest.form != self._form:
            raise other_form(self.to, manifest, self._form)
        return manifest

    def _sweep(self, manifest: FolderManifest) -> None:
        """Remove what a killed run wrote: files with the names of exports that the manifest does not name."""
        keep = {each.name for each in manifest.files}
        for folder, _, names in os.walk(self.to):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), self.to)
                if path not in keep and forms.OURS.fullmatch(path):
                    faults.point("export:sweep:before")
                    os.unlink(os.path.join(folder, name))

    def _write_all(self, walk: Walk, manifest: FolderManifest, head: digests.Head | None) -> None:
        second = self._now // 1000
        if head is not None:
            # A clock that was set back, or two runs in one second: the hours of a chain never overlap.
            second = max(second, head.end + 1)
        context = Context(registry=self._settings.get("registry", ""), region=self._region, now=second * 1000)
        before, traces = walk.reached, iter(walk)
        while group := list(islice(traces, forms.GROUP[self._form])):
            if not self.written and not manifest.reached:
                # From here on this folder is ours, and what is in it by the names of exports may be removed.
                self._save(replace(manifest, reached=before.to_dict()))
            for name, data in forms.files(self._form, group, context):
                self._put(ExportFile(name=name, sha256="", first=group[0].seq, last=group[-1].seq, events=len(group)), data)
        if self._form == "cts-obs":
            head = self._digest(head, second if self.written else self._now // 1000)
        if self.written or walk.reached != before:
            files = [*manifest.files, *self.written]
            digest = head.to_dict() if head else None
            self._save(replace(manifest, reached=walk.reached.to_dict(), files=files, digest=digest))

    def _digest(self, head: digests.Head | None, second: int) -> digests.Head | None:
        """Go on with the chain of digest files; its new head."""
        files = [(each.name, each.sha256) for each in self.written]
        if head is None and not files:
            return None
        account = self._settings.get("account", "")
        writer = digests.DigestWriter(bucket=os.path.basename(self.to), account=account, region=self._region, signer=self._signer)
        for digest in writer.hours(head, files, second):
            self._put(ExportFile(name=digest.name, sha256=""), digest.data)
            head = digest.head
            if head.signature:
                self._put(ExportFile(name=digest.name + digests.SIGNATURE, sha256=""), f"{head.signature}\n".encode())
        return head

    def _put(self, file: ExportFile, data: bytes) -> None:
        path = os.path.join(self.to, file.name)
        _make_folder(os.path.dirname(path))
        with replacing(path) as temporary:
            faults.point("export:write:before")
            with open(temporary, "wb") as f:
                f.write(data)
        self.written.append(replace(file, sha256=hashlib.sha256(data).hexdigest()))

    def _save(self, manifest: FolderManifest) -> None:
        with replacing(os.path.join(self.to, MANIFEST)) as temporary:
            faults.point("export:manifest:before")
            with open(temporary, "w", encoding="utf-8") as f:
                f.write(manifest.to_json())


@contextlib.contextmanager
def locked(to: str) -> Iterator[None]:
    """Hold a destination for one run; StoreError when another run has it."""
    with disk_errors(f"the destination {to} cannot be written"):
        fd = os.open(os.path.join(to, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise StoreError(f"another run is writing {to}: wait for it to end, and run again") from e
        yield
    finally:
        os.close(fd)


def _make_folder(path: str) -> None:
    """A folder with its parents, each synced into the one above it."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_folder(parent)
    faults.point("export:mkdir:before")
    os.mkdir(path)
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    faults.point("export:mkdir:after")


def file_sha256(path: str) -> str | None:
    """The SHA-256 of a file; None when it is not there. StoreError when it cannot be read."""
    try:
        with disk_errors("a file of the export cannot be read"), open(path, "rb", buffering=0) as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except StoreError as e:
        if isinstance(e.__cause__, FileNotFoundError):
            return None
        raise
