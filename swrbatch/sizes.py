"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import re
from fractions import Fraction

from .errors import UsageError, printable

GIB = 1024**3
_UNITS = {"": 1, "b": 1, "byte": 1, "bytes": 1} | {
    letter + suffix: base**power
    for power, letter in enumerate("kmgtpe", start=1)
    for suffix, base in (("", 1024), ("ib", 1024), ("b", 1000))
}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,19})?) ?([A-Za-z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes, rounded down, of `1024`, `500MB`, `1.5 GiB` or `2G`, in any case of letters.

    K, M, G, ... are KiB, MiB, GiB, ..., powers of 1024, as in the guide, where 2G is 2 GiB; kB, MB, GB, ... are powers
    of 1000. UsageError for anything else, and for 8 EiB or more.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower(), 0) if match else 0
    if match and (unit > 1 or (unit and "." not in match[1])) and (size := int(Fraction(match[1]) * unit)) < 2**63:
        return size
    raise UsageError(
        f"{printable(text)!r} is no size: write bytes (1048576), or a number with KiB, MiB, GiB, TiB or K, M, G, T "
        "(powers of 1024), or with kB, MB, GB, TB (powers of 1000), for example 2GiB, 1.5G, 500MB"
    )


def format_size(size: int, *, beside: int | None = None) -> str:
    """`size` to read: `2 GiB`, `1.2 GiB`, `35.5 KiB`, `512 bytes`; `2.0 GiB` is rounded, `2 GiB` exact.

    `beside` is the limit it is shown with: where the two would read alike, the bytes are added.
    """
    text, tenths = "1 byte" if size == 1 else f"{size} bytes", size * 10
    for power, name in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), start=1):
        if tenths < 10240:
            break
        tenths = (size * 10 + 1024**power // 2) // 1024**power
        text = f"{tenths // 10}.{tenths % 10} {name}" if size % 1024**power else f"{tenths // 10} {name}"
    if beside not in (None, size) and text.replace(".0 ", " ") == format_size(beside).replace(".0 ", " "):
        return f"{text} ({size} bytes)"
    return text


def counted(number: int, what: str) -> str:
    """A number of things for people: `1 event`, `2 events`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
