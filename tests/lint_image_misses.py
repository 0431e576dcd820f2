"""Near misses of each rule's form on images: what looks like the fault and is none; at least six cases a rule (see lint_images.py).

Most are the traps that the rules were written around: what a base brought, links, numeric users, words that only hold the word, files
of no size, whiteouts, and steps that make no layer.
"""

from __future__ import annotations

from lint_images import APP, BASE, END, KEY, LISTS, MB, ROOT, Case, X, app, on, release, script

MISSED: dict[str, list[Case]] = {
    "not-evaluable": [
        app(), app("CMD x"), app("ENV A=b", "LABEL a=b", "USER 1", "WORKDIR /x", "RUN a"), Case(BASE[:1]),
        app(overrides_history=[{"created_by": "jib-gradle-plugin:3.4"}, {"created_by": "jib-gradle-plugin:3.4", "comment": "classes"}]),
        app(overrides_history=[{"created_by": "RUN a", "empty_layer": True}, {"created_by": "", "comment": "merge sha256:0 to sha256:1"}, {"created_by": "/bin/bash"}]),  # squashed; committed
        app(overrides_history=[{"created_by": "a", "empty_layer": False}, {"created_by": "b"}, {"created_by": "CMD x", "empty_layer": True}]), app(overrides_history=[{}, {"comment": "x"}]),
    ],
    "background-process": [
        app("CMD run 2>&1"), app("CMD a && b"), app("CMD a & wait"), script("#!/bin/sh\na &\nwait\n"), Case((*BASE[:1], "CMD a & b", END)), app('CMD ["a", "&"]'), app("CMD curl 'http://x/?a=1&b=2'"),
        script("#!/bin/sh\n# sshd -D &\necho 'a & b'\nexec nginx >/log 2>&1\n"), script("#!/bin/bash\na & b &\nwait -n\nexit $?\n"), app("CMD run &>/dev/null"), on((*APP, "CMD a & b"), END),
        on((*BASE, ("COPY e /e.sh", {"e.sh": (b"#!/bin/sh\na &\nexec b\n", 0o755)}), 'ENTRYPOINT ["/e.sh"]'), 'CMD ["x"]', Entrypoint=["/e.sh"]),
    ],
    "process-supervisor": [
        app('CMD ["tini", "--", "x"]'), app('CMD ["dumb-init", "x"]'), app(("RUN x", {"etc/supervisord": X})), app('CMD ["supervisorctl", "status"]'), app('CMD ["node", "supervisord"]'),
        Case((("ADD r /", {**ROOT, "usr/bin/supervisord": X}), 'CMD ["sh"]', END)), on((*BASE, ("RUN x", {"usr/bin/supervisord": X}), 'CMD ["supervisord"]'), END), app("CMD echo supervisord"),
        app(("RUN apt-get install -y systemd", {"usr/lib/systemd/systemd": X})), script('#!/bin/sh\n# supervisord starts elsewhere\nexec "$@"\n'), app('CMD ["/app/init.sh"]'), app('ENTRYPOINT ["rails"]', 'CMD ["init"]'),
    ],
    "several-services": [
        app("RUN apt-get install -y mysql-client curl"), app("RUN apt-get install -y nginx", "RUN rm x"), app("RUN apt-get install -y openssh-server ssh"), app("RUN apk add nginx postgresql-client redis-tools"),
        Case((*BASE[:1], "RUN apt-get install -y nginx cron", BASE[1], END)), on((*APP, "RUN apt-get install -y nginx cron"), END), app("RUN apt-get install -y nginx && echo apt-get install cron"), app("RUN npm install redis mongodb"),
        app("RUN apt-get install -y nginx", "RUN apt-get remove -y cron"),
    ],
    "package-upgrade": [
        app("RUN apt-get install --only-upgrade openssl"), app("RUN apt-get update && apt-get install -y upgrade-tool"), Case((*BASE[:1], "RUN apt-get upgrade -y", BASE[1], END)),
        app("RUN echo apt-get upgrade"), app("RUN apt-get upgrade ("), on((*APP, "RUN apk upgrade"), END), app("RUN yum -y update openssl && yum clean all"), app("RUN pip install --upgrade pip && npm upgrade"),
        app('LABEL note="apt-get upgrade -y"', "ENV NOTE=apt-get upgrade"), app("RUN apt-get -s upgrade || true"), app("RUN ./apt-get-upgrade.sh"),
    ],
    "update-alone": [
        app("RUN apt-get update && apt-get install -y x"), app("RUN apt-get update && ./install.sh"), app("RUN apk add --update curl"), app("RUN apk update && apk add curl"), app("RUN update-ca-certificates && git submodule update"),
        Case((*BASE[:1], "RUN apt-get update", BASE[1], END)), on((*APP, "RUN apt-get update"), END), app("RUN composer update", "RUN npm update"), app("RUN apt-get update; curl -fsSL https://x | sh"),
    ],
    "mixed-frequency": [
        Case((*BASE, "RUN apt-get install -y git && npm install")), app("COPY a /a", "RUN apk add x"), app("COPY . /app", "RUN apt-get install -y git", "RUN npm install"), app("COPY . /app", "RUN apk add nodejs && npm install -g pnpm"),
        app("COPY . /app", "RUN apk add py3-pip && pip install flask"), Case((*BASE, "COPY /out /app", "RUN apk add git && npm ci"), "buildkit"), on((*BASE, "COPY . /a", "RUN apk add git && npm ci"), END),
        Case((*BASE, "RUN apk add npm && npm ci", "COPY . /app")),
    ],
    "consecutive-runs": [
        app("RUN apt-get install -y a", "COPY x /x", "RUN apt-get install -y b"), app("RUN make", "RUN make install"), app("RUN apt-get install -y npm", "RUN npm install"), app("RUN apt-get install -y a", "ENV A=b", "RUN apt-get install -y b"),
        Case((*BASE[:1], "RUN apt-get install -y a", BASE[1], "RUN apt-get install -y b")), on((*BASE[:1], "RUN apk add a", "RUN apk add b"), "RUN apk add c"), app("RUN apk add a", "RUN apt-get install b"), app("RUN echo apk add a", "RUN apk add b"),
    ],
    "wasted-files": [
        app(("RUN x", {"etc/passwd": b"x"}), ("RUN y", {"etc/passwd": b"yy"})), app(("RUN x", {"a": MB, ".wh.b": b""})), app(("RUN x", {LISTS: MB}), ("RUN y", {"var/lib/apt/.wh.lists": b""})),
        app(("RUN x", {"a": MB}), ("RUN y", {"b": "=a"}), ("RUN z", {".wh.a": b""})),
        Case((("ADD r /", {**ROOT, "a": MB}), ("RUN rm", {".wh.a": b""}), 'CMD ["sh"]', END)), on((*BASE, ("COPY a /a", {"a": MB}), ("RUN rm", {".wh.a": b""})), END),
        app(("COPY a /d/a", {"d/a": MB}), ("RUN x", {"d/": b"", "e/.wh..wh..opq": b""})), app(("COPY a /a", {"a": MB}), ("RUN mv", {".wh.b": b"", "d/.wh.a": b""})),  # an opaque folder, whiteouts: of nothing
        app(("COPY a /a", {"a": MB}), ("RUN ln", {"b": "->a"}), ("RUN rm /b", {".wh.b": b""})), app(("RUN x", {"a": MB, "b": "=a"}), ("RUN rm /b", {".wh.b": b""})),
        app(("COPY d /d", {"d/a": MB}), ("RUN chmod 700 /d", {"d/": b""})), app(("RUN x", {"root/.cache/pip/a": MB}), ("RUN y", {"root/.wh..cache": b""})),
    ],
    "floating-tag": [
        app(), app(tags=("localhost:5000/team/hello:v1",)), app(tags=("hello:latest-1",)), app(tags=("team/latest:1",)), app(tags=("team/x:1", "team/x:1.2")), app(tags=("team/x:stable",)), app(tags=("team/x:notlatest",)),
    ],
    "package-leftovers": [
        app(("RUN x", {"var/lib/apt/lists/lock": b"x", "var/lib/apt/lists/partial/x": b"x", "var/lib/apt/lists/y": b""})), app(("RUN x", {"var/cache/apt/archives/lock": b"x"})),
        app(("RUN x", {"srv/var/lib/apt/lists/x": b"x"})), app(("RUN x", {"var/lib/apt/lists/": b""})), app(("RUN x", {"root/.npmrc": b"a=b"})), on((*BASE, ("RUN x", {LISTS: MB})), END),
        app(("RUN x", {"var/lib/apt/lists/auxfiles/x": b"x", "var/lib/apt/extended_states": b"x"})), on((*BASE, ("RUN x", {LISTS: MB})), ("RUN y", {"var/lib/apt/lists/.wh.deb_InRelease": b""})),
        app(("RUN x", {"srv/a": b"x", "var/cache/apk/a": "=srv/a"})), app(("RUN x", {"var/cache/apk": "->/mnt/apk", "var/cache/dnf": "->/tmp/x"})), app(("RUN x", {"var/lib/apt/lists/.wh..wh..opq": b"", "var/cache/yum.conf": b"x"})),
    ],
    "pip-cache": [
        app(("RUN x", {"root/.cache/other/x": b"x"})), app(("RUN x", {"root/.cache/pip/x": b""})), app(("RUN x", {"usr/lib/cache/pip/x": b"x"})), app(("RUN x", {"root/.cache/pipenv/x": b"x", "root/.cache/pip-tools/y": b"x"})),
        on((*BASE, ("RUN x", {"root/.cache/pip/x": b"x"})), END), app(("RUN x", {"root/.cache/.wh.pip": b"", "root/.cache/pip/": b""})), app(("RUN x", {"root/.cache/pip": "->/mnt/pip"})),
        app(("RUN x", {"usr/lib/python3/site-packages/pip/_internal/cache.py": b"x"})),
    ],
    "general-base": [
        app("RUN apt-get install -y nodejs python3"), app("RUN apt-get install -y curl"), app(("RUN x", {"etc/os-release": b"ID=alpine\n"}), "RUN apk add nodejs"), app("RUN apt-get install -y python3-yaml libnode-dev nodejs-doc"),
        Case((*BASE[:1], "RUN apt-get install -y nodejs", BASE[1], END)), app(("RUN x", {"etc/.wh.os-release": b""}), "RUN apt-get install -y nodejs"), on((*APP, "RUN apt-get install -y nodejs"), END),
        app("RUN apt-get remove -y python3"), app("RUN echo apt-get install nodejs"), app(("RUN apt-get install -y nodejs", {"a": b"x"}), overrides_history=[]),
        Case((*BASE[:1], "RUN apt-get update && apt-get install -y ca-certificates", BASE[1], "RUN apt-get install -y nodejs")),  # not a bare distribution
    ],
    "end-of-life-base": [
        app(), release("ID=ubuntu VERSION_ID=24.04"), release("ID=own VERSION_ID=1"), release("NAME=x"), release("ID=ubuntu VERSION_ID=16.04", "srv/etc/os-release"), release("ID=debian VERSION_CODENAME=sid"),
        on((("ADD r /", {**ROOT, "etc/os-release": b"ID=ubuntu\nVERSION_ID=16.04\n"}), 'CMD ["sh"]'), END),  # told where the base is looked at
        Case((("ADD r /", {**ROOT, "etc/os-release": b"ID=debian\nVERSION_ID=9\n"}), 'CMD ["sh"]', ("RUN apt-get dist-upgrade", {"etc/os-release": b"ID=debian\nVERSION_ID=13\n"}))),
        app(("RUN x", {"etc/os-release": "->../usr/lib/os-release", "usr/lib/os-release": b"ID=alpine\nVERSION_ID=3.22.1\n"})), app(("RUN x", {"etc/os-release": "->../usr/lib/none"})),
        app(("RUN x", {"usr/lib/os-release": b"ID=ubuntu\nVERSION_ID=16.04\n"})),  # etc/os-release counts, and is not it
        release("ID=fedora VERSION_ID=43"),
    ],
    "run-cd": [
        app("RUN make && cd /app"), app("RUN cd /app"), Case((*BASE[:1], "RUN cd /a && b", BASE[1], END)), app("RUN mkdir -p /app && cd /app && make"), app("RUN echo 'cd /app' && make"), app("RUN cdebootstrap /a && b"),
        on((*APP, "RUN cd /a && b"), END), app("RUN cd && make"), app("RUN git -C /app pull && make -C /app"),
    ],
    "shell-form": [
        app('CMD ["npm", "start"]'), app("CMD exec npm start"), app('CMD ["/bin/sh", "-c", "exec npm start"]'), Case((*BASE[:1], "CMD npm start", END)),
        Case((*APP, 'SHELL ["/bin/bash", "-c"]'), None, {"Shell": ["/bin/bash", "-c"], "Cmd": ["/bin/bash", "-c", "npm start"]}), app('CMD ["sh", "-c", "cd /app && exec node x"]'), app('CMD ["sh"]'), app('ENTRYPOINT ["bash", "/e.sh"]'),
        on((*APP, "CMD npm start"), END), app('CMD ["/bin/bash", "-l"]'), app('ENTRYPOINT ["tini", "--", "sh", "-c", "exec x"]'), on((*APP, 'CMD ["sh", "-c", "x"]'), END),
    ],
    "no-command": [
        app('CMD ["x"]'), app('ENTRYPOINT ["x"]'), app(), Case(BASE[:1]), app("CMD npm start"), on((*APP, 'ENTRYPOINT ["x"]'), END, Entrypoint=["x"], Cmd=None), app('ENTRYPOINT ["x"]', Cmd=[]),
    ],
    "missing-workdir": [
        app("WORKDIR /app"), Case(BASE), app("WORKDIR /srv/"), on((*APP, "WORKDIR /app"), END), Case((*BASE[:1], "WORKDIR /app", BASE[1], END)), app("WORKDIR /a", "WORKDIR /a/b"), app("WORKDIR /.", WorkingDir="/.x"), Case(BASE[:1]),
    ],
    "missing-program": [
        app('ENTRYPOINT ["/app/run"]'), app('CMD ["sh"]'), app('CMD ["/bin/sh"]'), app("CMD npm start || $RUN"), app("WORKDIR /app", 'CMD ["./run"]'), app("HEALTHCHECK CMD curl -f http://x || exit 1"),
        app("HEALTHCHECK CMD test -f /x"), app("CMD cd /x && ./y"), app("HEALTHCHECK NONE"), script("#!/bin/sh\nx\n"), script("#!/usr/bin/env bash\nx\n"),
        app(("RUN ln", {"e": "->app/run"}), 'ENTRYPOINT ["/e"]'), app(("RUN ln", {"e": "=app/run"}), 'ENTRYPOINT ["/e"]'), app("VOLUME /plug", 'CMD ["/plug/x"]'),
        app(("RUN ln", {"e": "->/proc/self/exe"}), 'ENTRYPOINT ["/e"]'), app(("RUN ln", {"e": "->f", "f": "->e"}), 'ENTRYPOINT ["/e"]'), app("CMD ${APP:-x} y"),
        app(("RUN x", {"opt": "->app", "e": "->/opt/run"}), 'ENTRYPOINT ["/e"]'), app(("RUN x", {".wh.app": b"", "app/": b"", "app/run": X}), 'CMD ["/app/run"]'), app(Env=["PATH=/app:/bin"], Cmd=["run"]),
        app(("RUN x", {"app/.wh..wh..opq": b"", "app/run": X}), 'CMD ["/app/run"]'), app(("RUN x", {"e": (b"x", 0o111)}), 'CMD ["/e"]'),
    ],
    "entrypoint-hides-command": [
        app('ENTRYPOINT ["/app/run"]', 'CMD ["x"]'), app("ENTRYPOINT /app/run $@", 'CMD ["x"]'), app("ENTRYPOINT /app/run"), app('ENTRYPOINT exec /app/run "$0" "$@"', 'CMD ["x"]'), app("CMD x"),
        app('ENTRYPOINT ["sh", "-c", "exec /app/run $0 $*"]', 'CMD ["x"]'), on((*APP, "ENTRYPOINT /app/run", 'CMD ["x"]'), END), app("ENTRYPOINT /app/run", Cmd=[]),
        app('ENTRYPOINT ["/bin/sh", "-c", "/app/run \\"$1\\"", "--"]', 'CMD ["x"]'),
    ],
    "entrypoint-exec": [
        script('#!/bin/sh\nexec npm "$@"\n'), script("#!/usr/bin/python3\nrun()\n"), script("#!/bin/sh\nif true; then a; else b; fi\n"), script("#!/bin/sh\n. /other.sh\n"),
        script("#!/bin/sh\ngosu app npm start\n"), app('ENTRYPOINT ["/app/run"]'), Case((("ADD r /", {**ROOT, "e.sh": (b"#!/bin/sh\nx\n", 0o755)}), 'ENTRYPOINT ["/e.sh"]', END)),
        script('#!/bin/sh\ncase "$1" in\n  -*) set -- run "$@";;\nesac\nexec "$@"\n'), script('#!/bin/bash\nmain() { exec "$@"; }\nmain "$@"\n'), script('#!/bin/sh\n[ "$1" = x ] && exec y\nrun "$@"\n'), script("#!/bin/sh\nrun &\nwait $!\n"),
        script("#!/bin/sh\ntrap 'kill $p' TERM\nrun\n"), script("#!/bin/sh\nrun (\n"), on((*BASE, ("COPY e /e.sh", {"e.sh": (b"#!/bin/sh\nrun\n", 0o755)}), 'ENTRYPOINT ["/e.sh"]'), END),
        app(("COPY b /b.sh", {"b.sh": (b"#!/bin/sh\nrun\n", 0o755)}), 'ENTRYPOINT ["/app/run"]', 'CMD ["/b.sh"]'),
    ],
    "add-local": [
        app("COPY . /app"), app(("ADD x.tar.gz /x", {"x/a": b"1", "x/b": b"2"})), app(("ADD x.tar /x", {"x/a": b"1"})), Case((("ADD . /", ROOT), 'CMD ["sh"]', END)), on((*APP, "ADD . /app"), END), app(("ADD app.tgz /app/", {"app/one": b"1"})),
        app("ADD https://example.com/x /x", form="buildkit"), app("ADD https://github.com/a/b.git#v1 /src", form="buildkit"), app(("ADD a.tar.xz b.tar.bz2 /x/", {"x/a": b"1"}), form="buildkit"),
    ],
    "add-url": [
        app("ADD --checksum=sha256:0 https://example.com/x /x", form="buildkit"), app("COPY x /x"), app("ADD https://github.com/a/b.git#v1 /src", form="buildkit"), app("RUN curl -O https://example.com/x"), app(("ADD https.tar /x", {"x/a": b"x"})),
        on((*APP, "ADD https://example.com/x /x"), END), app("ADD --checksum=sha256:0 --chown=1 https://example.com/x /x", form="buildkit"), app("ENV URL=https://example.com/x"),
    ],
    "copy-before-install": [
        app("COPY package.json /app/", "RUN npm install", "COPY . /app"), app("COPY / /app", "RUN npm install", form="buildkit"), app("COPY src /app", "RUN npm install", form="buildkit"), app("RUN npm install", "COPY . /app"),
        app("COPY . /app", "RUN npm install -g serve && pip install flask"), on((*APP, "COPY . /app", "RUN npm install"), END), app("COPY package.json package-lock.json /app/", "RUN npm ci"), app("COPY . /app", "RUN echo npm install"),
        on((*APP, "COPY . /app"), "RUN npm install"),  # the source is the base's
    ],
    "secret-in-build": [
        app("ENV DB_PASSWORD_FILE=/run/secrets/db"), app("ENV GPG_KEY=0123456789ABCDEF"), app("ENV PUBLIC_KEY=abcdefgh"), app("ENV COMPASS=hunter22"), app("ENV TOKEN_VERSION=3x"),
        app("RUN |1 VERSION=1 /bin/sh -c x"), app("ENV PASSWORD="), app("ARG TOKEN"), app("ENV PASSWORD=$OTHER"), app("ENV ALLOW_EMPTY_PASSWORD=yes"), on((*APP, "ENV TOKEN=hunter22"), END), app("ENV KEYBOARD=abcdefgh TOKENIZER=bert"),
        app("ENV AWS=AKIAIOSFODNN7EXAMPLE"), app("ENV SECRETARY=somebody PASSWORDLESS=1x"),
    ],
    "secret-file": [
        app(("COPY k /k", {"k.pub": b"ssh-rsa AAAAB3NzaC1yc2EAAA x\n"})), app(("COPY k /k", {"a.pem": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"})),
        app(("COPY k /k", {"app/.env": b"PORT=80\nPASSWORD=\nTOKEN=${TOKEN}\nSECRET=changeme\n"})), app(("COPY k /k", {"app/.env.example": b"PASSWORD=hunter22\n"})),
        app(("RUN x", {"usr/bin/ssl": b"\x7fELF -----BEGIN RSA PRIVATE KEY-----\nMIIB"})), app(("RUN x", {"root/.docker/config.json": b'{"auths": {"x": {}}, "credsStore": "x"}'})),
        app(("RUN x", {"root/.npmrc": b"//r/:_authToken=${NPM_TOKEN}\n"})), app(("RUN x", {"app/aws.sh": b"export X=AKIAIOSFODNN7EXAMPLE\n"})), app(("RUN x", {"root/.ssh/id_rsa": b""})),
        app(("COPY k /k", {"k": "->x", ".wh.id_rsa": b""})), app(("RUN x", {"id_rsa": KEY + bytes(70_000)})), on((*APP, ("COPY k /k", {"k": KEY})), END),
    ],
    "ssh-port": [
        app("EXPOSE 2222"), app("EXPOSE 80 443"), on((*APP, "EXPOSE 22"), END), Case((*BASE[:1], "EXPOSE 22", BASE[1], END)), app(ExposedPorts={"22/udp": {}}), app(ExposedPorts={"2200-2222/tcp": {}}), app("ENV SSH_PORT=22"), app("EXPOSE 122 8022"),
    ],
    "missing-expose": [
        app("EXPOSE 80", 'CMD ["nginx"]'), app('CMD ["ls"]'), on((*APP, "EXPOSE 80"), 'CMD ["nginx"]'), app('ENTRYPOINT ["git"]', 'CMD ["start"]'), app('CMD ["npm", "test"]'), app('CMD ["npm", "run", "build"]'), app('CMD ["redis-cli"]'),
        app('CMD ["echo", "nginx"]'), on((*APP, 'CMD ["nginx"]'), END), Case(BASE), app('CMD ["nginx-exporter"]'),
    ],
    "database-without-volume": [
        app("VOLUME /data", 'CMD ["redis-server"]'), app("RUN apt-get install -y mysql-client"), app('CMD ["redis-cli"]'), on((*APP, "VOLUME /data"), 'CMD ["redis-server"]'), app('CMD ["mysqldump", "x"]'), app("RUN apk add redis-tools postgresql-client"),
        on((*APP, "RUN apt-get install -y mysql-server"), END), app('CMD ["echo", "mysqld"]'), script("#!/bin/sh\n# mysqld runs elsewhere\nexec redis-cli\n"), app("CMD pgbouncer /etc/postgres"),
    ],
    "write-below-volume": [
        app(("RUN x", {"data/a": b"x"}), "VOLUME /data"), app("VOLUME /data", ("RUN x", {"database/a": b"x"})), app("VOLUME /data", ("RUN x", {"data/": b""})),
        app("VOLUME /data", ("RUN x", {"data/a": b""})), on((*APP, "VOLUME /data", ("RUN x", {"data/a": b"x"})), END), app(("COPY a /data/a", {"data/a": b"x"}), "VOLUME /data", ("RUN rm /data/a", {"data/.wh.a": b""})),
        app("VOLUME /data", ("RUN ln -s", {"data/a": "->/b", "srv/data/a": b"x"})), app("VOLUME /var/lib/mysql", ("RUN x", {"var/lib/mysql-files/a": b"x"})),
    ],
    "missing-label": [
        app("LABEL a=b"), Case(BASE), on((*APP, "LABEL a=b"), "LABEL c=d"), on((*APP, "LABEL a=b"), "LABEL a=c"), app("LABEL org.opencontainers.image.version=1"), Case((*BASE[:1], "LABEL a=b", BASE[1], "LABEL c=d")),
        app(Labels={"io.buildah.version": "1.28", "a": "b"}),
    ],
    "maintainer": [
        app("LABEL maintainer=me"), app("RUN echo MAINTAINER me"), Case((*BASE[:1], "MAINTAINER me", BASE[1], END)), on((*APP, "MAINTAINER me"), END), app("ENV MAINTAINER=me"), app(("COPY MAINTAINERS /x", {"x": b"me"})),
        app("LABEL org.opencontainers.image.authors=MAINTAINER"),
    ],
    "missing-healthcheck": [
        app("HEALTHCHECK CMD curl x"), app('HEALTHCHECK CMD ["/app/run"]'), Case(BASE), on((*APP, "HEALTHCHECK CMD curl x"), END), Case((*BASE[:1], "HEALTHCHECK CMD curl x", BASE[1], END)),
        app(Healthcheck={"Test": ["CMD", "/app/run"], "Interval": 5_000_000_000, "Retries": 3}), app("HEALTHCHECK NONE", "HEALTHCHECK CMD curl x"),
    ],
    "missing-dockerignore": [
        app(("COPY . /app", {"app/.gitignore": b"x", "app/.gitattributes": b"x", "app/src/x": b"y"})), app(("COPY . /app", {"app/node_modules/x/.git/HEAD": b"x", "app/vendor/y/Dockerfile": b"x"})),
        app(("COPY . /app", {"app/docs/Dockerfile": b"x"})), app(("RUN git clone x /src", {"src/.git/HEAD": b"x"})), app(("COPY . /app", {"app/.git": b""})),
        Case((("ADD r /", {**ROOT, "app/.git/HEAD": b"x"}), 'CMD ["sh"]', END)), app(("RUN x", {"usr/share/doc/x/Dockerfile": b"x"})), on((*APP, ("COPY . /app", {"app/.git/HEAD": b"x"})), END),
        app(("COPY . /app", {"app/.wh..git": b"", "app/.github/x.yml": b"x"})),
    ],
    "root-user": [
        app("USER 10001"), app("USER app:root"), app("USER rooty"), app("RUN apt-get install -y gosu", "USER root"), script('#!/bin/sh\nexec gosu app "$@"\n', "USER root"), app("USER 1000:0"), app("USER root", "USER app"), on((*APP, "USER root"), END),
        app("USER 65532:65532"), script('#!/bin/sh\nexec setpriv --reuid 5 "$@"\n', "USER 0"),
    ],
    "missing-user": [
        app("USER app"), Case(BASE), script('#!/bin/sh\nexec su-exec app "$@"\n'), app("RUN apk add su-exec"), on((*APP, "USER app"), END), Case((*BASE[:1], "USER 1", BASE[1], END)), app("USER 10001:10001"), app("USER root"),
    ],
}  # fmt: skip
