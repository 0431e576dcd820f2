"""Set the image of a workload's containers in Kubernetes manifests (guide 4.7, a trigger's action, offline).

Only the characters of the image's text change: comments, layout, quotes, line ends and a byte order mark stay as they are. After
an edit the text is read again and must say what it said before, but for the images; else nothing is written.

Which containers: those that are named, whatever image they have; or all, which means all whose image is of the trigger's
repository already. The guide's example selects "the workload and the container that use the Nginx image"; to give a sidecar of
another repository that image as well would break the workload. Init containers count like others: Kubernetes has one list of
names for both. A workload that stands in several documents (overlays) is updated in each.

An image that is shared through an anchor is changed where it stands when everything that uses it is to be changed; an alias alone
is replaced by the image; else the result is an error, for its text cannot be changed without changing another container.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from collections.abc import Sequence as SequenceType
from dataclasses import dataclass

from .errors import printable
from .manifests import ManifestFile, Refused, SkippedFile, Use, Workload, read_file, walk
from .policy import Reference
from .yamltree import Alias, BadYaml, Mapping, Node, Scalar, Sequence, read_tree, replacement, shape


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEdit:
    """A container's image: in which file (relative to the folder) and line (from 1), what it was, what it is."""

    file: str
    line: int
    container: str
    init: bool
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateResult:
    """What became of an update. With an `error` nothing was changed, but for `changed` when a disk failed in between.

    `unchanged` images were right already. `patch` is the path of a patch file (see `patches`), "" for none.
    """

    changed: tuple[ImageEdit, ...] = ()
    unchanged: tuple[ImageEdit, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    error: str = ""
    patch: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were changed, each once."""
        return tuple(dict.fromkeys(edit.file for edit in self.changed))


def update_images(
    folder: str, workload: Workload, image: Reference, containers: SequenceType[str] = (), *, dry_run: bool = False
) -> UpdateResult:
    """Set the image of a workload's containers (see the module for which) in the manifests below `folder`.

    Idempotent. Files are replaced one by one, each in one step, with mode and owner kept; all are prepared before the first is
    replaced. What stands in the way is the result's error, never an exception.
    """
    skipped: list[SkippedFile] = []
    done: list[ImageEdit] = []
    unchanged: tuple[ImageEdit, ...] = ()
    with told(folder) as error, alone(folder):
        files = find(folder, workload, image, containers, skipped)
        plans = [(file, *_plan(file, image)) for file in files]
        unchanged = tuple(edit for _, _, edits in plans for edit in edits if edit.before == edit.after)
        wanted = [(file, text, [e for e in edits if e.before != e.after]) for file, text, edits in plans if text != file.text]
        for file, _, _ in wanted:
            _check_writable(file)
        if dry_run:
            done += [edit for _, _, edits in wanted for edit in edits]
        else:
            _replace_all(wanted, done)
    return UpdateResult(changed=tuple(done), unchanged=unchanged, skipped=tuple(skipped), error="".join(error))


@contextlib.contextmanager
def told(folder: str) -> Iterator[list[str]]:
    """What ends the block as one text in a list; the list is empty when nothing does."""
    error: list[str] = []
    try:
        yield error
    except Refused as e:
        error.append(str(e))
    except OSError as e:
        error.append(f"{printable(e.filename2 or e.filename or folder)}: {e.strerror or e}")


# --- finding -------------------------------------------------------------------------------------------------------------


def find(
    folder: str, workload: Workload, image: Reference, containers: SequenceType[str], skipped: list[SkippedFile]
) -> list[ManifestFile]:
    """The files with the workload in them and the containers to be updated; refused when there is none."""
    found = []
    documents_found = 0
    names: set[str] = set()
    for name, path in walk(os.path.realpath(folder), skipped):
        file = read_file(name, path, workload, skipped)
        if file is None:
            continue
        documents_found += len(file.found)
        for _, _, _, uses in file.found:
            names |= {use.container for use in uses}
            uses[:] = [use for use in uses if _chosen(use, containers, image)]
        if any(uses for _, _, _, uses in file.found):
            found.append(file)
    if not documents_found:
        unread = f" ({len(skipped)} files could not be looked at, first {skipped[0].file})" if skipped else ""
        raise Refused(f"there is no {workload} in the manifests below {printable(folder)}{unread}")
    if missing := sorted(set(containers) - names):
        has = ", ".join(sorted(map(printable, names))) or "none"
        raise Refused(f"{workload} has no container {', '.join(map(printable, missing))}; it has: {has}")
    if not found:
        raise Refused(f"no container of {workload} uses {image.registry}/{image.path}: name the containers to be updated")
    return found


def _chosen(use: Use, containers: SequenceType[str], image: Reference) -> bool:
    if containers:
        return use.container in containers
    return repository_of(use.scalar.value) == repository_of(str(image))


def repository_of(image: str) -> str:
    """An image's name without tag and digest, the registry in lower case."""
    name = image.strip().partition("@")[0]
    head, slash, last = name.rpartition("/")
    host, _, rest = f"{head}{slash}{last.partition(':')[0]}".partition("/")
    return f"{host.lower()}/{rest}"


# --- editing -------------------------------------------------------------------------------------------------------------


def edit_of(file: ManifestFile, start: int, use: Use, image: Reference) -> ImageEdit:
    """What setting the image of a container changes; `start` is where its document begins."""
    line = file.text.count("\n", 0, start + use.written.start) + 1
    return ImageEdit(file=file.name, line=line, container=use.container, init=use.init, before=use.scalar.value, after=str(image))


def _plan(file: ManifestFile, image: Reference) -> tuple[str, list[ImageEdit]]:
    """The text of the file with the new image, and what was edited; refused when that would change anything else."""
    edits: list[ImageEdit] = []
    changes: list[tuple[int, int, str]] = []
    for start, text, roots, uses in file.found:
        edits += [edit_of(file, start, use, image) for use in uses]
        nodes: dict[Node, str] = {}
        for scalar in dict.fromkeys(use.scalar for use in uses):
            if scalar.value == str(image):
                continue
            if "{{" in scalar.value:
                raise _refusal(file, start, scalar, "the image is an expression of a template: change what it is made of")
            mine = [use for use in uses if use.scalar is scalar]
            for node in _places(file, start, roots, scalar, mine):
                nodes[node] = str(image)
        if not nodes:
            continue
        try:
            made = [replacement(text, node, value) for node, value in nodes.items()]
            edited = _applied(text, made)
            same = shape(roots, nodes) == shape(read_tree(edited))
        except BadYaml as e:
            raise _refusal(file, start, next(iter(nodes)), f"the image cannot be replaced: {e}") from e
        if not same:
            raise _refusal(file, start, next(iter(nodes)), "replacing the image would change more than it: write it in one line")
        changes += [(start + begin, start + end, value) for begin, end, value in made]
    return _applied(file.text, changes), edits


def _applied(text: str, changes: SequenceType[tuple[int, int, str]]) -> str:
    for begin, end, value in sorted(changes, reverse=True):
        text = text[:begin] + value + text[end:]
    return text


def _places(file: ManifestFile, start: int, roots: list[Node], scalar: Scalar, uses: list[Use]) -> list[Node]:
    """Which nodes are to be replaced so that these uses of a scalar change, and nothing else that leads to it."""
    reaching = _reaching(roots, scalar)
    covered = {alias for use in uses for alias in use.through}
    if reaching <= covered and any(not use.through for use in uses):
        return [scalar]
    places: list[Node] = []
    for use in uses:
        written = use.written
        if not isinstance(written, Alias) or use.through != (written,) or _reaching(roots, written):
            what = f"the image of {printable(use.container)} is shared through an anchor: write one of its own"
            raise _refusal(file, start, written, what)
        places.append(written)
    return places


def _reaching(roots: list[Node], node: Node) -> set[Alias]:
    """The aliases through which a node can be reached, from whatever place."""
    parents: dict[Node, Node] = {}
    aliases: list[Alias] = []
    stack = list(roots)
    while stack:
        each = stack.pop()
        if isinstance(each, Alias):
            aliases.append(each)
        pairs = each.pairs if isinstance(each, Mapping) else []
        for child in (*(each.items if isinstance(each, Sequence) else ()), *(n for pair in pairs for n in pair)):
            parents[child] = each
            stack.append(child)
    found: set[Alias] = set()
    wanted = [node]
    above: set[Node] = set()
    while wanted:
        at: Node | None = wanted.pop()
        while at is not None and at not in above:
            above.add(at)
            at = parents.get(at)
        for alias in aliases:
            if alias not in found and alias.target in above:
                found.add(alias)
                wanted.append(alias)
    return found


def _refusal(file: ManifestFile, start: int, node: Node, what: str) -> Refused:
    line = file.text.count("\n", 0, start + node.start) + 1
    return Refused(f"{file.name}, line {line}: {what}")


# --- writing -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """Hold the folder against other updates: each reads what the one before wrote."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _check_writable(file: ManifestFile) -> None:
    # A rename needs no right to the file itself: who made it read-only is asked all the same, and root too.
    if not file.state.st_mode & 0o222 or not os.access(file.path, os.W_OK):
        raise Refused(f"{file.name} is read-only: make it writable (chmod u+w), or use --patch-only")


def _replace_all(wanted: SequenceType[tuple[ManifestFile, str, list[ImageEdit]]], done: list[ImageEdit]) -> None:
    temporary: list[str] = []
    try:
        for file, text, _ in wanted:
            data = (("\ufeff" if file.bom else "") + text).encode()
            temporary.append(prepare(file.path, data, file.state))
        for (file, _, edits), path in zip(wanted, temporary, strict=True):
            now = os.lstat(file.path)
            seen = file.state
            if (now.st_ino, now.st_mtime_ns, now.st_size) != (seen.st_ino, seen.st_mtime_ns, seen.st_size):
                raise Refused(f"{file.name} was changed by another program meanwhile: run again")
            put(path, file.path)
            done += edits
    finally:
        for path in temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def prepare(path: str, data: bytes, like: os.stat_result | None) -> str:
    """A synced file beside `path` with this content, and with mode and owner of `like`; its path."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.{secrets.token_hex(6)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if like else 0o666)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            if like is not None:
                made = os.fstat(f.fileno())
                if (made.st_uid, made.st_gid) != (like.st_uid, like.st_gid):
                    os.fchown(f.fileno(), like.st_uid, like.st_gid)
                os.fchmod(f.fileno(), stat.S_IMODE(like.st_mode))
            os.fsync(f.fileno())
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def put(temporary: str, path: str) -> None:
    os.rename(temporary, path)
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
