"""A YAML file of ours that says what is wanted, read into plain values; every fault is located by line and column.

A schema is the contract; unknown keys are refused. A text that is no number, true, false or null is a text, whatever YAML 1.1
took it for (`off`, `no`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .errors import UsageError, printable
from .schemas import validator
from .yamltree import Alias, BadYaml, Node, Scalar, Sequence, read_tree

MAX_FILE: Final = 1 << 20
MAX_VALUES: Final = 100_000
"""Values of a file, however often aliases repeat them."""
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_WORDS: Final[Mapping[str, Any]] = {"true": True, "false": False, "null": None, "~": None, "": None}
Place = tuple[str | int, ...]
"""Keys and positions that lead to a value."""


class SettingsFile:
    """The reading of one file, called `what` in messages; `schema` is the name of its schema in `schemas/`."""

    def __init__(self, path: str, what: str, schema: str) -> None:
        self.path = path
        self.what = what
        self.schema = schema
        self.text = ""
        self.values = 0
        self.where: dict[Place, int] = {}
        self.faults: list[tuple[int, Place, str]] = []

    @property
    def _named(self) -> str:
        return f"the {self.what} {printable(self.path)}"

    def read(self) -> Any:
        """The values of the file, as the schema has them. UsageError with all faults, each as `FILE:LINE:COLUMN: place: what`."""
        self.text = self._text()
        try:
            roots = read_tree(self.text)
        except BadYaml as e:
            raise UsageError(f"{printable(self.path)} is no YAML: {e}") from e
        if len(roots) != 1:
            raise UsageError(f"{printable(self.path)} holds {len(roots)} documents: a {self.what} is one")
        value = self._value(roots[0], (), 0)
        self._check_schema(value)
        self.stop()
        return value

    def _text(self) -> str:
        try:
            with open(self.path, "rb") as f:
                raw = f.read(MAX_FILE + 1)
        except OSError as e:
            raise UsageError(f"{self._named} cannot be read: {e.strerror}") from e
        if len(raw) > MAX_FILE:
            raise UsageError(f"{self._named} is larger than 1 MiB")
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as e:
            raise UsageError(f"{self._named} is no UTF-8 text: byte {e.start + 1}") from e

    def stop(self) -> None:
        """Raise what was found so far, if anything, as one UsageError."""
        if self.faults:
            lines = [self._line(*each) for each in sorted(self.faults, key=lambda each: each[0])]
            raise UsageError("\n".join(dict.fromkeys(lines)))

    def _line(self, at: int, place: Place, what: str) -> str:
        before = self.text[:at]
        line, column = before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1
        named = "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in place).removeprefix(".")
        return f"{printable(self.path)}:{line}:{column}: {f'{named}: ' if named else ''}{what}"

    # --- values --------------------------------------------------------------------------------------------------------

    def _value(self, node: Node, place: Place, depth: int) -> Any:
        self.values += 1
        if self.values > MAX_VALUES or depth > 50:
            most = f"{MAX_VALUES} values, 50 levels"
            raise UsageError(f"{self._named} is too large: at most {most}, aliases counted where they stand")
        self.where.setdefault(place, node.start)
        if isinstance(node, Alias):
            return self._value(node.target, place, depth + 1)
        if isinstance(node, Scalar):
            return self._scalar(node, place)
        if isinstance(node, Sequence):
            return [self._value(item, (*place, number), depth + 1) for number, item in enumerate(node.items)]
        return dict(self._pairs(node, place, depth))

    def _pairs(self, node: Any, place: Place, depth: int) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key, item in node.pairs:
            if not isinstance(key, Scalar):
                self.faults.append((key.start, place, "a key must be a text"))
                continue
            if key.value in seen:
                self.faults.append((key.start, (*place, key.value), "it stands here twice"))
            seen.add(key.value)
            self.where[(*place, key.value)] = key.start
            yield key.value, self._value(item, (*place, key.value), depth + 1)

    def _scalar(self, node: Scalar, place: Place) -> Any:
        value = self.plain(node, place)
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value)):
            self.faults.append((node.start, place, "it holds a NUL or half a character, which no name, path or text can have"))
            return ""
        return value

    def plain(self, node: Scalar, place: Place) -> Any:
        """What a scalar at a place stands for."""
        del place
        if node.style is not None:
            return node.value
        if node.value in _WORDS:
            return _WORDS[node.value]
        return int(node.value) if _INTEGER.fullmatch(node.value) else node.value

    # --- the schema ----------------------------------------------------------------------------------------------------

    def _check_schema(self, value: Any) -> None:
        for error in validator(self.schema).iter_errors(value):
            place: Place = tuple(error.absolute_path)
            if error.validator == "additionalProperties" and isinstance(error.instance, dict):
                allowed = sorted(error.schema.get("properties", ()))
                for key in sorted(set(error.instance) - set(allowed)):
                    self.fault((*place, key), f"unknown key; there are {', '.join(allowed)}")
            elif error.validator == "required":
                missing = [key for key in error.validator_value if key not in error.instance]
                self.fault(place, f"{', '.join(missing)} is missing")
            else:
                self.fault(place, _said(error))

    def fault(self, place: Place, what: str) -> None:
        """Note what is wrong at a place."""
        known = place
        while known not in self.where:
            known = known[:-1]
        self.faults.append((self.where[known], place, what))


class Told:
    """Locates a UsageError of what is read within."""

    def __init__(self, reading: SettingsFile, place: Place) -> None:
        self._reading = reading
        self._place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, UsageError):
            return False
        self._reading.fault(self._place, str(error))
        return True


def _said(error: Any) -> str:
    """A fault of the schema in words; what it is not is more use than what it is."""
    shown = printable(repr(error.instance), 60)
    if error.validator == "enum":
        allowed = dict.fromkeys(str(each).lower() for each in error.validator_value)
        return f"{shown} is none of {', '.join(allowed)}"
    if error.validator == "type":
        words = {"object": "a mapping", "array": "a list", "string": "a text (quote it)", "integer": "a number"}
        return f"{shown} is not {words[error.validator_value]}"
    if error.validator == "anyOf":
        return f"{shown} is no number or size"
    if error.validator in ("minLength", "minItems"):
        return "it is empty"
    if error.validator == "pattern":
        return f"{shown} is not ORG/REPO"
    return str(error.message)
