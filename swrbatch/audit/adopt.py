"""Take what somebody pushed into the served store over into the ledger, with the event that was missing.

Each tag that the registry serves and the events do not tell of (or tell otherwise) becomes a row of the tag table and an event
`uploadImagePackage` whose result is "adopted", in one transaction with the organizations and repositories that it needs. Adopted
means checked like an import: the manifest and every layer are hashed, and the layers' contents held against the config.

What the events tell of and the registry does not have is never adopted: a folder that is not mounted looks the same as tags
that somebody deleted. `swrbatch verify --repair` writes links again, an import brings the content back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from ..archive import MAX_CONFIG, MAX_DECOMPRESSED
from ..attempt import ImageRecord, LoadRules
from ..compression import Compression, sniff
from ..cts import Actor, Trace, new_trace
from ..digest import Cancel, Digest, Extent
from ..disk import disk_errors, locked
from ..errors import ArchiveFault, StoreError, printable
from ..image import ImageConfig, Manifest
from ..layers import Budget, LayerReading, LayerSource
from ..ledger.events import append_events
from ..ledger.loads import LoadState, decide, plan, read_state, write_layer_blobs, write_loads, write_settings
from ..ledger.schema import accounts, organizations, repositories, tags
from ..policy import Part, Reference, why_invalid
from ..store import Store
from .reconcile import Difference

ARCHIVE: Final = "(pushed into the served store)"
"""What the tag table and the report have as the archive of an adopted image."""
_TAG_KINDS: Final = frozenset({"present-without-event", "other-digest", "deleted-but-present"})
_NAME_KINDS: Final = frozenset({"unrecorded-organization", "unrecorded-repository", "deleted-but-present"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A difference that was not adopted, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """A served image that was checked."""

    reference: Reference
    manifest: Manifest
    record: ImageRecord
    layers: tuple[dict[str, Any], ...]


def adopt(
    store: Store,
    differences: Sequence[Difference],
    *,
    actor: Actor,
    rules: LoadRules,
    run_id: str,
    now: int,
    cancel: Cancel | None = None,
) -> tuple[list[str], list[Refusal]]:
    """Adopt what of these differences can be: the names adopted, and what was left, with the reason.

    Raises `StoreError` when the store cannot be read or written, `Cancelled`.
    """
    cancel = cancel or Cancel()
    with store.run(run_id, cancel) as tmp:
        images, refusals = _examine_all(store, differences, cancel)
        names = [each.name for each in differences if each.kind in _NAME_KINDS and ":" not in each.name]
        with locked(store.lock("links"), cancel=cancel), store.ledger.write() as connection:
            adopted, more = _Adoption(store, connection, actor, rules, run_id, now).run(images, names, tmp)
    return adopted, [*refusals, *more]


def _examine_all(store: Store, differences: Sequence[Difference], cancel: Cancel) -> tuple[list[_Image], list[Refusal]]:
    registry = store.settings().get("registry", "")
    images: list[_Image] = []
    refusals: list[Refusal] = []
    for each in differences:
        if each.kind in _TAG_KINDS and ":" in each.name:
            examined = _examine(store, each, registry, cancel)
            if isinstance(examined, _Image):
                images.append(examined)
            else:
                refusals.append(Refusal(each.name, examined))
        elif each.kind not in _NAME_KINDS:
            refusals.append(Refusal(each.name, "what is not there cannot be adopted: see swrbatch verify --repair"))
    return images, refusals


class _Adoption:
    """One transaction. Links are not written meanwhile, and a push can only add another difference."""

    def __init__(self, store: Store, connection: Connection, actor: Actor, rules: LoadRules, run_id: str, now: int) -> None:
        self.store, self.connection, self.actor, self.rules, self.now = store, connection, actor, rules, now
        self.common: dict[str, Any] = {"actor": actor, "run_id": run_id, "time": now, "record_time": now}
        self.traces: list[Trace] = []
        self.refusals: list[Refusal] = []

    def run(self, images: Sequence[_Image], names: Sequence[str], tmp: str) -> tuple[list[str], list[Refusal]]:
        known = list(self._known(names))
        state = read_state(self.connection, [image.reference for image in images], self.actor, self.rules)
        taken = [image for image in images if self._take(image, state)]
        changed = {(i.reference.path, i.reference.tag): i.record for i in taken if state.tags[_key(i)].planned}
        if changed:
            write_settings(self.connection, self.rules.defaults)
            write_loads(self.connection, state, changed, self.actor, self.now)
            # The tags' own links are there already: they are what was adopted.
            links = [{"key": state.repositories[path], "name": tag, "linked": r.digest} for (path, tag), r in changed.items()]
            statement = update(tags).where(tags.c.repository_id == bindparam("key"), tags.c.tag == bindparam("name"))
            self.connection.execute(statement.values(link_pending=False, linked_digest=bindparam("linked")), links)
        for image in taken:
            # A push wrote them all; they are written again where they were lost.
            self.store.layout.write_links(self.store.layout.links_of(*_key(image), image.manifest), tmp)
        write_layer_blobs(self.connection, [note for image in taken for note in image.layers])
        append_events(self.connection, self.traces)
        return [*known, *(image.reference.name for image in taken)], self.refusals

    def _known(self, names: Sequence[str]) -> Iterator[str]:
        """Organizations and repositories of the ledger that lack their event."""
        joined = organizations.join(accounts)
        owners = select(organizations.c.name, organizations.c.owner, accounts.c.name.label("account")).select_from(joined)
        owned = {row.name: {"owner": row.owner, "account": row.account} for row in self.connection.execute(owners)}
        paths = select(organizations.c.name, repositories.c.name, repositories.c.is_public)
        rows = self.connection.execute(paths.select_from(repositories.join(organizations)))
        public = {f"{organization}/{repository}": bool(is_public) for organization, repository, is_public in rows}
        for name in sorted(names):
            if name in owned:
                self._made("createUserNamespace", name, owned[name])
                yield name
            elif name in public:
                self._made("createImageRepository", name, {"is_public": public[name]})
                yield name

    def _take(self, image: _Image, state: LoadState) -> bool:
        """Note the row and the event of one image; False when it is refused."""
        reference, digest, key = image.reference, image.record.digest, _key(image)
        served = self.store.layout.read_tag(*key)
        state.served[key] = str(served) if served else None
        if state.served[key] != digest:
            return self._refuse(reference, "it was pushed again meanwhile: run again")
        recorded = state.tags[key].digest if key in state.tags else None
        decision = decide(reference, image.record.image_id, digest, state, self.actor, self.rules)
        if decision.issues:
            return self._refuse(reference, decision.issues[0].message)
        if decision.new_organization:
            said: dict[str, object] = {"owner": self.actor.user, "account": self.actor.account}
            said |= {"administrator": True} if decision.new_administrator else {}
            self._made("createUserNamespace", reference.namespace, said)
        if decision.new_repository:
            self._made("createImageRepository", reference.path, {"is_public": False})
        # Where the tag table has it already, only its event is missing: `plan` changes nothing.
        plan(reference, image.record.image_id, decision, state, self.actor)
        response = {"digest": digest, "image_id": image.record.image_id, "previous_digest": recorded, "result": "adopted"}
        self.traces.append(
            new_trace(
                "uploadImagePackage",
                resource_name=reference.name,
                resource_id=digest,
                request={"archive": ARCHIVE, "reference": str(reference)},
                response=response,
                **self.common,
            )
        )
        return True

    def _refuse(self, reference: Reference, reason: str) -> bool:
        self.refusals.append(Refusal(reference.name, reason))
        return False

    def _made(self, trace_name: str, name: str, said: dict[str, object]) -> None:
        namespace, _, repository = name.partition("/")
        request = {"namespace": namespace} | ({"repository": repository} if repository else {})
        response = {**said, "result": "adopted"}
        self.traces.append(new_trace(trace_name, resource_name=name, request=request, response=response, **self.common))


def _key(image: _Image) -> tuple[str, str]:
    return image.reference.path, image.reference.tag


# --- looking at what is served -----------------------------------------------------------------------------------------


def _examine(store: Store, difference: Difference, registry: str, cancel: Cancel) -> _Image | str:
    """What the registry serves under a name, checked; or why it cannot be adopted."""
    path, _, tag = difference.name.rpartition(":")
    namespace, slash, repository = path.partition("/")
    if not slash:
        return "it has no organization: its name has one part only"
    parts: tuple[tuple[Part, str], ...] = (("namespace", namespace), ("repository", repository), ("tag", tag))
    if reason := next((why for part, text in parts if (why := why_invalid(part, text, "api"))), ""):
        return f"the name breaks the naming rules: {reason}"
    if not difference.actual:
        return "its link is damaged"
    try:
        manifest = store.manifest(Digest.parse(difference.actual))
        config = _config(store, manifest)
        sizes, layers = _layers(store, manifest, config, cancel)
    except (StoreError, ArchiveFault, EOFError, ValueError) as e:
        return str(e) or "a blob ends early"
    blobs = {layer.digest: layer.size for layer in manifest.layers}
    record = ImageRecord(
        digest=str(manifest.digest),
        media_type=manifest.media_type,
        image_id=str(config.digest),
        architecture=printable(config.architecture),
        os=printable(config.os),
        layers=len(manifest.layers),
        uncompressed_bytes=sizes,
        stored_bytes=sum(blobs.values()) + config.size + len(manifest.raw),
        archive=ARCHIVE,
    )
    return _Image(
        reference=Reference(registry, namespace, repository, tag), manifest=manifest, record=record, layers=tuple(layers)
    )


def _config(store: Store, manifest: Manifest) -> ImageConfig:
    raw = store.layout.read_blob(manifest.config.digest, MAX_CONFIG)
    if raw is None or Digest.of(raw) != manifest.config.digest:
        raise StoreError(f"the config {manifest.config.digest} is missing or damaged")
    config = ImageConfig.parse(raw, "the config")
    if len(config.diff_ids) != len(manifest.layers):
        raise StoreError(f"the config has {len(config.diff_ids)} diff_ids, the manifest {len(manifest.layers)} layers")
    return config


def _layers(store: Store, manifest: Manifest, config: ImageConfig, cancel: Cancel) -> tuple[int, list[dict[str, Any]]]:
    """Hash every layer and its content: uncompressed bytes of all, and the notes for the diff_id → blob map."""
    total, notes = 0, []
    budget = Budget(MAX_DECOMPRESSED, sum(layer.size for layer in manifest.layers))
    for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        path = store.layout.blob_path(layer.digest)
        with disk_errors(f"the layer {layer.digest} cannot be read"):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                extent = Extent(fd, 0, os.fstat(fd).st_size)
                source = LayerSource(extent, sniff(extent.read(min(6, extent.size))))
                facts = source.copy_to(None, Compression.NONE, LayerReading(budget, cancel))
            finally:
                os.close(fd)
        if facts.source_digest != layer.digest or facts.source_bytes != layer.size:
            raise StoreError(f"the layer {layer.digest} is damaged: its content is {facts.source_digest}")
        if facts.diff_id != diff_id:
            raise StoreError(f"the layer {layer.digest} holds {facts.diff_id}, the config says {diff_id}")
        total += facts.uncompressed_bytes
        notes.append({"diff_id": str(diff_id), "media_type": layer.media_type, "digest": str(layer.digest), "size": layer.size})
    return total, notes
