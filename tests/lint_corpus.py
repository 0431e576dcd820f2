"""Dockerfiles written for the rules: for each rule what it must find, and near misses that it must not.

A case without a line that starts with FROM gets `FROM node:22` before it. Every case is built in a folder without .dockerignore.
"""

from __future__ import annotations

import re

IN = "RUN apt-get update && apt-get install -y "
OUT = " && rm -rf /var/lib/apt/lists/*"
JS = 'CMD ["npm", "start"]'


def whole(case: str) -> bytes:
    """The Dockerfile of a case."""
    return (case if re.search(r"^FROM ", case, re.MULTILINE) else f"FROM node:22\n{case}").encode()


def script(body: str, more: str = 'ENTRYPOINT ["/e.sh"]') -> str:
    return f"COPY <<'EOF' /e.sh\n{body}\nEOF\n{more}"


FOUND: dict[str, list[str]] = {
    "syntax": ["ADD ./app", "FOO x", "RUN a <<E\nx", "LABEL a=b c", "FROM a b c d", "RUN --mont=x y", "CMD [1]", "RUN x\nFROM a:1"],
    "unknown-ignore": [
        "# swrbatch ignore=nothing\nFROM a:1", "# swrbatch ignore-file=x\nFROM a:1", "RUN a \\\n # swrbatch ignore=latest\n && b",
        "CMD a\n# swrbatch ignore=x", "# swrbatch ignore=floating-tag,x\nFROM a", "# swrbatch ignore=Floating-Tag why\nFROM a:1",
    ],
    "background-process": [
        "CMD mysql & sshd & npm start", "CMD sshd & exec npm start", 'CMD ["sh", "-c", "redis-server & node x"]', "ENTRYPOINT cron & nginx",
        "CMD (sshd -D &) ; node x", "ENTRYPOINT service x start & exec y 2>&1",
    ],
    "several-services": [
        IN + "ssh mysql", IN + "nginx redis-server", IN + "openssh-server\nRUN apt-get install cron", "RUN apk add nginx memcached",
        "RUN yum install -y httpd mariadb-server", "FROM a:1 AS b\nRUN apk add redis\nFROM b\nRUN apk add nginx=1.2",
    ],
    "package-upgrade": [
        "RUN apt-get update && apt-get upgrade -y", "RUN apt-get -y dist-upgrade", "RUN yum update -y", "RUN apk update && apk upgrade",
        "RUN dnf -y upgrade", "RUN DEBIAN_FRONTEND=noninteractive sudo apt full-upgrade", "RUN <<E\nset -e\napt-get upgrade\nE", 'RUN sh -c "apt-get -y upgrade"',
        'RUN ["apt-get", "upgrade"]',
    ],
    "update-alone": [
        "RUN apt-get update", "RUN apt update\n" + "RUN apt install x", "RUN set -e; apt-get -qq update", "RUN apk update", "RUN <<E\napt-get update\nE",
        "run apt-get update && rm -rf /var/lib/apt/lists/*",
    ],
    "mixed-frequency": [
        "ADD . /app\n" + IN + "nodejs && cd /app && npm install", "COPY . .\nRUN apk add git && npm ci", "COPY r.txt /\nRUN apk add gcc && pip install -r r.txt",
        "COPY . .\nRUN yum install -y ruby && bundle install", "COPY . .\nRUN dnf install -y php && composer install", "COPY package.json .\nRUN apk add make && yarn",
    ],
    "consecutive-runs": [
        "RUN apt-get update\nRUN apt-get install -y x", "RUN apk add a\nRUN apk add b", "RUN yum install a\nRUN yum install b", "RUN apt install a\n# c\nRUN apt install b",
        "RUN dnf install a\nRUN yum install b", "RUN apk add a && x\nRUN y && apk add b",
    ],
    "floating-tag": [
        "FROM ubuntu", "FROM ubuntu:latest", "FROM host:5000/img", "ARG V=latest\nFROM a:$V", "FROM a:1\nCOPY --from=nginx /a /b", "FROM --platform=linux/amd64 a/b/c",
        "ARG I=ubuntu\nFROM ${I}",
    ],
    "package-leftovers": [
        IN + "x", IN + "x\nRUN rm -rf /var/lib/apt/lists/*", IN + "x && rm -rf /tmp/*", "RUN yum install -y x", "RUN dnf -y install x && rm -rf /tmp/x",
        "RUN apk update && apk add x", "RUN rm -rf /var/lib/apt/lists/* && apt-get update && apt-get install x", "RUN apk add -U x", "RUN apk add x", "RUN zypper install -y x",
    ],
    "pip-cache": [
        "RUN pip install flask", "RUN pip3 install -r r.txt", "RUN python3 -m pip install x", "RUN a && pip install x && b", "RUN --mount=type=bind,target=/x pip install x",
        "RUN <<E\npip install x\nE",
    ],
    "yarn-cache": [
        "RUN yarn install", "RUN yarn", "RUN yarn install --production && yarn build", "RUN yarn add left-pad", "RUN yarn global add serve", "RUN yarn cache clean && yarn install",
        "RUN <<E\nyarn install\nE", "RUN --mount=type=bind,target=/x yarn install", "RUN yarn install\nRUN yarn cache clean", "RUN yarn install && rm /x/yarn.lock",
    ],
    "general-base": [
        "FROM ubuntu:16.04\n" + IN + "nodejs", "FROM debian:12\nRUN apt-get install python3 python3-pip", "FROM centos:7\nRUN yum install -y java", "FROM fedora:40\nRUN dnf install php",
        "FROM docker.io/library/debian:12\n" + IN + "openjdk-17-jre=17.0.1", "FROM ubuntu:24.04 AS b\n" + IN + "nginx\nFROM b",
    ],
    "run-cd": ["RUN cd /app && npm i", "RUN cd x; make", "RUN set -e; cd x && make", "RUN cd /a \\\n && b", "RUN <<E\ncd /a\nb\nE", "FROM a:1 AS b\nRUN cd $X && y\nFROM c:1"],
    "relative-workdir": [
        "WORKDIR app", "WORKDIR ./app", "WORKDIR app\nWORKDIR /x", "ENV p=app\nWORKDIR $p", "FROM a:1\nWORKDIR /x\nFROM b:1\nWORKDIR y", "WORKDIR .",
    ],
    "shell-form": ["CMD npm start", "ENTRYPOINT /e.sh", "CMD ['npm', 'start']", "CMD node x && y", "FROM a:1 AS b\nCMD x\nFROM b", "cmd npm \\\n start", "CMD [\"a\","],
    "no-command": ["COPY a /a", "FROM a:1\nCMD [\"x\"]\nFROM b:1", "RUN x", "HEALTHCHECK CMD a", "ONBUILD CMD [\"a\"]", "EXPOSE 80"],
    "several-entrypoints": [
        'ENTRYPOINT ["a"]\nENTRYPOINT ["b"]', 'CMD ["a"]\nCMD ["b"]', "ENTRYPOINT a\nRUN x\nENTRYPOINT b", "FROM a:1 AS x\nCMD a\nCMD b\nFROM c:1", "CMD a\nCMD b\nCMD c",
        'entrypoint ["a"]\nEntryPoint ["b"]',
    ],
    "entrypoint-hides-command": [
        "ENTRYPOINT /e.sh\nCMD [\"a\"]", "CMD [\"a\"]\nENTRYPOINT /e.sh", "ENTRYPOINT exec /e.sh\nCMD a", "FROM a:1 AS b\nENTRYPOINT x\nFROM b\nCMD y", "ENTRYPOINT a && b\nCMD c",
        "ENTRYPOINT ['a']\nCMD [\"b\"]",
    ],
    "entrypoint-exec": [
        script('#!/bin/sh\nnpm "$@"'), script("#!/bin/bash\nset -e\nnode server.js"), script("#!/bin/sh\nif a; then b; fi\nnginx -g x"), script("#!/usr/bin/env bash\nnode x > /log 2>&1"),
        script("npm start # not exec"), script("#!/bin/sh\ncd /app && python x.py\njava -jar y.jar"),
    ],
    "add-local": ["ADD . /app", "ADD a b /c/", 'ADD ["a b", "/c"]', "ADD --chown=a x /y", "add target.jar /", "ADD ./app", "ENV d=x\nADD $d /y"],
    "add-url": [
        "ADD https://a.b/c /d", "ADD http://a/b.tar.gz /d", "ADD --chown=x https://a/b /c", "ARG V=1\nADD https://a/b-$V /c", "ADD ftp://a/b /c", 'ADD ["https://a/b", "/c"]',
    ],
    "copy-before-install": [
        "COPY . /app\nRUN npm install", "ADD . .\nRUN cd x && npm ci", "COPY ./ .\nRUN pip install -r r.txt", "COPY . .\nRUN yarn", "COPY --chown=a . .\nRUN bundle install",
        'COPY [".", "/app"]\nRUN composer install --no-dev', "COPY package.json .\nCOPY . .\nRUN npm i", "FROM a:1 AS b\nCOPY . .\nRUN pnpm install\nFROM c:1",
    ],
    "undefined-variable": [
        "WORKDIR $X", "COPY a ${DIR}/", "ENV a=$b", "EXPOSE $PORT", "ARG V=1\nFROM a:1\nENV x=$V", "FROM a:1\nARG q\nFROM b:1\nWORKDIR /$q", "FROM $NOPE", "VOLUME $M", "ENV a=1 b=$a",
    ],
    "legacy-env": ["ENV a b", "env PORT 3000", "LABEL a b", "ENV a b c=d", 'ENV a "b c"', "ENV a \\\n b"],
    "secret-in-build": [
        "ENV DB_PASSWORD=x1", "ENV API_KEY=abc", "ARG TOKEN", "ARG npm_token=abc", "ENV a=b MYSQL_ROOT_PASSWORD='pw'", "ENV dbPassword pw", "ENV X=AKIAABCDEFGHIJKLMNOP",
        "ENV AWS_SECRET_ACCESS_KEY=q", "ARG SECRET=s\nFROM a:1",
    ],
    "invalid-port": ["EXPOSE 80:80", "EXPOSE 0", "EXPOSE 65536", "EXPOSE 80/http", "EXPOSE 90-80", "EXPOSE web", "EXPOSE 80 x", "EXPOSE 80,81"],
    "ssh-port": ["EXPOSE 22", "EXPOSE 22/tcp", "EXPOSE 80 22", "ENV P=22\nEXPOSE $P", "FROM a:1 AS b\nEXPOSE 22\nFROM b", "ARG P=22\nFROM a:1\nARG P\nEXPOSE ${P}"],
    "missing-expose": [JS, "CMD npm start", 'ENTRYPOINT ["gunicorn", "a:b"]', 'CMD ["uvicorn", "x"]', 'ENTRYPOINT ["/e.sh"]\nCMD ["start"]', "FROM debian:12\nCMD [\"/usr/sbin/nginx\"]"],
    "database-without-volume": [
        IN + "mysql-server", IN + "postgresql", "RUN apk add redis", "RUN yum install -y mariadb-server", IN + "x mysql", IN + "redis-server=5:7", "FROM a:1 AS b\n" + IN + "mongodb\nFROM b",
    ],
    "write-below-volume": [
        "VOLUME /d\nRUN touch /d/x", 'VOLUME ["/d"]\nRUN echo a > /d/x', "VOLUME /d/\nRUN mkdir -p /d/a/b", "ENV D=/d\nVOLUME $D\nRUN chown -R a /d", "VOLUME /a /b\nRUN x && cp y /b/",
        "VOLUME /d\nRUN <<E\necho x >> /d/y\nE", "VOLUME /d\nRUN a | tee /d/x",
    ],
    "missing-label": ["RUN x", "FROM a:1\nLABEL a=b\nFROM b:1", "MAINTAINER me", "# LABEL a=b\nFROM a:1", "ONBUILD LABEL a=b", "RUN echo LABEL a=b"],
    "label-key": [
        "LABEL Version=1", 'LABEL com.example.Vendor="x"', 'LABEL "a b"=c', "LABEL com.docker.x=1", "LABEL a..b=1", "LABEL a- b", "LABEL a=1 b_c=2", "label io.docker.a=1",
        "LABEL a=1 \\\n .b=2", "LABEL org.dockerproject.x=1", "LABEL a--b=1",
    ],
    "maintainer": ["MAINTAINER me", "maintainer me <a@b>", "RUN x\nMAINTAINER y", "LABEL a=b\nMAINTAINER m", "FROM a:1 AS b\nMAINTAINER x\nFROM c:1", "MAINTAINER \\\n me"],
    "missing-healthcheck": ["RUN x", "HEALTHCHECK NONE", "FROM a:1\nHEALTHCHECK CMD x\nFROM b:1", "HEALTHCHECK none", "HEALTHCHECK CMD x\nHEALTHCHECK NONE", "ONBUILD HEALTHCHECK CMD x"],
    "several-healthchecks": [
        "HEALTHCHECK CMD a\nHEALTHCHECK CMD b", "HEALTHCHECK NONE\nHEALTHCHECK CMD b", 'HEALTHCHECK CMD ["a"]\nRUN x\nHEALTHCHECK CMD b', "healthcheck CMD a\nHEALTHCHECK CMD b",
        "FROM a:1 AS x\nHEALTHCHECK CMD a\nHEALTHCHECK CMD b\nFROM c:1", "HEALTHCHECK CMD a\nHEALTHCHECK --interval=1s CMD b",
    ],
    "missing-dockerignore": ["COPY . /app", "ADD . /app", "COPY ./ /app/", 'COPY [".", "/app"]', "COPY --chown=a:b . .", "COPY * /app/", "FROM a:1 AS b\nCOPY . .\nFROM c:1"],
    "root-user": ["USER root", "USER 0", "USER 0:0", "USER node\nUSER root", "USER root:root", "FROM a:1 AS b\nUSER root\nFROM b", "ENV U=root\nUSER $U"],
    "missing-user": ["RUN x", "FROM a:1\nUSER x\nFROM b:1", "RUN useradd x", "# USER x\nFROM a:1", "ONBUILD USER x", "RUN su x -c y"],
}  # fmt: skip

MISSED: dict[str, list[str]] = {
    "syntax": ["ADD <<E /a\nx\nE", "RUN <<E\nFOO\nE", "RUN a \\\n\n b", "CMD", "run x", 'LABEL a="b c"', "ARG v=1\nFROM a:$v", "HEALTHCHECK --start-interval=1s CMD x"],
    "unknown-ignore": [
        "# swrbatch ignore=floating-tag\nFROM a", "# swrbatch ignore-file=missing-user because\nFROM a:1", "# ignore=x\nFROM a:1", "# hadolint ignore=DL3006\nFROM a:1",
        "RUN echo '# swrbatch ignore=x'", "RUN <<E\n# swrbatch ignore=x\nE",
    ],
    "background-process": [
        "CMD npm start 2>&1", "CMD a && b", "CMD a & b & wait", 'CMD ["tini", "--", "a & b"]', "RUN x & y", "CMD echo 'a & b'", 'ENTRYPOINT ["a", "&"]', "CMD a &> /log",
    ],
    "several-services": [
        IN + "nginx", IN + "mysql-client ssh-client", IN + "mysql mysql-server", "FROM a:1 AS b\nRUN apk add redis\nFROM c:1\nRUN apk add nginx", "RUN echo apt-get install nginx redis",
        "RUN apt-get remove nginx cron",
    ],
    "package-upgrade": [
        IN + "x", "RUN apt-get install --only-upgrade x", "RUN apt-get upgrade --only-upgrade x", "RUN yum update -y openssl", "RUN echo apt-get upgrade", "RUN apk add --upgrade x",
        "RUN npm upgrade", "CMD apt-get upgrade-check", "RUN pip install --upgrade pip", "# RUN apt-get upgrade\nFROM a:1",
    ],
    "update-alone": [
        IN + "x", "RUN apt-get update; apt-get install x", "RUN apt-get update && ./install.sh", "RUN git submodule update", "RUN echo apt-get update", "RUN apk update && apk add x",
        "RUN apt-get update \\\n # c\n && apt-get install x",
    ],
    "mixed-frequency": [
        IN + "nodejs\nCOPY . .\nRUN npm install", IN + "nodejs && npm install", "COPY . .\nRUN npm install", "COPY . .\n" + IN + "git && npm install -g yarn",
        "FROM a:1 AS b\nCOPY . .\nFROM c:1\nRUN apk add x && npm ci", "COPY --from=x /a /b\nRUN apk add x && npm ci",
    ],
    "consecutive-runs": [
        "RUN apk add a\nCOPY b c\nRUN apk add d", "RUN apk add a\nRUN make", "RUN make\nRUN make install", "FROM a:1\nRUN apk add a\nFROM b:1\nRUN apk add c", "RUN apk add a\nRUN apt-get install b",
        "RUN echo apk add a\nRUN apk add a",
    ],
    "floating-tag": [
        "FROM ubuntu:24.04", "FROM scratch", "FROM a:1 AS b\nFROM b", f"FROM a@sha256:{'0' * 64}", "ARG V=1\nFROM a:$V", "FROM host:5000/a:1", "FROM a:1 AS b\nFROM c:1\nCOPY --from=b x y",
        "FROM a:1\nCOPY --from=0 x y", "ARG T\nFROM a:$T", "FROM a:latest-slim", f"FROM a:latest@sha256:{'0' * 64}",
    ],
    "package-leftovers": [
        IN + "x" + OUT, "RUN --mount=type=cache,target=/var/lib/apt --mount=type=cache,target=/var/cache/apt " + IN[4:] + "x", "RUN apk add --no-cache x", "RUN yum install -y x && yum clean all",
        "RUN dnf install -y x && rm -rf /var/cache/dnf", IN + "x; rm -r /var/lib/apt/lists", "FROM a:1 AS b\n" + IN + "x\nFROM c:1", "RUN echo apt-get install x", "RUN apt-get remove x",
        "RUN <<E\napt-get update\napt-get install -y x\nrm -rf /var/lib/apt/lists/*\nE",
    ],
    "pip-cache": [
        "RUN pip install --no-cache-dir x", "ENV PIP_NO_CACHE_DIR=1\nRUN pip install x", "RUN --mount=type=cache,target=/root/.cache/pip pip install x", "RUN pip --version", "RUN pip uninstall x",
        "RUN pip install x && rm -rf ~/.cache", "FROM a:1 AS b\nRUN pip install x\nFROM c:1", "RUN pip --no-cache-dir install x",
    ],
    "yarn-cache": [
        "RUN yarn install && yarn cache clean", "RUN --mount=type=cache,target=/usr/local/share/.cache yarn install", "RUN yarn build", "RUN yarn --version", "FROM a:1 AS b\nRUN yarn install\nFROM c:1",
        "RUN yarn install && rm -rf /usr/local/share/.cache/yarn", "RUN npm install -g yarn", "RUN yarn run install", "RUN yarn && yarn cache clean --all",
    ],
    "general-base": [
        "FROM node:22\n" + IN + "nodejs", "FROM ubuntu:24.04\n" + IN + "curl", "FROM ubuntu:24.04\n" + IN + "nodejs php", "FROM alpine:3\nRUN apk add nodejs",
        "FROM ubuntu:24.04 AS b\n" + IN + "nodejs\nFROM scratch", "FROM me/ubuntu-tools:1\n" + IN + "nodejs", "FROM ubuntu:24.04\nRUN apt-get remove nodejs",
    ],
    "run-cd": ["RUN a && cd /x && b", "RUN cdrecord x && y", "WORKDIR /x\nRUN make", "RUN make -C /x", "CMD cd /x && y", "RUN echo cd x && y", "RUN cd /x"],
    "relative-workdir": ["WORKDIR /app", "WORKDIR /a\nWORKDIR b", "ENV p=/x\nWORKDIR $p/y", "WORKDIR $UNKNOWN/x", "FROM a:1 AS b\nWORKDIR /x\nFROM b\nWORKDIR y", 'WORKDIR "/a b"', "WORKDIR C:\\x"],
    "shell-form": [
        JS, "CMD exec npm start", 'SHELL ["/bin/bash", "-c"]\nCMD npm start', 'CMD ["sh", "-c", "exec x"]', "RUN npm start", "FROM a:1 AS b\nCMD x\nFROM c:1", "HEALTHCHECK CMD a b", "ENTRYPOINT []", "CMD",
    ],
    "no-command": [JS, 'ENTRYPOINT ["a"]', "FROM a:1 AS b\nCMD x\nFROM b", "CMD x", "cmd x", "ENTRYPOINT x"],
    "several-entrypoints": [
        'ENTRYPOINT ["a"]\nCMD ["b"]', "FROM a:1 AS x\nCMD a\nFROM x\nCMD b", "CMD a", "RUN a\nRUN b", "CMD a\nHEALTHCHECK CMD b", "CMD a\nONBUILD CMD b",
    ],
    "entrypoint-hides-command": [
        'ENTRYPOINT ["a"]\nCMD ["b"]', "ENTRYPOINT a", "CMD a", 'ENTRYPOINT exec a "$0" "$@"\nCMD b', "FROM a:1 AS b\nENTRYPOINT x\nFROM c:1\nCMD y", 'ENTRYPOINT ["sh", "-c", "a"]\nCMD b',
    ],
    "entrypoint-exec": [
        script('#!/bin/sh\nexec npm "$@"'), script("#!/bin/sh\ntrap x TERM\nnode x"), script("#!/bin/sh\nif a; then b; else c; fi"), script("#!/usr/bin/python3\nmain()"), script('#!/bin/sh\ngosu x "$@"'),
        script("#!/bin/sh\nnode x", 'ENTRYPOINT ["/other.sh"]'), script("#!/bin/sh\n. /lib.sh"), script("#!/bin/sh\nnode x &\nwait"), 'COPY . /\nENTRYPOINT ["/e.sh"]',
    ],
    "add-local": [
        "COPY . /app", "ADD a.tar.gz /", "ADD a.tgz /", "ADD https://a/b /c", "ADD git@github.com:a/b.git /c", "ADD <<E /x\na\nE", "ADD $UNKNOWN.tar.xz /", "RUN ADD x y", "ADD A.TAR.BZ2 /",
        "ARG n\nADD $n /x",
    ],
    "add-url": [
        f"ADD --checksum=sha256:{'0' * 64} https://a/b /c", "ADD https://github.com/a/b.git /c", "ADD https://github.com/a/b.git#main /c", "ADD a /b", "COPY a /b", "RUN curl https://a/b", "ADD git@a:b /c",
    ],
    "copy-before-install": [
        "COPY package.json .\nRUN npm install\nCOPY . .", "COPY . .\nRUN npm run build", "COPY . .\nRUN npm install -g x", "COPY . .\nRUN pip install flask", "COPY --from=b . .\nRUN npm ci",
        "FROM a:1 AS b\nCOPY . .\nFROM c:1\nRUN npm ci", "COPY . .\nRUN pip install .", "COPY package.json .\nRUN npm ci\nCOPY . .\nRUN npm ci --omit=dev", "COPY src /src\nRUN npm ci",
    ],
    "undefined-variable": [
        "ENV X=/a\nWORKDIR $X", "ARG X\nWORKDIR $X", "ENV PATH=$PATH:/x", "ENV a=${b:-c}", "RUN echo $X", "ENV a='$b'", "CMD [\"$X\"]", "ENV a=\\$b", "WORKDIR /$NODE_VERSION", "ARG V=1\nFROM a:$V\nARG V\nENV w=$V",
        "FROM a:1 AS b\nENV q=1\nFROM b\nWORKDIR /$q", "EXPOSE ${P:-80}",
    ],
    "legacy-env": ["ENV a=b", "ENV a=b c=d", 'ENV a="b c"', "LABEL a=b", "ARG a", "ENV a= b=c", "RUN env a b"],
    "secret-in-build": [
        "ENV GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D", "ENV DB_PASSWORD_FILE=/run/s", "ENV PASSWORD=", "ENV TOKENIZER=bpe", "ENV ALLOW_EMPTY_PASSWORD=yes", "ENV SORT_KEY=name", "ENV PUBLIC_KEY=x",
        "ENV PWD=/app", "ENV TOKEN_VERSION=2", "ENV MONKEY=x KEYBOARD=y", "ENV PASSWORD=$X", "RUN --mount=type=secret,id=token cat /run/secrets/token", "ENV SECRET=/run/secrets/s",
    ],
    "invalid-port": ["EXPOSE 80", "EXPOSE 80/tcp 53/UDP", "EXPOSE 8000-8010", "ENV P=80\nEXPOSE $P", "EXPOSE $UNKNOWN", "EXPOSE 65535/sctp", 'EXPOSE "80"', "ENV P='80 81'\nEXPOSE $P"],
    "ssh-port": ["EXPOSE 2222", "EXPOSE 22/udp", "EXPOSE 80", "EXPOSE 220", "RUN ssh -p 22 x", "LABEL port=22"],
    "missing-expose": [
        "EXPOSE 3000\n" + JS, 'CMD ["ls"]', "FROM nginx:1\nCMD [\"nginx\"]", "FROM a:1 AS b\nEXPOSE 80\nFROM b\n" + JS, "RUN npm start", 'ENTRYPOINT ["git"]', "FROM ubuntu:24.04\nCMD [\"start\"]",
    ],
    "database-without-volume": [
        IN + "mysql-server\nVOLUME /var/lib/mysql", IN + "mysql-client", IN + "redis-tools", "FROM a:1 AS b\n" + IN + "mysql-server\nFROM c:1", "RUN echo apt-get install postgresql", "VOLUME /d\nRUN apk add redis",
    ],
    "write-below-volume": [
        "RUN touch /d/x\nVOLUME /d", "VOLUME /d\nRUN touch /data/x", "VOLUME /d\nRUN ls /d/x", "VOLUME /d\nRUN cat < /d/x", "FROM a:1\nVOLUME /d\nFROM b:1\nRUN touch /d/x", "VOLUME /d\nRUN echo /d/x",
        "VOLUME $U\nRUN touch /d/x",
    ],
    "missing-label": ["LABEL a=b", 'LABEL a="b c" d=e', "label a=b", "FROM a:1 AS b\nLABEL x=y\nFROM b", "RUN x\nLABEL a=b", "LABEL a b"],
    "label-key": [
        "LABEL version=1", 'LABEL com.example.my-app.version="1"', 'LABEL "com.example.vendor"="A B"', "LABEL $KEY=1", "ENV Version=1", "LABEL com.dockerize.x=1", "# LABEL Version=1\nFROM a:1",
        "LABEL a=B_C", "LABEL a1.b2=3", "LABEL a b_c", "RUN echo LABEL A=1", "LABEL org.opencontainers.image.title=x",
    ],
    "maintainer": ["LABEL maintainer=me", "# MAINTAINER me\nFROM a:1", "RUN echo MAINTAINER x", "RUN <<E\nMAINTAINER x\nE", "ENV MAINTAINER=x", "RUN a \\\n MAINTAINER"],
    "missing-healthcheck": [
        "HEALTHCHECK CMD a", 'HEALTHCHECK CMD ["a"]', "FROM a:1 AS b\nHEALTHCHECK CMD a\nFROM b", "HEALTHCHECK --interval=5s CMD a", "healthcheck cmd a", "HEALTHCHECK NONE\nHEALTHCHECK CMD a",
    ],
    "several-healthchecks": [
        "HEALTHCHECK CMD a", "FROM a:1 AS b\nHEALTHCHECK CMD a\nFROM b\nHEALTHCHECK CMD c", "HEALTHCHECK CMD a\nCMD b", "HEALTHCHECK NONE", "HEALTHCHECK CMD a\n# HEALTHCHECK CMD b\nRUN x",
        "HEALTHCHECK CMD a\nONBUILD HEALTHCHECK CMD b", "HEALTHCHECK CMD a\\\n HEALTHCHECK CMD b",
    ],
    "missing-dockerignore": ["COPY package.json /app/", "COPY src/ /app/", "COPY --from=b . /app", "ADD a.tar /", "COPY a b /c/", "COPY <<E /x\n.\nE", "RUN cp . /x"],
    "root-user": ["USER node", "USER root\nUSER node", "USER 10001:0", "ARG U\nUSER $U", "FROM a:1\nUSER root\nFROM b:1", "USER root\nRUN apk add su-exec", "USER rooty", "RUN x"],
    "missing-user": ["USER node", "USER root", "FROM a:1 AS b\nUSER x\nFROM b", "FROM gcr.io/distroless/static:nonroot", "RUN apk add su-exec", "ARG U\nUSER $U", 'ENTRYPOINT ["gosu", "x", "y"]'],
}  # fmt: skip
