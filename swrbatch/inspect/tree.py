"""Layers merged into the tree that a container sees, and what each layer changed. Pure: members go in, numbers come out.

The rules (OCI image specification, layer.md): a whiteout `.wh.name` removes `name` and what is under it, from lower layers only;
`.wh..wh..opq` removes all lower children of its folder; what is no folder replaces a folder with its children, and the other way
round. The order of a layer's members does not matter for its whiteouts. Other names in `.wh..wh.` at the top are aufs's own.

A path is taken as written: an entry below a symbolic link of a lower layer makes a folder in its place, which is what overlay
mounts of such layers show; containerd, which unpacks into the mounted tree, writes through the link instead.

Waste is the bytes of regular files in all layers minus those in the final tree; hard links count once, while a name is left.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ..errors import ArchiveFault, fault
from ..sizes import format_size
from ..tar import Member

MAX_NODES: Final = 600_000
"""Files and folders of one image that are kept in memory, about 250 bytes each, or 450 with their members."""
MAX_NAMES: Final = 96 << 20
"""Characters of all names and link targets of an image's members."""
MAX_PATH: Final = 4096
"""Bytes of a path: Linux takes no longer ones, so no engine can unpack such a layer."""
WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
_AUFS: Final = ".wh..wh."
_DATA: Final = ("file", "sparse file")
_MAX_LINKS: Final = 40  # as Linux has it
_MAX_STEPS: Final = 4096  # of a path and all links on it: each of 40 links may lead through thousands of folders

Action = Literal["added", "changed", "deleted"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a layer did to a path that is no folder. `size` in bytes: of the file that it set, of a deleted one what it had."""

    action: Action
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Bytes of a regular file that no path leads to any more: put there by layer `since`, gone with layer `by`."""

    path: str
    size: int
    since: int
    by: int


@dataclass(frozen=True, slots=True)
class TreeFile:
    """What is no folder, at a path of the tree: the layer that set it last, and its member (of a hard link: the target's)."""

    path: str
    layer: int
    member: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChanges:
    """What a layer did. Files are all that is no folder; a changed one is there before and after, equal or not.

    `file_bytes` are those of the layer's regular files, `removed_bytes` of those that it made unreachable, in bytes.
    `dangling` are hard links to nothing. `files`, sorted by path, is empty unless it was asked for.
    """

    added: int
    changed: int
    deleted: int
    file_bytes: int
    removed_bytes: int
    dangling: int
    files: tuple[FileChange, ...] = ()


class _Inode:
    """A regular file with several names, as many as `names`."""

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names = 1


class _File:
    """A name that is no folder, last set by `layer`. `size` is that of a regular file, 0 for all others."""

    __slots__ = ("inode", "layer", "member", "size")

    def __init__(self, size: int, layer: int, inode: _Inode | None = None, member: Member | None = None) -> None:
        self.size = size
        self.layer = layer
        self.inode = inode
        self.member = member


class _Folder:
    """A folder, last set by `layer`."""

    __slots__ = ("children", "layer")

    def __init__(self, layer: int) -> None:
        self.children: dict[str, _File | _Folder] = {}
        self.layer = layer


def path_parts(name: str) -> list[str]:
    """A member's name as the steps from the root; none for the root itself. Raises path-escape, metadata-too-large."""
    parts = [part for part in name.split("/") if part and part != "."]
    if len(name) > MAX_PATH:
        size = format_size(len(name), beside=MAX_PATH)
        raise fault("metadata-too-large", place=name, name="the path of a member", size=size, limit=format_size(MAX_PATH))
    if ".." not in parts:
        return parts
    real: list[str] = []
    for part in parts:
        if part != "..":
            real.append(part)
        elif real:
            real.pop()
        else:
            raise fault("path-escape", place=name, name=name)
    return real


def _too_many_names(place: str, count: int) -> ArchiveFault:
    size = format_size(count, beside=MAX_NAMES)
    return fault("metadata-too-large", place=place, name="the list of the image's files", size=size, limit=format_size(MAX_NAMES))


class MergedTree:
    """The tree of an image. Layers are put on it from the lowest: `begin`, `add` each member, `end`.

    With `keep_members` files can be looked up (`resolve`), and `losses` tells of each file whose bytes are wasted.
    """

    def __init__(self, *, keep_files: bool = False, keep_members: bool = False) -> None:
        self.total_bytes = 0
        self.wasted_bytes = 0
        self.wasted: dict[str, int] = {}
        self.losses: list[Loss] = []
        self._keep = keep_files
        self._keep_members = keep_members
        self._root = _Folder(0)
        self._nodes = 0
        self._names = 0
        self._layer = -1
        self._clear()

    def _clear(self) -> None:
        self._removed: dict[str, int] = {}  # lower files that this layer replaced or deleted: path, bytes
        self._present = 0  # files that this layer set and that are still there
        self._file_bytes = self._removed_bytes = self._dangling = 0
        self._set: set[str] = set()

    @property
    def final_bytes(self) -> int:
        """Bytes of the regular files in the tree."""
        return self.total_bytes - self.wasted_bytes

    @property
    def efficiency(self) -> float:
        """The final bytes' share of all; 1 when there are none."""
        return self.final_bytes / self.total_bytes if self.total_bytes else 1.0

    def largest_waste(self, count: int) -> list[tuple[str, int]]:
        """The paths that waste most, with their bytes, largest first."""
        return heapq.nsmallest(count, self.wasted.items(), key=lambda item: (-item[1], item[0]))

    def files(self) -> Iterator[tuple[str, int]]:
        """All that is no folder, with the bytes of regular files."""
        for _, _, path, node in self._walk("", self._root):
            if isinstance(node, _File):
                yield path, node.size

    def resolve(self, path: str) -> TreeFile | bool | None:
        """What a path of a container leads to, symbolic links followed: a file, True for a folder, None for nothing.

        False where that cannot be told: links go round, or lead to what only a running container has (/proc, /dev).
        """
        left = list(reversed([part for part in path.split("/") if part and part != "."]))
        done: list[str] = []
        folders = [self._root]  # the root, and the folder of each part that is done
        followed = steps = 0
        while left:
            part = left.pop()
            steps += 1
            if steps > _MAX_STEPS:
                return False
            if part == "..":
                if done:
                    done.pop()
                    folders.pop()
                continue
            node = folders[-1].children.get(part)
            if not isinstance(node, _File):
                if node is None:
                    return False if done[:1] in (["proc"], ["dev"], ["sys"]) or part in ("proc", "dev", "sys") else None
                done.append(part)
                folders.append(node)
                continue
            member = node.member
            if member is None:  # a hard link to nothing
                return False
            if member.kind != "symbolic link":
                if left:
                    return None
                return TreeFile("/".join((*done, part)), node.layer, member)
            followed += 1
            if followed > _MAX_LINKS or len(member.target) > MAX_PATH:
                return False
            if member.target.startswith("/"):
                done, folders = [], [self._root]
            left += [step for step in reversed(member.target.split("/")) if step and step != "."]
        return True

    def layer_of(self, path: str) -> int | None:
        """The layer that set the file at a path, links not followed; None when no file is there."""
        node = self._find(path.split("/"))
        return node.layer if isinstance(node, _File) else None

    # --- putting a layer on ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin the next layer."""
        self._layer += 1
        self._clear()

    def add(self, member: Member) -> None:
        """Take a member of the layer. Raises path-escape, metadata-too-large, too-many-members, archive-corrupt."""
        parts = path_parts(member.name)
        self._names += len(member.name) + len(member.target)
        if self._names > MAX_NAMES:
            raise _too_many_names(member.name, self._names)
        if not parts:
            return
        base = parts.pop()
        if WHITEOUT in member.name and self._special(parts, base, member):
            return
        if member.kind == "directory":
            self._add_folder(self._folder(parts), parts, base)
        elif member.kind == "hard link":
            self._add_link(parts, base, member.target)
        else:
            size = member.size if member.kind in _DATA else 0
            self.total_bytes += size
            self._file_bytes += size
            kept = member if self._keep_members else None
            self._put(self._folder(parts), parts, base, _File(size, self._layer, None, kept))

    def end(self) -> LayerChanges:
        """End the layer; what it changed."""
        replaced = {path for path in self._removed if isinstance(self._find(path.split("/")), _File)}
        return LayerChanges(
            added=self._present - len(replaced),
            changed=len(replaced),
            deleted=len(self._removed) - len(replaced),
            file_bytes=self._file_bytes,
            removed_bytes=self._removed_bytes,
            dangling=self._dangling,
            files=tuple(self._changes(replaced)) if self._keep else (),
        )

    def _changes(self, replaced: set[str]) -> Iterator[FileChange]:
        for path in sorted(self._set | self._removed.keys()):
            node = self._find(path.split("/"))
            if not isinstance(node, _File):
                if path in self._removed:
                    yield FileChange("deleted", path, self._removed[path])
            else:
                yield FileChange("changed" if path in replaced else "added", path, node.size)

    def _special(self, parts: list[str], base: str, member: Member) -> bool:
        """Whether the member is a whiteout, which is then carried out, or something of aufs."""
        if (parts[0] if parts else base).startswith(_AUFS) and (parts or base != OPAQUE):
            return True
        if base == OPAQUE:
            folder = self._find(parts)
            if isinstance(folder, _Folder):
                self._drop(folder, "/".join(parts), lower_only=True)
            return True
        if not base.startswith(WHITEOUT):
            return False
        name = base.removeprefix(WHITEOUT)
        if name in ("", ".", ".."):
            raise fault("archive-corrupt", place=member.name, detail="a whiteout names nothing")
        parent = self._find(parts)
        child = parent.children.get(name) if isinstance(parent, _Folder) else None
        if isinstance(parent, _Folder) and child is not None:
            path = "/".join((*parts, name))
            if isinstance(child, _Folder):
                self._drop(child, path, lower_only=True)
                if child.layer < self._layer and not child.children:
                    del parent.children[name]
            elif child.layer < self._layer:
                del parent.children[name]
                self._lose(child, path)
        return True

    def _add_folder(self, parent: _Folder, parts: list[str], base: str) -> None:
        old = parent.children.get(base)
        if isinstance(old, _Folder):
            old.layer = self._layer
        else:
            self._make_folder(parent, "/".join((*parts, base)), base)

    def _add_link(self, parts: list[str], base: str, target: str) -> None:
        aim = path_parts(target)
        found = self._find(aim)
        if not isinstance(found, _File):
            self._dangling += 1
            self._put(self._folder(parts), parts, base, _File(0, self._layer))
        elif aim != [*parts, base]:
            if found.inode is None:
                found.inode = _Inode()
            # Before its folder is made, for that may stand where the target does.
            found.inode.names += 1
            self._put(self._folder(parts), parts, base, _File(found.size, self._layer, found.inode, found.member))

    def _put(self, parent: _Folder, parts: list[str], base: str, file: _File) -> None:
        old = parent.children.get(base)
        if old is not None:
            path = "/".join((*parts, base))
            if isinstance(old, _Folder):
                self._drop(old, path, lower_only=False)
            else:
                self._lose(old, path)
        else:
            self._count()
        parent.children[base] = file
        self._present += 1
        if self._keep:
            self._set.add("/".join((*parts, base)))

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise fault("too-many-members", limit=MAX_NODES)

    def _find(self, parts: list[str]) -> _File | _Folder | None:
        node: _File | _Folder | None = self._root
        for part in parts:
            if not isinstance(node, _Folder):
                return None
            node = node.children.get(part)
        return node

    def _folder(self, parts: list[str]) -> _Folder:
        """The folder, made where it is missing or something else stands."""
        folder = self._root
        for depth, part in enumerate(parts):
            child = folder.children.get(part)
            if not isinstance(child, _Folder):
                path = "/".join(parts[: depth + 1]) if child is not None else ""  # told only where something is replaced
                child = self._make_folder(folder, path, part)
            folder = child
        return folder

    def _make_folder(self, parent: _Folder, path: str, base: str) -> _Folder:
        old = parent.children.get(base)
        if isinstance(old, _File):
            self._lose(old, path)
        self._count()
        made = parent.children[base] = _Folder(self._layer)
        return made

    def _drop(self, folder: _Folder, path: str, *, lower_only: bool) -> None:
        """Remove what is under a folder; with `lower_only` what this layer has set stays, and the folders that lead to it.

        Children first. Paths are put together for lost files alone: folders may be many, and deep.
        """
        steps = [path] if path else []
        open_folders = [(folder, iter(list(folder.children.items())))]
        while open_folders:
            parent, left = open_folders[-1]
            for name, node in left:
                if isinstance(node, _Folder):
                    steps.append(name)
                    open_folders.append((node, iter(list(node.children.items()))))
                    break
                if not lower_only or node.layer != self._layer:
                    del parent.children[name]
                    self._lose(node, "/".join((*steps, name)))
            else:
                open_folders.pop()
                if open_folders:
                    name = steps.pop()
                    if not lower_only or (parent.layer != self._layer and not parent.children):
                        del open_folders[-1][0].children[name]

    @staticmethod
    def _walk(path: str, folder: _Folder) -> Iterator[tuple[_Folder, str, str, _File | _Folder]]:
        """Parent, name, path and node of all under a folder, folders before what is in them."""
        left = [(path, folder)]
        while left:
            above, parent = left.pop()
            for name, node in parent.children.items():
                at = f"{above}/{name}" if above else name
                yield parent, name, at, node
                if isinstance(node, _Folder):
                    left.append((at, node))

    def _lose(self, file: _File, path: str) -> None:
        """A name is gone; with the last one the bytes are wasted."""
        if file.layer < self._layer:
            self._removed[path] = file.size
        else:
            self._present -= 1
        if file.inode is not None:
            file.inode.names -= 1
            if file.inode.names:
                return
        if file.size:
            self.wasted_bytes += file.size
            self._removed_bytes += file.size
            self.wasted[path] = self.wasted.get(path, 0) + file.size
            if self._keep_members:
                self.losses.append(Loss(path, file.size, file.layer, self._layer))
