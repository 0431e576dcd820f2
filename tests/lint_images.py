"""Images written for the rules: what each rule's form on images must find, and near misses that it must not.

An image is a list of steps as a Dockerfile has them; those that make a layer come with its files. Each is built in both forms of
history, that of the classic builder and BuildKit's, and its config says what its steps say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from imagetar import TAG, Image, Layer, TarBuilder, sha256

File = bytes | str | tuple[bytes, int]  # content; a link's target, with -> before it; content and mode
Files = Mapping[str, File]
Step = str | tuple[str, Files]
Form = Literal["classic", "buildkit"]

X = (b"\x7fELF", 0o755)
RELEASE = b'ID=debian\nVERSION_ID="13"\n'
ROOT: Files = {
    "bin": "->usr/bin",
    "usr/bin/sh": X,
    "usr/bin/bash": X,
    "usr/bin/env": X,
    "usr/bin/curl": X,
    "etc/os-release": RELEASE,
}
BASE: tuple[Step, ...] = (("ADD rootfs.tar.gz /", ROOT), 'CMD ["bash"]')
APP: tuple[Step, ...] = (*BASE, ("COPY run /app/run", {"app/run": X}))
MB = bytes(1_000_000)
KEY = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"


def layer(files: Files) -> Layer:
    """A layer of these files; names that end in / are folders, a target after = is a hard link's."""
    tar = TarBuilder()
    for name, content in files.items():
        if isinstance(content, tuple):
            tar.member(name, content[0], mode=content[1])
        elif isinstance(content, bytes):
            tar.directory(name) if name.endswith("/") else tar.member(name, content)
        elif content.startswith("->"):
            tar.symlink(name, content[2:])
        else:
            tar.hardlink(name, content[1:])
    return Layer(tar.end().getvalue())


def created_by(step: str, form: Form) -> str:
    """The history's text of a step."""
    keyword, _, rest = step.partition(" ")
    if keyword == "RUN":
        arguments, rest = (
            (f"{match[0]}", rest[match.end() :]) if (match := re.match(r"\|\d .*? (?=/bin/sh)", rest)) else ("", rest)
        )
        rest = rest.removeprefix("/bin/sh -c ")
        return f"{arguments}/bin/sh -c {rest}" if form == "classic" else f"RUN {arguments}/bin/sh -c {rest} # buildkit"
    if keyword in ("COPY", "ADD"):
        if form == "buildkit":
            return f"{step} # buildkit"
        sources, _, target = rest.rpartition(" ")
        kind = "dir" if sources.endswith((".", "/")) else "multi" if " " in sources else "file"
        return f"/bin/sh -c #(nop) {keyword} {kind}:{sha256(sources.encode())} in {target} "
    return f"/bin/sh -c #(nop)  {step}" if form == "classic" else step


def image(steps: Sequence[Step], form: Form = "buildkit", tags: tuple[str, ...] = (TAG,), **config: Any) -> Image:
    """An image of these steps. `config` are fields of its config that are not as the steps say."""
    layers, history = [], []
    run: dict[str, Any] = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]}
    for step in steps:
        text, files = (step, None) if isinstance(step, str) else step
        keyword, _, rest = text.partition(" ")
        makes = keyword in ("RUN", "COPY", "ADD") or files is not None
        history.append({"created_by": created_by(text, form), **({} if makes else {"empty_layer": True})})
        if makes:
            layers.append(layer(files or {f"tmp/{len(layers)}/": b""}))
        _set(run, keyword, rest)
    run |= config
    return Image(layers=tuple(layers), tags=tags, run=run, overrides={"history": history})


def _set(run: dict[str, Any], keyword: str, rest: str) -> None:
    if keyword in ("CMD", "ENTRYPOINT"):
        words = json.loads(rest) if rest.startswith("[") else ["/bin/sh", "-c", rest]
        run["Cmd" if keyword == "CMD" else "Entrypoint"] = words
        if keyword == "ENTRYPOINT":
            run.pop("Cmd", None)
    elif keyword == "ENV":
        run["Env"] = [*run["Env"], *rest.split(" ")]
    elif keyword == "EXPOSE":
        run["ExposedPorts"] = {f"{port}/tcp": {} for port in rest.split()}
    elif keyword == "VOLUME":
        run["Volumes"] = {**run.get("Volumes", {}), rest.strip("[]"): {}}
    elif keyword == "LABEL":
        run["Labels"] = {**run.get("Labels", {}), **dict([rest.split("=", 1)])}
    elif keyword == "HEALTHCHECK":
        kind, _, command = rest.partition(" ")
        words = json.loads(command) if command.startswith("[") else []
        run["Healthcheck"] = {"Test": ["NONE"] if kind == "NONE" else ["CMD", *words] if words else ["CMD-SHELL", command]}
    elif keyword in ("USER", "WORKDIR"):
        run["User" if keyword == "USER" else "WorkingDir"] = rest


@dataclass(frozen=True)
class Case:
    """An image, and the form of its history if only one has what is meant. `more` go to `image`.

    `base`: so many of its first steps are those of another image of the batch, and its base is known.
    """

    steps: Sequence[Step]
    form: Form | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    base: int = 0


def app(*steps: Step, form: Form | None = None, **more: Any) -> Case:
    """Steps on a base with a program /app/run."""
    return Case((*APP, *steps), form, more)


def script(text: str, *steps: Step, mode: int = 0o755) -> Case:
    """An image that starts this script."""
    return app(("COPY e.sh /e.sh", {"e.sh": (text.encode(), mode)}), 'ENTRYPOINT ["/e.sh"]', *steps)


def on(base: Sequence[Step], *steps: Step, form: Form | None = None, **more: Any) -> Case:
    """Steps on a base that is another image of the batch."""
    return Case((*base, *steps), form, more, len(base))


def release(text: str, path: str = "etc/os-release") -> Case:
    """An image whose os-release has these words, one a line."""
    return app(("RUN x", {path: "\n".join(text.split()).encode() + b"\n"}))


LISTS = "var/lib/apt/lists/deb_InRelease"
# What every image of these has: nothing of its own that the rule in question looks at.
END: Step = "RUN y"
