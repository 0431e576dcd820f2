"""What looks like a secret in names, values and commands, and texts without it.

Names count by whole words (`DB_PASSWORD`, not `COMPASSWORD`); `*_FILE`, `*_PUBLIC_*`, `GPG_KEY` and the like are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

_SECRET: Final = frozenset(["PASSWORD", "PASSWD", "PASSPHRASE", "PWD", "SECRET", "TOKEN", "APIKEY", "CREDENTIAL", "CREDENTIALS"])
_KEYS: Final = frozenset(["API", "ACCESS", "SECRET", "PRIVATE", "ENCRYPTION", "SIGNING", "SSH"])
_HARMLESS: Final = frozenset(
    ["FILE", "PATH", "PUBLIC", "VERSION", "GPG", "URL", "LENGTH", "TTL", "EXPIRY", "ALLOW", "REQUIRE", "NAME", "ID", "DIR"]
)
_NO_SECRET: Final = re.compile(r"|yes|no|true|false|on|off|[01]|(?:/[\w.@-]+)+/?|\$\w+|\$\{.*|\$\(.*|<.*>", re.IGNORECASE)
KNOWN: Final = re.compile(
    r"A(?:KIA|SIA)(?!IOSFODNN7EXAMPLE)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22}[A-Za-z0-9_]*"
    r"|glpat-[A-Za-z0-9_-]{20}[A-Za-z0-9_-]*|xox[abprs]-[0-9A-Za-z-]{20}[0-9A-Za-z-]*|npm_[A-Za-z0-9]{36}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)
"""Access keys and tokens that look like nothing else, and the head of a private key."""


def is_secret_name(name: str) -> bool:
    """Whether a variable's name says that its value is a secret."""
    words = [word for word in re.split(r"[_.-]", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()) if word]
    if set(words) & _HARMLESS or words in (["PWD"], ["OLDPWD"]):
        return False
    return bool(set(words) & _SECRET) or any(a in _KEYS and b == "KEY" for a, b in pairwise(words))


def is_secret(name: str, value: str) -> bool:
    """Whether a variable holds a secret: by its name and a value that is one, or by the value alone."""
    return (is_secret_name(name) and not _NO_SECRET.fullmatch(value)) or KNOWN.search(value) is not None


_MOST_VALUES: Final = 200
# A value in quotes may have blanks; one that begins with $ is a variable.
_VALUE: Final = r"(?:\"(?!\$)[^\"]+\"|'(?!\$)[^']+'|(?!\$)[^\s\"',\]]+)"
_TELLING: Final = r"(?:pass(?:word|wd|phrase)?|token|secret|api[_-]?key|access[_-]?key)"
# Behind a name without = or : an operator of the shell is no value; in JSON a comma stands between two words.
_IN_COMMAND: Final = re.compile(
    rf"((?<!\$){_TELLING}[\"']?(?:\s*[=:]\s*|\s*,\s*(?=[\"'])|\s+(?![<>|&;()])))({_VALUE})", re.IGNORECASE
)
_OPTION: Final = re.compile(rf"-{{1,2}}[\w-]*{_TELLING}", re.IGNORECASE)
_LOGIN: Final = re.compile(rf"(\blogin\b[^\n]{{0,200}}?\s-(?:p|-password)[\s=]+)({_VALUE})")
_ASSIGNED: Final = re.compile(rf"(?<![\w.-])(-{{0,2}}([A-Za-z_][\w.-]{{0,100}})=)({_VALUE})")
_WHOLE_KEY: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*", re.DOTALL)
_IN_ADDRESS: Final = re.compile(r"(://[^/\s:@]*:)[^\s/]+@")
_BEARER: Final = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}")


def secret_values(pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The values of variables (name, value) that look like secrets, to be kept out of all texts; the longest first."""
    found = {value for name, value in pairs if len(value) > 3 and is_secret(name, value)}
    return tuple(sorted(found, key=lambda each: (-len(each), each)))


def redacted(text: str, values: Sequence[str] = ()) -> str:
    """The text of a command without what is a secret in it: these values, known forms, values after telling names.

    Of a text that would have to be searched for more than `_MOST_VALUES` of them nothing is shown.
    """
    if len(values) > _MOST_VALUES:
        return "***"
    for value in values:
        text = text.replace(value, "***")
    text = _WHOLE_KEY.sub("***", text)
    text = _IN_ADDRESS.sub(r"\1***@", KNOWN.sub("***", text))
    text = _ASSIGNED.sub(lambda found: found[1] + _hidden(found[3]) if is_secret(found[2], _bare(found[3])) else found[0], text)
    text = _BEARER.sub(r"\1 ***", text)
    for pattern in (_LOGIN, _IN_COMMAND):
        text = pattern.sub(lambda found: found[1] + _hidden(found[2]), text)
    return text


def redacted_words(words: Sequence[str], values: Sequence[str] = ()) -> tuple[str, ...]:
    """The words of a command, each without what is a secret in it; what follows an option that is named like one is hidden."""
    found = []
    hidden = False
    for word in words:
        found.append("***" if hidden else redacted(word, values))
        hidden = _OPTION.fullmatch(word) is not None or (
            word.startswith("-") and "=" not in word and is_secret_name(word.strip("-"))
        )
    return tuple(found)


def assigned(text: str) -> Iterator[tuple[str, str]]:
    """Name and value of each `NAME=value` in a command."""
    return ((found[2], _bare(found[3])) for found in _ASSIGNED.finditer(text))


def _hidden(value: str) -> str:
    """What stands for a value; its quotes stay, so that the rest reads as before."""
    return f"{value[0]}***{value[0]}" if value[0] in "\"'" else "***"


def _bare(value: str) -> str:
    return value.strip("\"'")
