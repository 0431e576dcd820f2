"""Files that hold a secret, by name and content. Values are looked at and never kept.

A file counts by its content alone: a name such as `id_rsa` only says where to look.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..redaction import KNOWN, is_secret

_PLACEHOLDER: Final = re.compile(
    r"x+|\*+|changeme|change_me|your[_-].*|example|secret|password|null|none|todo|\{\{.*", re.IGNORECASE
)

LOOKED_AT: Final = 64 << 10
"""Bytes of a file that are looked at; one that is larger holds no credentials by themselves."""
_HEAD: Final = 64
_KEY_FILE: Final = re.compile(rb"\s*-----BEGIN (?P<kind>[A-Z0-9 ]*)PRIVATE KEY(?: BLOCK)?-----\r?\n")
_KEY_INSIDE: Final = re.compile(
    rb"^-----BEGIN (?P<kind>[A-Z0-9 ]*)PRIVATE KEY(?: BLOCK)?-----\r?\n[^\n]*[A-Za-z0-9+/=:]", re.MULTILINE
)
_KEY_NAMES: Final = re.compile(r"id_(rsa|dsa|ecdsa|ed25519)|.+\.(pem|key)|ssh_host_.*_key")
_PUBLIC_FOLDERS: Final = re.compile(
    r"(^|/)(tests?|testdata|testing|examples?|fixtures|doc|docs|demos?|samples?|snakeoil)(/|$)|snakeoil"
)
# By the end of the path: what the file is, and what a secret in it looks like.
_CREDENTIALS: Final = (
    ("/.aws/credentials", "AWS credentials", "AWS访问密钥", re.compile(rb"aws_secret_access_key\s*=\s*[^\s<$]{16,}", re.I)),
    ("/.docker/config.json", "a docker login", "docker登录凭证", re.compile(rb'"(auth|identitytoken)"\s*:\s*"[^"]{4,}"')),
    ("/.dockercfg", "a docker login", "docker登录凭证", re.compile(rb'"auth"\s*:\s*"[^"]{4,}"')),
    ("/.npmrc", "an npm token", "npm令牌", re.compile(rb"_(authToken|auth|password)\s*=\s*[^\s$]{4,}")),
    ("/.pypirc", "a password for a package index", "软件包仓库密码", re.compile(rb"^\s*password\s*[:=]\s*[^\s$]+", re.M)),
    ("/.netrc", "a password of .netrc", ".netrc密码", re.compile(rb"\bpassword\s+[^\s$]+")),
    ("/.git-credentials", "a git password", "git密码", re.compile(rb"://[^:/\s]+:[^@\s]+@")),
    ("/.kube/config", "a Kubernetes login", "Kubernetes凭证", re.compile(rb"\b(client-key-data|token|password):\s*\S+")),
    ("/.obsutilconfig", "OBS access keys", "OBS访问密钥", re.compile(rb"^sk=\S+", re.M)),
    (
        "application_default_credentials.json",
        "Google credentials",
        "Google凭证",
        re.compile(rb'"(private_key|refresh_token)"\s*:\s*"[^"]+"'),
    ),
)
_ENV_FILE: Final = re.compile(r"(.+)?\.env(\.(?!example|sample|template|dist)[\w.-]+)?")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,100}")
_SETTINGS: Final = re.compile(r".+\.(env|ini|cfg|conf|json|ya?ml|toml|properties|sh|py|js|rb|php)")
_DISTRIBUTION: Final = ("usr/", "lib/", "lib64/", "bin/", "sbin/", "var/lib/", "opt/conda/")


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file of a layer that holds a secret: what it is, in English and Chinese, and never the secret itself.

    `public`: it lies where packages keep keys for tests and examples. `encrypted`: a passphrase is needed to use it.
    """

    path: str
    what: str
    what_zh: str
    public: bool = False
    encrypted: bool = False


def bytes_wanted(path: str, size: int) -> int:
    """How many bytes of a file `secret_in` wants to see."""
    if not 16 <= size <= LOOKED_AT:
        return 0
    name = posixpath.basename(path)
    if _KEY_NAMES.fullmatch(name) or _ENV_FILE.fullmatch(name) or any(f"/{path}".endswith(end) for end, *_ in _CREDENTIALS):
        return LOOKED_AT
    return LOOKED_AT if _SETTINGS.fullmatch(name) and not path.startswith(_DISTRIBUTION) else _HEAD


def secret_in(path: str, data: bytes) -> SecretFile | None:
    """The secret in a file, of which the first bytes are given; None if there is none."""
    public = _PUBLIC_FOLDERS.search(path) is not None
    whole = bytes_wanted(path, LOOKED_AT) == LOOKED_AT
    key = _KEY_FILE.match(data) or (_KEY_INSIDE.search(data) if whole else None)
    if key is not None:
        encrypted = b"ENCRYPTED" in key["kind"] or b"Proc-Type: 4,ENCRYPTED" in data
        return SecretFile(path, "a private key", "私钥", public, encrypted)
    for end, what, what_zh, pattern in _CREDENTIALS:
        if f"/{path}".endswith(end) and pattern.search(data):
            return SecretFile(path, what, what_zh, public)
    if not whole:
        return None
    if _ENV_FILE.fullmatch(posixpath.basename(path)):
        names = list(dict.fromkeys(_env_secrets(data)))
        if names:
            told = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            return SecretFile(path, f"a value of {told}", f"{told}的值", public)
    if KNOWN.search(data.decode("utf-8", "replace")):
        return SecretFile(path, "an access key or a token", "访问密钥或令牌", public)
    return None


def _env_secrets(data: bytes) -> Iterator[str]:
    for line in data.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition("=")
        name, value = re.sub(r"^export\s+", "", name.strip()), value.strip().strip("\"'")
        if _NAME.fullmatch(name) and value and not _PLACEHOLDER.fullmatch(value) and is_secret(name, value):
            yield name
