"""What each rule's form on images must find: at least six cases a rule, one or a few lines each (see lint_images.py).

Three have fewer in the classic builder's history, which puts a hash where the source was: `add-url` cannot be told from it at all,
of `add-local` and `copy-before-install` only what the layer or `dir:` shows.
"""

from __future__ import annotations

from lint_images import APP, BASE, END, KEY, LISTS, MB, ROOT, TAG, Case, X, app, on, release, script

FOUND: dict[str, list[Case]] = {
    "not-evaluable": [
        app(overrides_history=[]), app(overrides_history=[{"created_by": "RUN a"}]), app(overrides_history=None),
        app(overrides_history=[{"created_by": "a"}, {"created_by": "b"}, {"created_by": "c", "empty_layer": True}, {"created_by": "d"}]),
        app(overrides_history=[{"created_by": "bazel build //app:image"}]),  # one entry for all layers
        app(overrides_history=[{"created_by": "RUN a", "empty_layer": True}, {"created_by": "RUN b", "empty_layer": True}]),
        app(overrides_history=[{"created_by": "ADD r /"}, {"created_by": "COPY run /app"}, {"created_by": "RUN true"}]),  # a RUN that changed nothing
    ],
    "background-process": [
        app("CMD mysqld & sshd & npm start"), app('ENTRYPOINT ["/bin/sh", "-c", "cron & exec nginx"]'), script("#!/bin/sh\nsshd -D &\nexec nginx\n"),
        app('CMD ["bash", "-c", "a & b"]'), app("CMD nohup worker >/dev/null 2>&1 & exec web"), app("ENTRYPOINT (cron -f &) && exec nginx"),
        script("#!/bin/bash\nset -e\nif [ -n \"$X\" ]; then redis-server & fi\nexec node x\n"),
        app(("COPY s /usr/bin/start.sh", {"usr/bin/start.sh": (b"#!/bin/sh\nfluentd >/log 2>&1 &\nexec java -jar /a.jar\n", 0o755)}), 'CMD ["start.sh"]'),
        app(("COPY s /s", {"s": b"#!/bin/sh\ncron &\nexec web\n"}), 'ENTRYPOINT ["/usr/bin/bash", "/s"]'), script("#!/bin/sh\ncron &\nexec web\n", 'CMD ["x"]'),
    ],
    "process-supervisor": [
        app(("RUN x", {"usr/bin/supervisord": X}), 'CMD ["supervisord", "-n"]'), app('ENTRYPOINT ["/usr/bin/supervisord"]'), app(("RUN x", {"usr/bin/supervisord": X})),
        app(("COPY --from=s6 / /", {"usr/bin/s6-svscan": X})), app('CMD ["/sbin/init"]'), app('ENTRYPOINT ["/usr/bin/runsvdir", "-P", "/etc/service"]'),
        app("CMD supervisord -c /etc/supervisord.conf"), app("CMD exec /usr/bin/supervisord -n"), app('ENTRYPOINT ["tini", "--", "supervisord"]'),
        script("#!/bin/sh\nset -e\nexec supervisord -n\n"), app('CMD ["/usr/bin/python3", "/usr/bin/supervisord"]'),
    ],
    "several-services": [
        app("RUN apt-get install -y openssh-server nginx"), app("RUN apk add redis", "RUN apk add nginx"), app("RUN yum install -y httpd mariadb-server && yum clean all"),
        app("RUN |1 V=1 /bin/sh -c set -ex; apt-get update; apt-get install -y --no-install-recommends nginx=1.2-3 cron"), app("RUN dnf -y install postgresql-server", "COPY a /a", "RUN dnf -y install postfix"),
        Case((*BASE[:1], "RUN apt-get install -y nginx", BASE[1], "RUN apt-get install -y redis-server")),  # one is the base's: two run all the same
    ],
    "package-upgrade": [
        app("RUN apt-get update && apt-get upgrade -y"), app("RUN |1 A=b /bin/sh -c yum -y update"), app("RUN apk upgrade"), app("RUN apt-get -qq -o Dpkg::Use-Pty=0 dist-upgrade"),
        app("RUN apk -U upgrade && rm -rf /var/cache/apk/*"), app("RUN microdnf update && microdnf clean all"), app("RUN zypper --non-interactive up"), app("RUN set -eux; apt full-upgrade -y; apt-get install -y curl"),
    ],
    "update-alone": [
        app("RUN apt-get update"), app("RUN apk update"), app("RUN |1 A=b /bin/sh -c apt-get -qq update"), app("RUN set -ex; apt update; rm -rf /tmp/x"), app("RUN apt-get update || true"),
        app("RUN mkdir -p /app && apt-get update && cd /app"), on(BASE, "RUN apt-get update && echo done"),
    ],
    "mixed-frequency": [
        app("COPY . /app", "RUN apt-get install -y git && npm install"), app("COPY src /src", "RUN apk add git && pip install -r r.txt"), app("ADD . /app", "RUN yum install -y ruby && cd /app && bundle install"),
        app("COPY . /app", "WORKDIR /app", "ENV A=b", "RUN |1 A=b /bin/sh -c apt-get update && apt-get install -y make && yarn"), app("COPY composer.json /app/", "RUN dnf install -y php && composer install"),
        on(BASE, "COPY . .", "RUN apk add --no-cache gcc && pip3 install --requirement r.txt && apk del gcc"),
    ],
    "consecutive-runs": [
        app("RUN apt-get update", "RUN apt-get install -y curl"), app("RUN yum install -y a", "RUN yum install -y b"), app("RUN apk add a", "RUN apk add b && apk del c"),
        app("RUN dnf install -y a", "RUN yum install -y b"), app("RUN |1 A=b /bin/sh -c apt-get update", "RUN |1 A=b /bin/sh -c apt install -y curl"), app("RUN make", "RUN apt-get install a", "RUN x && apt-get install b"),
    ],
    "wasted-files": [
        app(("COPY big /big", {"big": MB}), ("RUN rm /big", {".wh.big": b""})), app(("COPY big /big", {"big": bytes(20_000)}), ("RUN x", {"big": b"1"})),
        app(("COPY d /d", {"d/a": bytes(9000), "d/b": bytes(9000)}), ("RUN rm -r /d", {".wh.d": b""})),
        Case((("ADD r.tar /", {**ROOT, "usr/lib/x": bytes(50_000)}), 'CMD ["sh"]', ("RUN rm /usr/lib/x", {"usr/lib/.wh.x": b""}))),
        app(("COPY d /d", {"d/a": MB}), ("RUN rm -r /d; mkdir /d", {"d/": b"", "d/.wh..wh..opq": b""})),  # an opaque folder
        app(("COPY a /a", {"a": MB}), ("RUN chown x /a", {"a": MB})), app(("COPY a /a", {"a/b/c": MB}), ("RUN x", {"a": b"a file over the folder"})),
        app(("COPY a /a", {"a": MB}), ("RUN ln -sf /b /a", {"a": "->/b"})), app(("COPY a /a", {"a": MB, "b": "=a"}), ("RUN rm /a /b", {".wh.a": b"", ".wh.b": b""})),  # both names of it
    ],
    "floating-tag": [
        app(tags=()), app(tags=("hello:latest",)), app(tags=("localhost:5000/team/hello",)), app(tags=(TAG, "team/x:latest")), app(tags=("swr.example.com:443/team/x:latest",)), app(tags=("team/hello",)),
        app(tags=("1.2/team:latest",)),
    ],
    "package-leftovers": [
        app(("RUN apt-get update", {LISTS: MB})), app(("RUN apt-get update", {LISTS: b"x"}), ("RUN rm x", {"var/lib/apt/lists/.wh.deb_InRelease": b""})),
        app(("RUN x", {"var/cache/apt/archives/a.deb": b"x"})), app(("RUN x", {"var/cache/apk/APKINDEX.tar.gz": b"x"})), app(("RUN x", {"var/cache/dnf/x/y": b"x"})),
        app(("RUN npm i", {"root/.npm/_cacache/x": b"x"})), Case((("ADD r.tar /", {**ROOT, LISTS: b"x"}), 'CMD ["sh"]', END)), app(("RUN zypper in x", {"var/cache/zypp/raw/x": b"x"})),
        app(("RUN yum install x", {"./var/cache/yum/x86_64/7/base/repomd.xml": b"x"})), app(("RUN x", {LISTS: b"x"}), ("RUN y", {"var/lib/apt/lists/.wh..wh..opq": b""})),
        on((*BASE, ("RUN x", {LISTS: b"x"})), ("RUN y", {"var/lib/apt/lists/deb_Packages": b"x"})),
    ],
    "pip-cache": [
        app(("RUN pip install x", {"root/.cache/pip/http/1": b"x"})), app(("RUN pip install x", {"home/u/.cache/pip/http/1": MB})), app(("RUN pip wheel x", {"root/.cache/pip/wheels/a/b.whl": b"x"})),
        app(("RUN pip install x", {"root/.cache/pip/selfcheck/1": b"x"}), ("RUN rm", {"root/.cache/.wh.pip": b""})), Case((("ADD r /", {**ROOT, "root/.cache/pip/x": b"x"}), 'CMD ["sh"]', END)),
        app(("RUN pip install x", {"./.cache/pip/http-v2/a": b"x"})), on(BASE, ("RUN x", {"var/www/.cache/pip/x": b"x"})),
    ],
    "general-base": [
        app("RUN apt-get install -y nodejs npm"), app("RUN apt-get install -y python3"), app("RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless=17* ca-certificates"),
        app("RUN |1 A=b /bin/sh -c apt-get install -y php-fpm"), app(("RUN x", {"etc/os-release": b'ID="rocky"\nID="centos"\n'}), "RUN yum install -y java"), app("RUN apt-get install -y curl", "RUN apt-get install -y golang-go"),
        Case((("ADD r /", {**ROOT, "etc/os-release": "->../usr/lib/os-release", "usr/lib/os-release": b"ID=ubuntu\n"}), 'CMD ["bash"]', "RUN apt-get install -y ruby")), on(BASE, "RUN apt-get install -y nginx"),
    ],
    "end-of-life-base": [
        release("ID=ubuntu VERSION_ID='16.04'"), release("ID=alpine VERSION_ID=3.4.6"), release('ID="centos" VERSION_ID="8"'), release('NAME=Debian ID=debian VERSION_ID="9"'),
        app(("RUN x", {"etc/os-release": "->../usr/lib/os-release", "usr/lib/os-release": b'ID="centos"\nVERSION_ID="7"\n'})),
        Case((("ADD r /", {"usr/lib/os-release": b"ID=fedora\nVERSION_ID=30\n", "bin/sh": X}), 'CMD ["sh"]', END)), release("ID=openEuler VERSION_ID=20.03"), release("ID=debian\r VERSION_ID=10\r"),
        app(("RUN x", {"etc/os-release": "->/usr/lib/os-release", "usr/lib/os-release": b"ID=debian\nVERSION_ID=8\n"})),
    ],
    "run-cd": [
        app("RUN cd /app && make"), app("RUN set -e; cd /app; make"), app("RUN |1 A=b /bin/sh -c cd /tmp && wget x"), app("RUN cd $HOME && ./configure && make"), app("RUN set -eux && cd app && npm ci"),
        on(BASE, "RUN cd /usr/src; tar xf x"),
    ],
    "shell-form": [
        app("CMD npm start"), app("ENTRYPOINT /app/run"), app('CMD ["/bin/sh", "-c", "npm start"]'), app('CMD ["sh", "-c", "npm start"]'), app('ENTRYPOINT ["/bin/bash", "-lc", "java -jar /a.jar"]'),
        app("CMD cd /app && node $FILE"), app("ENTRYPOINT java $OPTS -jar /a.jar || exit 1"), on(BASE, "CMD nginx -g 'daemon off;'"), app('CMD ["/usr/bin/bash", "-e", "-c", "migrate; exec web; echo done"]'),
    ],
    "no-command": [
        Case((*APP,), None, {"Cmd": None}), Case((*APP,), None, {"Cmd": [], "Entrypoint": []}), Case((("COPY app /app", {"app": X}),)), app('HEALTHCHECK CMD ["/app/run"]', "EXPOSE 80", Cmd=None),
        Case((BASE[0], ("COPY run /run", {"run": X}))), app('CMD ["x"]', Cmd=None),  # what the history tells, the config took back
        on(APP, END, Cmd=[], Entrypoint=None),
    ],
    "missing-workdir": [
        app('CMD ["/app/run"]'), app("WORKDIR /"), app(WorkingDir=""), app("WORKDIR /app", WorkingDir=""), on(BASE, ("COPY a /a", {"a": X})), app(WorkingDir="//"), Case((("COPY a /a", {"a": X}), 'ENTRYPOINT ["/a"]')),
    ],
    "missing-program": [
        app('ENTRYPOINT ["/entrypoint.sh"]'), app('CMD ["node", "x"]'), app(("COPY a /a", {"a": (b"x", 0o644)}), 'ENTRYPOINT ["/a"]'), app('ENTRYPOINT ["/app"]'),
        app("HEALTHCHECK CMD wget -q http://localhost || exit 1"), app('HEALTHCHECK CMD ["/health"]'), app("CMD exec /nothing x"), script("#!/bin/zsh\nx\n"),
        script("#!/bin/sh\r\nexec x\r\n"), script("#!/usr/bin/env python3\nx\n"), app(("RUN ln", {"e": "->/gone"}), 'ENTRYPOINT ["/e"]'),
        app(("RUN rm", {"app/.wh.run": b""}), 'ENTRYPOINT ["/app/run"]'), Case((("COPY a /a", {"a": X}), "CMD /a")),
        app(("RUN x", {"app/.wh..wh..opq": b""}), 'ENTRYPOINT ["/app/run"]'), app(("RUN ln", {"e": "->d/x", "d/": b""}), 'ENTRYPOINT ["/e"]'), app("ENV PATH=/opt/bin", 'CMD ["bash"]', Env=["PATH=/opt/bin"]),
        app(("RUN ln", {"a": (b"x", 0o600), "b": "=a"}), 'ENTRYPOINT ["/b"]'),
    ],
    "entrypoint-hides-command": [
        app("ENTRYPOINT /app/run", 'CMD ["x"]'), app("ENTRYPOINT exec /app/run", 'CMD ["--port", "80"]'), app("ENTRYPOINT /app/run", "CMD x"), app("ENTRYPOINT cd /app && ./run", 'CMD ["start"]'),
        app("ENTRYPOINT java -jar $JAR", 'CMD ["a"]', 'CMD ["b"]'), on((*APP, "ENTRYPOINT /app/run"), 'CMD ["x"]'),  # the ENTRYPOINT is the base's, the CMD is not
        on((*APP, 'CMD ["x"]'), "ENTRYPOINT /app/run", Cmd=["x"]),
    ],
    "entrypoint-exec": [
        script("#!/bin/sh\nnpm start\n"), app(("COPY e.sh /e.sh", {"e.sh": b"#!/bin/sh\nnpm start\n"}), 'ENTRYPOINT ["sh", "/e.sh"]'),
        app(("COPY e.sh /usr/bin/docker-entrypoint.sh", {"usr/bin/docker-entrypoint.sh": (b"#!/bin/sh\nset -e\nnode x\n", 0o755), "e": "->usr/bin/docker-entrypoint.sh"}), 'ENTRYPOINT ["/e"]'),
        script('#!/bin/bash -e\necho start\n"$@"\n', 'CMD ["x"]'), app(("COPY s /usr/bin/s.sh", {"usr/bin/s.sh": (b"#!/usr/bin/env bash\njava -jar /a.jar\n", 0o755)}), 'CMD ["s.sh"]'),
        script("#!/bin/sh\nif [ -z \"$A\" ]; then A=b; fi\n/app/run --a $A\n"), script("#!/bin/sh\n# exec is not used here\nnode x >/log 2>&1\n"),
        app("WORKDIR /app", ("COPY e.sh .", {"app/e.sh": (b"#!/bin/sh\ncat <<E\nexec\nE\nnode x\n", 0o755)}), 'ENTRYPOINT ["./e.sh"]'),
    ],
    "add-local": [
        app("ADD . /app"), app(("ADD a.txt /a.txt", {"a.txt": b"x"})), app("ADD a b /app/"), app(("ADD app.jar /app.jar", {"app.jar": b"PK"})), app(("ADD conf.zip /tmp/conf.zip", {"tmp/conf.zip": b"PK"})),
        app("ADD --chown=app:app src /app/src", form="buildkit"), app("ADD run.sh /usr/bin/", form="buildkit"), app(("ADD ./etc/ /etc/", {"etc/a": b"x"})),
    ],
    "add-url": [
        app("ADD https://example.com/x /x", form="buildkit"), app("ADD http://example.com/x.tar.gz /x/", form="buildkit"), app("ADD ftp://example.com/a /a", form="buildkit"),
        app("ADD --chown=1:1 https://example.com/a.jar /a.jar", form="buildkit"), app("ADD a https://example.com/b /c/", form="buildkit"), on(BASE, "ADD https://example.com/x.sh?v=1 /x.sh", form="buildkit"),
    ],
    "copy-before-install": [
        app("COPY . /app", "RUN npm install"), app("COPY . .", "RUN pip install -r requirements.txt"), app("ADD . /app", "WORKDIR /app", "RUN |1 A=b /bin/sh -c bundle install"),
        app("COPY ./ /app/", "RUN cd /app && composer install --no-dev"), app("COPY . /app", "RUN make", "RUN yarn"), on(BASE, "COPY . /srv", "RUN poetry install"), app("COPY --chown=node . /app", "RUN npm ci", form="buildkit"),
    ],
    "secret-in-build": [
        app("ENV DB_PASSWORD=hunter22"), app("ENV DB_PASSWORD=hunter22", "ENV DB_PASSWORD="), app("RUN |1 NPM_TOKEN=hunter22 /bin/sh -c npm i"), app("ARG TOKEN=hunter22", "RUN x"),
        app("ENV X=AKIAABCDEFGHIJKLMNOP"), app("RUN |2 A=b c API_KEY=hunter22 /bin/sh -c x"), Case((*BASE[:1], "ENV SECRET_KEY=hunter22", BASE[1], END)), app("ENV dbPassword=hunter22"),
        app("ENV GH=ghp_" + "a1" * 18), on(BASE, "ENV A=b MYSQL_ROOT_PASSWORD=hunter22"),
    ],
    "secret-file": [
        app(("COPY k /root/.ssh/id_rsa", {"root/.ssh/id_rsa": KEY})), app(("COPY k /k", {"k": KEY}), ("RUN rm /k", {".wh.k": b""})), app(("COPY k /k", {"srv/deep/name": KEY})),
        app(("COPY .env /app/.env", {"app/.env": b"PORT=80\nexport DB_PASSWORD='hunter22'\n"})), app(("RUN x", {"root/.aws/credentials": b"[default]\naws_secret_access_key = hunter22hunter22hunter22\n"})),
        app(("RUN x", {"root/.docker/config.json": b'{"auths": {"x": {"auth": "aHVudGVyMjI="}}}'})), app(("RUN x", {"root/.npmrc": b"//r/:_authToken=hunter22hunter22\n"})),
        app(("RUN x", {"root/.git-credentials": b"https://me:hunter22@example.com\n"})), app(("RUN x", {"app/conf.yaml": b"key: AKIAABCDEFGHIJKLMNOP\n"})),
        app(("COPY k /k", {"a.pem": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" + KEY})), Case((("ADD r /", {**ROOT, "etc/ssh/ssh_host_rsa_key": KEY}), 'CMD ["sh"]', END)),
        app(("RUN x", {"root/.obsutilconfig": b"ak=x\nsk=hunter22hunter22\n"})), app(("RUN x", {"root/.netrc": b"machine x login me password hunter22\n"})),
        app(("RUN x", {"root/.kube/config": b"users:\n- user:\n    token: hunter22\n"})), app(("COPY d /d", {"d/k": KEY}), ("RUN x", {"d/.wh..wh..opq": b""})),
    ],
    "ssh-port": [
        app("EXPOSE 22"), app("EXPOSE 80 22"), app("EXPOSE 22 443 8080"), on(BASE, "EXPOSE 22"), on((*APP, "EXPOSE 80"), "EXPOSE 80 22"), app(ExposedPorts={"22": {}}),
    ],
    "missing-expose": [
        app('CMD ["nginx"]'), app('CMD ["npm", "start"]'), app('ENTRYPOINT ["/usr/local/bin/gunicorn"]', 'CMD ["app:app"]'), app("CMD exec uvicorn app:app"), app("CMD redis-server /etc/redis.conf"),
        app('CMD ["npm", "run", "serve"]'), on(BASE, 'CMD ["mysqld"]'),
    ],
    "database-without-volume": [
        app("RUN apt-get install -y mysql-server"), app(("RUN x", {"usr/bin/redis-server": X}), 'CMD ["redis-server"]'), app('ENTRYPOINT ["/usr/sbin/mysqld"]'), app("RUN |1 A=b /bin/sh -c apk add --no-cache postgresql"),
        app("CMD exec mongod --bind_ip_all"), app('CMD ["/usr/bin/mariadbd", "--user=mysql"]'), on(BASE, "RUN yum install -y mariadb-server"), script('#!/bin/sh\nset -e\nexec redis-server "$@"\n'),
        app('CMD ["bash", "-c", "exec postgres -D /d"]'),
    ],
    "write-below-volume": [
        app("VOLUME /data", ("RUN x", {"data/a": b"x"})), app("VOLUME [/data]", ("COPY a /data/b/a", {"data/b/a": b"x"})), app("VOLUME [/data /var/www]", ("COPY i /var/www/", {"var/www/index.html": b"x"})),
        on((*APP, "VOLUME /data"), ("RUN x", {"data/a": b"x"})), app("VOLUME /var/lib/mysql/", "USER mysql", ("RUN mysqld --initialize", {"./var/lib/mysql/ibdata1": MB})),
        app("VOLUME /a", "VOLUME /b", ("RUN x", {"b/c": b"x"})), Case((*BASE[:1], "VOLUME /data", BASE[1], ("RUN x", {"data/a": b"x"}))),
    ],
    "missing-label": [
        app(), app(Labels={"io.buildah.version": "1.28"}), Case((*BASE[:1], "LABEL a=b", BASE[1], END)), app(Labels={}), on((*APP, "LABEL a=b", "LABEL c=d"), END), app("LABEL a=b", Labels=None), app("MAINTAINER me"),
    ],
    "maintainer": [
        app("MAINTAINER me"), app("MAINTAINER me <me@example.com>"), app('MAINTAINER "The Team"'), on(BASE, "MAINTAINER me"), Case((*BASE, "MAINTAINER me", ("COPY a /a", {"a": b"x"}))), app("MAINTAINER 张三"),
    ],
    "missing-healthcheck": [
        app(), app("HEALTHCHECK NONE"), app(Healthcheck={"Test": []}), app(Healthcheck=None), on(BASE, 'CMD ["x"]'), app("HEALTHCHECK CMD curl x", Healthcheck=None),  # an OCI-format build drops it
        on((*APP, "HEALTHCHECK CMD curl x"), "HEALTHCHECK NONE"),
    ],
    "missing-dockerignore": [
        app("WORKDIR /app", ("COPY . /app", {"app/.git/HEAD": b"x", "app/.git/config": b"x"})), app("WORKDIR /app", ("COPY . .", {"app/Dockerfile": b"FROM x\n"})),
        app("WORKDIR /app", ("COPY . /app/", {"app/.env": b"PORT=80 and more\n"})), app(("COPY . /srv", {"srv/docker-compose.yml": b"x"})), app(("ADD . /app", {"app/sub/.git/index": b"x"})),
        on(BASE, ("COPY . /app", {"app/.git/HEAD": b"x"})), app(("COPY . /app", {"app/Containerfile": b"FROM x\n", "app/vendor/x/Dockerfile": b"x"})),
        app(("COPY . /app", {"app/.git/objects/ab/cd": MB}), ("RUN rm -rf /app/.git", {"app/.wh..git": b""})),  # deleted later, still there
    ],
    "root-user": [
        app("USER root"), app("USER 0"), app("USER 0:0"), app("USER root:staff"), app("USER app", "USER root"), app("USER 0:10001"), on((*APP, "USER app"), "USER root"), app(User="root:root"),
    ],
    "missing-user": [
        app(), app(User=""), app(User=None), on(BASE, ("COPY a /a", {"a": X})), app("USER app", User=""), script('#!/bin/sh\n# run as the gosu-users group\nexec node "$@"\n'), app("RUN echo gosu su-exec"),
    ],
}  # fmt: skip
