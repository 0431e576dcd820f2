"""Patches for kubectl in place of changed manifests: `kubectl patch deployment NAME -n NAMESPACE --patch-file FILE`.

A patch is a strategic merge patch: of what it names, only that changes in the cluster. There is one file for each workload.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping as MappingType
from collections.abc import Sequence as SequenceType

from .errors import printable
from .manifests import PATCH_SUFFIX, Refused, SkippedFile, Workload, read_file
from .policy import Reference
from .workloads import ImageEdit, UpdateResult, alone, edit_of, find, prepare, put, told


def write_patch(
    folder: str, workload: Workload, image: Reference, containers: SequenceType[str] = (), *, to: str, dry_run: bool = False
) -> UpdateResult:
    """Leave the manifests as they are, and write a strategic merge patch of the same containers into the folder `to`.

    The file is named after the workload, and keeps what it sets for other containers; one that holds the same already is left
    alone. `changed` and `unchanged` tell what the manifests have.
    """
    skipped: list[SkippedFile] = []
    edits: list[ImageEdit] = []
    path = os.path.join(to, f"{workload.kind.lower()}.{workload.namespace}.{workload.name}{PATCH_SUFFIX}")
    with told(folder) as error:
        for file in find(folder, workload, image, containers, skipped):
            edits += [edit_of(file, document.start, use, image) for document in file.found for use in document.uses]
        if not dry_run:
            os.makedirs(to, exist_ok=True)
            with alone(to):
                images = _patched(path, workload) | {(edit.init, edit.container): edit.after for edit in edits}
                data = patch_text(workload, images).encode()
                if not _holds(path, data):
                    put(prepare(path, data, None), path)
    return UpdateResult(
        changed=tuple(edit for edit in edits if edit.before != edit.after),
        unchanged=tuple(edit for edit in edits if edit.before == edit.after),
        skipped=tuple(skipped),
        error="".join(error),
        patch="" if error else path,
    )


def patch_text(workload: Workload, images: MappingType[tuple[bool, str], str]) -> str:
    """The patch that sets these images, (init container, name) → image: YAML whose lists Kubernetes merges by the names."""
    lines = ["apiVersion: apps/v1", f"kind: {workload.kind}", "metadata:", f"  name: {_quoted(workload.name)}"]
    lines += [f"  namespace: {_quoted(workload.namespace)}", "spec:", "  template:", "    spec:"]
    for key, init in (("containers", False), ("initContainers", True)):
        found = sorted((name, image) for (is_init, name), image in images.items() if is_init == init)
        if found:
            lines.append(f"      {key}:")
        for name, image in found:
            lines += [f"        - name: {_quoted(name)}", f"          image: {_quoted(image)}"]
    return "\n".join(lines) + "\n"


def _patched(path: str, workload: Workload) -> dict[tuple[bool, str], str]:
    """What the patch file sets already; other triggers set other containers of the workload."""
    if not os.path.lexists(path):
        return {}
    skipped: list[SkippedFile] = []
    file = read_file(os.path.basename(path), path, workload, skipped)
    if file is None:
        reason = skipped[0].reason if skipped else "it is no patch of this workload"
        raise Refused(f"the patch {printable(path)} cannot be added to: {reason}; remove it, or name another folder")
    return {(use.init, use.container): use.scalar.value for document in file.found for use in document.uses}


def _quoted(text: str) -> str:
    # JSON's strings are YAML's; without quotes a name such as "1" or "on" would be no text.
    return json.dumps(text)


def _holds(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as f:
            return f.read(len(data) + 1) == data
    except FileNotFoundError:
        return False
