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
    """An image, and the form of its history if only one has what is meant. `more` go to `image`."""

    steps: Sequence[Step]
    form: Form | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def app(*steps: Step, form: Form | None = None, **more: Any) -> Case:
    """Steps on a base with a program /app/run."""
    return Case((*APP, *steps), form, more)


def script(text: str, *steps: Step, mode: int = 0o755) -> Case:
    """An image that starts this script."""
    return app(("COPY e.sh /e.sh", {"e.sh": (text.encode(), mode)}), 'ENTRYPOINT ["/e.sh"]', *steps)


LISTS = "var/lib/apt/lists/deb_InRelease"
FOUND: dict[str, list[Case]] = {
    "not-evaluable": [
        app(overrides_history=[]), app(overrides_history=[{"created_by": "RUN a"}]),
        app(overrides_history=[{"created_by": "a"}, {"created_by": "b"}, {"created_by": "c", "empty_layer": True}, {"created_by": "d"}]),
    ],
    "background-process": [
        app("CMD mysqld & sshd & npm start"), app('ENTRYPOINT ["/bin/sh", "-c", "cron & exec nginx"]'), script("#!/bin/sh\nsshd -D &\nexec nginx\n"),
        app('CMD ["bash", "-c", "a & b"]'),
    ],
    "process-supervisor": [
        app(("RUN x", {"usr/bin/supervisord": X}), 'CMD ["supervisord", "-n"]'), app('ENTRYPOINT ["/usr/bin/supervisord"]'), app(("RUN x", {"usr/bin/supervisord": X})),
        app(("COPY --from=s6 / /", {"usr/bin/s6-svscan": X})),
    ],
    "several-services": [app("RUN apt-get install -y openssh-server nginx"), app("RUN apk add redis", "RUN apk add nginx")],
    "package-upgrade": [app("RUN apt-get update && apt-get upgrade -y"), app("RUN |1 A=b /bin/sh -c yum -y update"), app("RUN apk upgrade")],
    "update-alone": [app("RUN apt-get update"), app("RUN apk update")],
    "mixed-frequency": [app("COPY . /app", "RUN apt-get install -y git && npm install"), app("COPY src /src", "RUN apk add git && pip install -r r.txt")],
    "consecutive-runs": [app("RUN apt-get update", "RUN apt-get install -y curl"), app("RUN yum install -y a", "RUN yum install -y b")],
    "wasted-files": [
        app(("COPY big /big", {"big": MB}), ("RUN rm /big", {".wh.big": b""})), app(("COPY big /big", {"big": bytes(20_000)}), ("RUN x", {"big": b"1"})),
        app(("COPY d /d", {"d/a": bytes(9000), "d/b": bytes(9000)}), ("RUN rm -r /d", {".wh.d": b""})),
        Case((("ADD r.tar /", {**ROOT, "usr/lib/x": bytes(50_000)}), 'CMD ["sh"]', ("RUN rm /usr/lib/x", {"usr/lib/.wh.x": b""}))),
    ],
    "floating-tag": [app(tags=()), app(tags=("hello:latest",)), app(tags=("localhost:5000/team/hello",)), app(tags=(TAG, "team/x:latest"))],
    "package-leftovers": [
        app(("RUN apt-get update", {LISTS: MB})), app(("RUN apt-get update", {LISTS: b"x"}), ("RUN rm x", {"var/lib/apt/lists/.wh.deb_InRelease": b""})),
        app(("RUN x", {"var/cache/apt/archives/a.deb": b"x"})), app(("RUN x", {"var/cache/apk/APKINDEX.tar.gz": b"x"})), app(("RUN x", {"var/cache/dnf/x/y": b"x"})),
        app(("RUN npm i", {"root/.npm/_cacache/x": b"x"})), Case((("ADD r.tar /", {**ROOT, LISTS: b"x"}), 'CMD ["sh"]', "RUN y")),
    ],
    "pip-cache": [app(("RUN pip install x", {"root/.cache/pip/http/1": b"x"})), app(("RUN pip install x", {"home/u/.cache/pip/http/1": MB}))],
    "general-base": [app("RUN apt-get install -y nodejs npm"), app("RUN apt-get install -y python3")],
    "end-of-life-base": [
        app(("RUN x", {"etc/os-release": b"ID=ubuntu\nVERSION_ID='16.04'\n"})), app(("RUN x", {"etc/os-release": b"ID=alpine\nVERSION_ID=3.4.6\n"})),
        app(("RUN x", {"etc/os-release": "->../usr/lib/os-release", "usr/lib/os-release": b'ID="centos"\nVERSION_ID="7"\n'})),
    ],
    "run-cd": [app("RUN cd /app && make"), app("RUN set -e; cd /app; make")],
    "shell-form": [app("CMD npm start"), app("ENTRYPOINT /app/run"), app('CMD ["/bin/sh", "-c", "npm start"]')],
    "no-command": [Case((*APP,), None, {"Cmd": None}), Case((*APP,), None, {"Cmd": [], "Entrypoint": []})],
    "missing-workdir": [app('CMD ["/app/run"]'), app("WORKDIR /")],
    "missing-program": [
        app('ENTRYPOINT ["/entrypoint.sh"]'), app('CMD ["node", "x"]'), app(("COPY a /a", {"a": (b"x", 0o644)}), 'ENTRYPOINT ["/a"]'), app('ENTRYPOINT ["/app"]'),
        app("HEALTHCHECK CMD wget -q http://localhost || exit 1"), app('HEALTHCHECK CMD ["/health"]'), app("CMD exec /nothing x"), script("#!/bin/zsh\nx\n"),
        script("#!/bin/sh\r\nexec x\r\n"), script("#!/usr/bin/env python3\nx\n"), app(("RUN ln", {"e": "->/gone"}), 'ENTRYPOINT ["/e"]'),
        app(("RUN rm", {"app/.wh.run": b""}), 'ENTRYPOINT ["/app/run"]'), Case((("COPY a /a", {"a": X}), "CMD /a")),
    ],
    "entrypoint-hides-command": [app("ENTRYPOINT /app/run", 'CMD ["x"]')],
    "entrypoint-exec": [
        script("#!/bin/sh\nnpm start\n"), app(("COPY e.sh /e.sh", {"e.sh": b"#!/bin/sh\nnpm start\n"}), 'ENTRYPOINT ["sh", "/e.sh"]'),
        app(("COPY e.sh /usr/bin/docker-entrypoint.sh", {"usr/bin/docker-entrypoint.sh": (b"#!/bin/sh\nset -e\nnode x\n", 0o755), "e": "->usr/bin/docker-entrypoint.sh"}), 'ENTRYPOINT ["/e"]'),
    ],
    "add-local": [
        app("ADD . /app"), app(("ADD a.txt /a.txt", {"a.txt": b"x"})), app("ADD a b /app/"),
    ],
    "add-url": [app("ADD https://example.com/x /x", form="buildkit")],
    "copy-before-install": [app("COPY . /app", "RUN npm install"), app("COPY . .", "RUN pip install -r requirements.txt")],
    "secret-in-build": [
        app("ENV DB_PASSWORD=hunter22"), app("ENV DB_PASSWORD=hunter22", "ENV DB_PASSWORD="), app("RUN |1 NPM_TOKEN=hunter22 /bin/sh -c npm i"), app("ARG TOKEN=hunter22", "RUN x"),
        app("ENV X=AKIAABCDEFGHIJKLMNOP"), app("RUN |2 A=b c API_KEY=hunter22 /bin/sh -c x"), Case((*BASE[:1], "ENV SECRET_KEY=hunter22", BASE[1], "RUN y")),
    ],
    "secret-file": [
        app(("COPY k /root/.ssh/id_rsa", {"root/.ssh/id_rsa": KEY})), app(("COPY k /k", {"k": KEY}), ("RUN rm /k", {".wh.k": b""})), app(("COPY k /k", {"srv/deep/name": KEY})),
        app(("COPY .env /app/.env", {"app/.env": b"PORT=80\nexport DB_PASSWORD='hunter22'\n"})), app(("RUN x", {"root/.aws/credentials": b"[default]\naws_secret_access_key = hunter22hunter22hunter22\n"})),
        app(("RUN x", {"root/.docker/config.json": b'{"auths": {"x": {"auth": "aHVudGVyMjI="}}}'})), app(("RUN x", {"root/.npmrc": b"//r/:_authToken=hunter22hunter22\n"})),
        app(("RUN x", {"root/.git-credentials": b"https://me:hunter22@example.com\n"})), app(("RUN x", {"app/conf.yaml": b"key: AKIAABCDEFGHIJKLMNOP\n"})),
        app(("COPY k /k", {"a.pem": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" + KEY})), Case((("ADD r /", {**ROOT, "etc/ssh/ssh_host_rsa_key": KEY}), 'CMD ["sh"]', "RUN y")),
        app(("RUN x", {"root/.obsutilconfig": b"ak=x\nsk=hunter22hunter22\n"})), app(("RUN x", {"root/.netrc": b"machine x login me password hunter22\n"})),
        app(("RUN x", {"root/.kube/config": b"users:\n- user:\n    token: hunter22\n"})),
    ],
    "ssh-port": [app("EXPOSE 22"), app("EXPOSE 80 22")],
    "missing-expose": [app('CMD ["nginx"]'), app('CMD ["npm", "start"]')],
    "database-without-volume": [app("RUN apt-get install -y mysql-server"), app(("RUN x", {"usr/bin/redis-server": X}), 'CMD ["redis-server"]'), app('ENTRYPOINT ["/usr/sbin/mysqld"]')],
    "write-below-volume": [app("VOLUME /data", ("RUN x", {"data/a": b"x"})), app("VOLUME [/data]", ("COPY a /data/b/a", {"data/b/a": b"x"}))],
    "missing-label": [app(), app(Labels={"io.buildah.version": "1.28"}), Case((*BASE[:1], "LABEL a=b", BASE[1], "RUN y"))],
    "maintainer": [app("MAINTAINER me"), app("MAINTAINER me <me@example.com>")],
    "missing-healthcheck": [app(), app("HEALTHCHECK NONE")],
    "missing-dockerignore": [
        app("WORKDIR /app", ("COPY . /app", {"app/.git/HEAD": b"x", "app/.git/config": b"x"})), app("WORKDIR /app", ("COPY . .", {"app/Dockerfile": b"FROM x\n"})),
        app("WORKDIR /app", ("COPY . /app/", {"app/.env": b"PORT=80 and more\n"})), app(("COPY . /srv", {"srv/docker-compose.yml": b"x"})),
    ],
    "root-user": [app("USER root"), app("USER 0"), app("USER 0:0"), app("USER root:staff")],
    "missing-user": [app(), app(User="")],
}  # fmt: skip
MISSED: dict[str, list[Case]] = {
    "not-evaluable": [app(), app("CMD x")],
    "background-process": [
        app("CMD run 2>&1"), app("CMD a && b"), app("CMD a & wait"), script("#!/bin/sh\na &\nwait\n"), Case((*BASE[:1], "CMD a & b", "RUN y")), app('CMD ["a", "&"]'),
    ],
    "process-supervisor": [app('CMD ["tini", "--", "x"]'), app('CMD ["dumb-init", "x"]'), app(("RUN x", {"etc/supervisord": X}))],
    "several-services": [app("RUN apt-get install -y mysql-client curl"), app("RUN apt-get install -y nginx", "RUN rm x")],
    "package-upgrade": [
        app("RUN apt-get install --only-upgrade openssl"), app("RUN apt-get update && apt-get install -y upgrade-tool"), Case((*BASE[:1], "RUN apt-get upgrade -y", BASE[1], "RUN y")),
        app("RUN echo apt-get upgrade"), app("RUN apt-get upgrade ("),
    ],
    "update-alone": [app("RUN apt-get update && apt-get install -y x"), app("RUN apt-get update && ./install.sh")],
    "mixed-frequency": [Case((*BASE, "RUN apt-get install -y git && npm install")), app("COPY a /a", "RUN apk add x")],
    "consecutive-runs": [app("RUN apt-get install -y a", "COPY x /x", "RUN apt-get install -y b"), app("RUN make", "RUN make install")],
    "wasted-files": [
        app(("RUN x", {"etc/passwd": b"x"}), ("RUN y", {"etc/passwd": b"yy"})), app(("RUN x", {"a": MB, ".wh.b": b""})), app(("RUN x", {LISTS: MB}), ("RUN y", {"var/lib/apt/.wh.lists": b""})),
        app(("RUN x", {"a": MB}), ("RUN y", {"b": "=a"}), ("RUN z", {".wh.a": b""})),
        Case((("ADD r /", {**ROOT, "a": MB}), ("RUN rm", {".wh.a": b""}), 'CMD ["sh"]', "RUN y")),
    ],
    "floating-tag": [app(), app(tags=("localhost:5000/team/hello:v1",)), app(tags=("hello:latest-1",))],
    "package-leftovers": [
        app(("RUN x", {"var/lib/apt/lists/lock": b"x", "var/lib/apt/lists/partial/x": b"x", "var/lib/apt/lists/y": b""})), app(("RUN x", {"var/cache/apt/archives/lock": b"x"})),
        app(("RUN x", {"srv/var/lib/apt/lists/x": b"x"})), app(("RUN x", {"var/lib/apt/lists/": b""})), app(("RUN x", {"root/.npmrc": b"a=b"})),
    ],
    "pip-cache": [app(("RUN x", {"root/.cache/other/x": b"x"})), app(("RUN x", {"root/.cache/pip/x": b""}))],
    "general-base": [app("RUN apt-get install -y nodejs python3"), app("RUN apt-get install -y curl"), app(("RUN x", {"etc/os-release": b"ID=alpine\n"}), "RUN apk add nodejs")],
    "end-of-life-base": [
        app(), app(("RUN x", {"etc/os-release": b"ID=ubuntu\nVERSION_ID=24.04\n"})), app(("RUN x", {"etc/os-release": b"ID=own\nVERSION_ID=1\n"})), app(("RUN x", {"etc/os-release": b"NAME=x\n"})),
        app(("RUN x", {"srv/etc/os-release": b"ID=ubuntu\nVERSION_ID=16.04\n"})),
    ],
    "run-cd": [app("RUN make && cd /app"), app("RUN cd /app"), Case((*BASE[:1], "RUN cd /a && b", BASE[1], "RUN y"))],
    "shell-form": [
        app('CMD ["npm", "start"]'), app("CMD exec npm start"), app('CMD ["/bin/sh", "-c", "exec npm start"]'), Case((*BASE[:1], "CMD npm start", "RUN y")),
        Case((*APP, 'SHELL ["/bin/bash", "-c"]'), None, {"Shell": ["/bin/bash", "-c"], "Cmd": ["/bin/bash", "-c", "npm start"]}),
    ],
    "no-command": [app('CMD ["x"]'), app('ENTRYPOINT ["x"]'), app(), Case(BASE[:1])],
    "missing-workdir": [app("WORKDIR /app"), Case(BASE)],
    "missing-program": [
        app('ENTRYPOINT ["/app/run"]'), app('CMD ["sh"]'), app('CMD ["/bin/sh"]'), app("CMD npm start || $RUN"), app("WORKDIR /app", 'CMD ["./run"]'), app("HEALTHCHECK CMD curl -f http://x || exit 1"),
        app("HEALTHCHECK CMD test -f /x"), app("CMD cd /x && ./y"), app("HEALTHCHECK NONE"), script("#!/bin/sh\nx\n"), script("#!/usr/bin/env bash\nx\n"),
        app(("RUN ln", {"e": "->app/run"}), 'ENTRYPOINT ["/e"]'), app(("RUN ln", {"e": "=app/run"}), 'ENTRYPOINT ["/e"]'), app("VOLUME /plug", 'CMD ["/plug/x"]'),
        app(("RUN ln", {"e": "->/proc/self/exe"}), 'ENTRYPOINT ["/e"]'), app(("RUN ln", {"e": "->f", "f": "->e"}), 'ENTRYPOINT ["/e"]'), app("CMD ${APP:-x} y"),
    ],
    "entrypoint-hides-command": [app('ENTRYPOINT ["/app/run"]', 'CMD ["x"]'), app("ENTRYPOINT /app/run $@", 'CMD ["x"]'), app("ENTRYPOINT /app/run")],
    "entrypoint-exec": [
        script('#!/bin/sh\nexec npm "$@"\n'), script("#!/usr/bin/python3\nrun()\n"), script("#!/bin/sh\nif true; then a; else b; fi\n"), script("#!/bin/sh\n. /other.sh\n"),
        script("#!/bin/sh\ngosu app npm start\n"), app('ENTRYPOINT ["/app/run"]'), Case((("ADD r /", {**ROOT, "e.sh": (b"#!/bin/sh\nx\n", 0o755)}), 'ENTRYPOINT ["/e.sh"]', "RUN y")),
    ],
    "add-local": [
        app("COPY . /app"), app(("ADD x.tar.gz /x", {"x/a": b"1", "x/b": b"2"})), app(("ADD x.tar /x", {"x/a": b"1"})), Case((("ADD . /", ROOT), 'CMD ["sh"]', "RUN y")),
    ],
    "add-url": [app("ADD --checksum=sha256:0 https://example.com/x /x", form="buildkit"), app("COPY x /x")],
    "copy-before-install": [
        app("COPY package.json /app/", "RUN npm install", "COPY . /app"), app("COPY / /app", "RUN npm install", form="buildkit"), app("COPY src /app", "RUN npm install", form="buildkit"),
    ],
    "secret-in-build": [
        app("ENV DB_PASSWORD_FILE=/run/secrets/db"), app("ENV GPG_KEY=0123456789ABCDEF"), app("ENV PUBLIC_KEY=abcdefgh"), app("ENV COMPASS=hunter22"), app("ENV TOKEN_VERSION=3x"),
        app("RUN |1 VERSION=1 /bin/sh -c x"), app("ENV PASSWORD="), app("ARG TOKEN"), app("ENV PASSWORD=$OTHER"), app("ENV ALLOW_EMPTY_PASSWORD=yes"),
    ],
    "secret-file": [
        app(("COPY k /k", {"k.pub": b"ssh-rsa AAAAB3NzaC1yc2EAAA x\n"})), app(("COPY k /k", {"a.pem": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"})),
        app(("COPY k /k", {"app/.env": b"PORT=80\nPASSWORD=\nTOKEN=${TOKEN}\nSECRET=changeme\n"})), app(("COPY k /k", {"app/.env.example": b"PASSWORD=hunter22\n"})),
        app(("RUN x", {"usr/bin/ssl": b"\x7fELF -----BEGIN RSA PRIVATE KEY-----\nMIIB"})), app(("RUN x", {"root/.docker/config.json": b'{"auths": {"x": {}}, "credsStore": "x"}'})),
        app(("RUN x", {"root/.npmrc": b"//r/:_authToken=${NPM_TOKEN}\n"})), app(("RUN x", {"app/aws.sh": b"export X=AKIAIOSFODNN7EXAMPLE\n"})), app(("RUN x", {"root/.ssh/id_rsa": b""})),
        app(("COPY k /k", {"k": "->x", ".wh.id_rsa": b""})), app(("RUN x", {"id_rsa": KEY + bytes(70_000)})),
    ],
    "ssh-port": [app("EXPOSE 2222"), app("EXPOSE 80 443")],
    "missing-expose": [app("EXPOSE 80", 'CMD ["nginx"]'), app('CMD ["ls"]')],
    "database-without-volume": [app("VOLUME /data", 'CMD ["redis-server"]'), app("RUN apt-get install -y mysql-client"), app('CMD ["redis-cli"]')],
    "write-below-volume": [
        app(("RUN x", {"data/a": b"x"}), "VOLUME /data"), app("VOLUME /data", ("RUN x", {"database/a": b"x"})), app("VOLUME /data", ("RUN x", {"data/": b""})),
        app("VOLUME /data", ("RUN x", {"data/a": b""})),
    ],
    "missing-label": [app("LABEL a=b"), Case(BASE)],
    "maintainer": [app("LABEL maintainer=me"), app("RUN echo MAINTAINER me")],
    "missing-healthcheck": [app("HEALTHCHECK CMD curl x"), app('HEALTHCHECK CMD ["/app/run"]'), Case(BASE)],
    "missing-dockerignore": [
        app(("COPY . /app", {"app/.gitignore": b"x", "app/.gitattributes": b"x", "app/src/x": b"y"})), app(("COPY . /app", {"app/node_modules/x/.git/HEAD": b"x", "app/vendor/y/Dockerfile": b"x"})),
        app(("COPY . /app", {"app/docs/Dockerfile": b"x"})), app(("RUN git clone x /src", {"src/.git/HEAD": b"x"})), app(("COPY . /app", {"app/.git": b""})),
        Case((("ADD r /", {**ROOT, "app/.git/HEAD": b"x"}), 'CMD ["sh"]', "RUN y")), app(("RUN x", {"usr/share/doc/x/Dockerfile": b"x"})),
    ],
    "root-user": [app("USER 10001"), app("USER app:root"), app("USER rooty"), app("RUN apt-get install -y gosu", "USER root"), script('#!/bin/sh\nexec gosu app "$@"\n', "USER root")],
    "missing-user": [app("USER app"), Case(BASE), script('#!/bin/sh\nexec su-exec app "$@"\n'), app("RUN apk add su-exec")],
}  # fmt: skip
