"""What rules need of a layer, from one pass over it: its members, a few small texts, and the files that hold secrets."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import ArchiveFault
from ..inspect.contents import LayerWalk, room_of
from ..inspect.tree import WHITEOUT, path_parts
from ..tar import Look, Member
from .secrets import SecretFile, bytes_wanted, secret_in

TEXT_BYTES: Final = 64 << 10
"""Bytes of a script or of os-release that are read; a larger one is not looked into."""
_TEXTS: Final = 8 << 20
"""Bytes of texts that are kept of a layer, of each kind: so that no number of other scripts pushes out the one that starts."""
_SECRETS: Final = 1_000
"""Files with secrets of a layer, of each kind: so that no number of keys of tests hides a real one."""
_OS_RELEASE: Final = ("etc/os-release", "usr/lib/os-release", "etc/alpine-release", "etc/debian_version")


@dataclass(frozen=True, slots=True)
class LayerContents:
    """A layer. `texts` are by path: os-release, and scripts that may be what a container starts. `bytes`: its tar's size."""

    members: Sequence[Member]
    texts: dict[str, str]
    secrets: tuple[SecretFile, ...]
    bytes: int

    @property
    def room(self) -> int:
        """How many members of usual size it takes the room of in memory."""
        return sum(map(room_of, self.members))


def read_layer(walk: Callable[[Look], LayerWalk], programs: frozenset[str]) -> LayerContents:
    """Read a layer once. `programs` are names (without folders) of what images start: their scripts are kept.

    Raises what the walk does.
    """
    texts: dict[str, str] = {}
    secrets: list[SecretFile] = []
    kept: Counter[str] = Counter()  # bytes of texts
    counts: Counter[tuple[bool, bool]] = Counter()

    def look(member: Member, data: Callable[[int], bytes]) -> None:
        if member.kind != "file" or not member.size:
            return
        try:
            path = "/".join(path_parts(member.name))
        except ArchiveFault:
            return  # whoever takes the member tells it
        texts.pop(path, None)  # of a path that stands twice the last one counts
        name = posixpath.basename(path)
        if name.startswith(WHITEOUT):
            return
        wanted = bytes_wanted(path, member.size)
        script = member.size <= TEXT_BYTES and (name in programs or name.endswith(".sh") or "entrypoint" in name)
        if script or path in _OS_RELEASE:
            wanted = TEXT_BYTES
        if not wanted:
            return
        seen = data(wanted)
        if path in _OS_RELEASE or (script and seen.startswith(b"#!")):
            kind = "release" if path in _OS_RELEASE else "started" if name in programs else "other"
            if kept[kind] + len(seen) <= _TEXTS:
                texts[path] = seen.decode("utf-8", "replace")
                kept[kind] += len(seen)
        elif (found := secret_in(path, seen)) is not None:
            counts[found.public, found.encrypted] += 1
            if counts[found.public, found.encrypted] <= _SECRETS:
                secrets.append(found)

    found = walk(look)
    members = list(found.members)
    return LayerContents(members=members, texts=texts, secrets=tuple(secrets), bytes=found.bytes)
