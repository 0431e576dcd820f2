"""A Dockerfile as values: instructions with their lines, flags, JSON forms and heredocs; faults are located, never raised.

The grammar is BuildKit's (moby/buildkit, frontend/dockerfile/parser). Unlike a builder, the parser goes on after a fault, so that
one wrong line does not hide what the others have. Text and number of instructions are bounded before anything is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from ..redaction import is_secret_name
from .grammar import faults_of
from .instructions import Comment, Dockerfile, Fault, Flag, Heredoc, Instruction, Pair
from .words import NotStrings, json_form, split_words, unquote

MAX_BYTES: Final = 1 << 20
MAX_INSTRUCTIONS: Final = 2_000
MAX_VARIABLES: Final = 2_000
"""Of ENV and ARG together: each stage has those of the one that it starts from."""
_MAX_FAULTS: Final = 1_000
_MAX_FLAGS: Final = 64
_DIRECTIVE: Final = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=(.+)")
_HEREDOC: Final = re.compile(r"(\d*)<<(-?)([^<]+)", re.ASCII)
_BLANK: Final = re.compile(r"[\t\v\f\r ]+")
_STRING: Final = ("MAINTAINER", "STOPSIGNAL", "USER", "WORKDIR")
_COMMAND: Final = ("RUN", "CMD", "ENTRYPOINT", "SHELL")
_OTHERS: Final = ("ADD", "COPY", "VOLUME", "ENV", "LABEL", "ARG", "FROM", "EXPOSE", "HEALTHCHECK", "ONBUILD")
KEYWORDS: Final = frozenset((*_STRING, *_COMMAND, *_OTHERS))


def parse_dockerfile(data: bytes) -> Dockerfile:
    """Parse the bytes of a Dockerfile. Nothing is raised: what is wrong stands in `faults`."""
    if len(data) > MAX_BYTES:
        told = Fault(line=1, column=1, message=f"the file has more than {MAX_BYTES} bytes", message_zh=f"文件超过{MAX_BYTES}字节")
        return Dockerfile(escape="\\", syntax=None, instructions=(), faults=(told,), comments=())
    return _Parser(data).parse()


@dataclass(frozen=True, slots=True)
class _Logical:
    """A logical line: continuation lines joined; `starts` are pairs of offset and line number."""

    text: str
    line: int
    starts: tuple[tuple[int, int], ...]


class _Parser:
    """The state of one parse; lines are numbered from 1, `_at` is the index of the next one."""

    def __init__(self, data: bytes) -> None:
        text = data.decode("utf-8", "replace").removeprefix("\ufeff")
        self._lines = [line.removesuffix("\r") for line in text.split("\n")]
        if self._lines[-1] == "":
            self._lines.pop()
        self._at = 0
        self._faults: list[Fault] = []
        self._comments: list[Comment] = []
        self._syntax: str | None = None
        self._escape = "\\"
        self._variables = MAX_VARIABLES
        self._endless: set[tuple[str, bool]] = set()
        if "\ufffd" in text and not self._valid(data):
            at = next(i for i, line in enumerate(self._lines) if "\ufffd" in line)
            self._fault(at + 1, "the text is not UTF-8", "文本不是UTF-8编码", self._lines[at].index("\ufffd") + 1)

    @staticmethod
    def _valid(data: bytes) -> bool:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True

    def _fault(self, line: int, message: str, message_zh: str, column: int = 1) -> None:
        if len(self._faults) < _MAX_FAULTS:
            self._faults.append(Fault(line=line, column=column, message=message, message_zh=message_zh))

    def parse(self) -> Dockerfile:
        self._directives()
        self._continued = re.compile(rf"(?:(?<=[^{re.escape(self._escape)}])|^){re.escape(self._escape)}[ \t]*$")
        found: list[Instruction] = []
        for count, logical in enumerate(self._logical_lines()):
            if count == MAX_INSTRUCTIONS:
                self._fault(logical.line, f"more than {MAX_INSTRUCTIONS} instructions", f"指令超过{MAX_INSTRUCTIONS}条")
                break
            instruction = self._instruction(logical)
            if instruction is not None:
                found.append(instruction)
        faults = sorted((*self._faults, *islice(faults_of(found), _MAX_FAULTS)), key=lambda fault: (fault.line, fault.column))
        return Dockerfile(
            escape=self._escape,
            syntax=self._syntax,
            instructions=tuple(found),
            faults=tuple(faults),
            comments=tuple(self._comments),
        )

    def _directives(self) -> None:
        """`# escape=` and `# syntax=`: only in the lines at the very top, before any other comment or blank line."""
        seen: set[str] = set()
        for number, line in enumerate(self._lines, 1):
            match = _DIRECTIVE.fullmatch(line.lstrip())
            if match is None:
                return
            key, value = match[1].lower(), match[2].strip()
            if key not in ("escape", "syntax", "check"):
                continue
            if key in seen:
                self._fault(number, f"the directive {key} is given twice", f"解析器指令{key}重复")
            seen.add(key)
            if key == "syntax":
                self._syntax = value
            if key == "escape" and value in ("\\", "`"):
                self._escape = value
            elif key == "escape":
                self._fault(number, "the escape character must be \\ or `", "转义字符只能是\\或`")

    def _logical_lines(self) -> Iterator[_Logical]:
        while self._at < len(self._lines):
            line = self._lines[self._at].lstrip()
            self._at += 1
            if line.startswith("#"):
                self._comment(line)
                continue
            start = self._at
            text, goes_on = self._uncontinued(line)
            if not goes_on and not text:
                continue
            starts = [(0, start)]
            while goes_on and self._at < len(self._lines):
                more = self._lines[self._at]
                self._at += 1
                if more.lstrip().startswith("#"):
                    self._comment(more.lstrip())
                    continue
                if not more.strip():
                    continue  # BuildKit warns, and reads on
                part, goes_on = self._uncontinued(more)
                starts.append((len(text), self._at))
                text += part
            if text.strip():
                yield _Logical(text, start, tuple(starts))

    def _uncontinued(self, line: str) -> tuple[str, bool]:
        match = self._continued.search(line)
        return (line[: match.start()], True) if match else (line, False)

    def _comment(self, line: str) -> None:
        self._comments.append(Comment(line=self._at, text=line.lstrip("#").strip()))

    def _instruction(self, logical: _Logical) -> Instruction | None:
        text = logical.text.strip()
        shift = len(logical.text) - len(logical.text.lstrip())
        word = _BLANK.split(text, maxsplit=1)[0]
        if word.upper() not in KEYWORDS:
            self._fault(logical.line, f"unknown instruction {word[:40]}", f"未知指令{word[:40]}")
            self._skip_heredocs(text)
            return None
        return self._known(
            _Logical(text, logical.line, tuple((max(0, at - shift), n) for at, n in logical.starts)), triggered=False
        )

    def _skip_heredocs(self, text: str) -> None:
        """What stands in a heredoc of a misspelt instruction is no instruction: skipped where its end is found."""
        before = self._at
        for name, _, strip_tabs, _ in _heredoc_words(text, self._escape):
            if self._heredoc_body(name, strip_tabs) is None:
                self._at = before

    def _known(self, logical: _Logical, *, triggered: bool) -> Instruction:
        """The instruction of a stripped logical line whose keyword is known."""
        keyword = _BLANK.split(logical.text, maxsplit=1)[0]
        flags, text = self._flags(logical.text[len(keyword) :].strip())
        keyword, offset = keyword.upper(), len(logical.text) - len(text)
        if keyword == "ONBUILD":
            flags, text, offset = (), logical.text[7:].strip(), len(logical.text) - len(logical.text[7:].strip())
        starts = tuple((max(0, at - offset), n) for at, n in logical.starts)
        trigger = self._trigger(_Logical(text, logical.line, starts)) if keyword == "ONBUILD" else None
        values, is_json, pairs, legacy = self._values(keyword, text, logical.line)
        if trigger is not None:
            values, is_json = trigger.values, trigger.is_json
        heredocs = trigger.heredocs if trigger is not None else ()
        if keyword in ("RUN", "COPY", "ADD") and not is_json:
            heredocs = self._heredocs(text, logical.line)
        comments, self._comments = (tuple(self._comments), []) if not triggered else ((), self._comments)
        return Instruction(
            keyword=keyword,
            line=logical.line,
            end_line=self._at,
            raw="\n".join(self._lines[logical.line - 1 : self._at]),
            text=text,
            flags=flags,
            values=values,
            is_json=is_json,
            pairs=pairs,
            legacy_pair=legacy,
            heredocs=heredocs,
            trigger=trigger,
            comments=comments,
            starts=starts,
        )

    def _trigger(self, logical: _Logical) -> Instruction | None:
        word = _BLANK.split(logical.text, maxsplit=1)[0].upper()
        if word not in KEYWORDS or word in ("ONBUILD", "FROM", "MAINTAINER"):
            self._fault(logical.line, f"ONBUILD cannot hold {word[:40] or 'nothing'}", f"ONBUILD后不能是{word[:40] or '空'}")
            return None
        return self._known(logical, triggered=True)

    def _flags(self, text: str) -> tuple[tuple[Flag, ...], str]:
        """The leading words that start with --, and the rest; a lone -- ends them."""
        flags: list[Flag] = []
        while text.startswith("--") and len(flags) < _MAX_FLAGS:
            word = split_words(text, self._escape, 1)[0]
            rest = text[_length(text, word) :].lstrip()
            if word == "--":
                return tuple(flags), rest
            name, equals, value = word[2:].partition("=")
            flags.append(Flag(name=name, value=unquote(value, self._escape) if equals else None))
            text = rest
        return tuple(flags), text

    def _values(self, keyword: str, text: str, line: int) -> tuple[tuple[str, ...], bool, tuple[Pair, ...], bool]:
        """Values, whether they are a JSON form, pairs, and whether the pair is in the old form without `=`."""
        if keyword == "HEALTHCHECK":
            kind, _, rest = text.partition(" ")
            values, is_json, _, _ = self._values("CMD", rest.strip(), line)
            return ((kind, *values) if kind else ()), is_json, (), False
        if keyword in (*_COMMAND, "ADD", "COPY", "VOLUME"):
            try:
                found = json_form(text)
            except NotStrings:
                self._fault(line, f"the JSON form of {keyword} must hold strings only", f"{keyword}的JSON数组只能包含字符串")
                found = None
            if found is not None:
                return found, True, (), False
        if keyword in (*_STRING, *_COMMAND):
            return ((text,) if text else ()), False, (), False
        if keyword in ("ENV", "LABEL", "ARG"):
            return self._pairs(keyword, text, line)
        return tuple(_BLANK.split(text)) if text else (), False, (), False

    def _pairs(self, keyword: str, text: str, line: int) -> tuple[tuple[str, ...], bool, tuple[Pair, ...], bool]:
        words = split_words(text, self._escape)
        if keyword != "LABEL":
            words = self._within_bounds(words, line)
        if keyword == "ARG":
            named = tuple(Pair(key=w.partition("=")[0], value=w.partition("=")[2] if "=" in w else None) for w in words)
            return tuple(words), False, named, False
        if words and "=" not in words[0]:
            key, *rest = _BLANK.split(text, maxsplit=1)
            if not rest:
                self._fault(
                    line, f"{keyword} needs a value: {keyword} {key[:40]}=value", f"{keyword}缺少值：{keyword} {key[:40]}=值"
                )
            value = rest[0] if rest else ""
            return (key, value), False, (Pair(key=key, value=value),), bool(rest)
        pairs: list[Pair] = []
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                # What follows a password that is not quoted is a part of it.
                shown = "***" if any(is_secret_name(pair.key) for pair in pairs) else word[:40]
                told = f"{shown} in {keyword} has no =: is a value with blanks not quoted?"
                self._fault(line, told, f"{keyword}中的{shown}没有等号：含空格的值是否未加引号？")
                continue
            pairs.append(Pair(key=key, value=value))
        return tuple(item for pair in pairs for item in (pair.key, pair.value or "")), False, tuple(pairs), False

    def _within_bounds(self, words: list[str], line: int) -> list[str]:
        """The words, as far as the file may have so many variables."""
        if len(words) > self._variables:
            self._fault(line, f"more than {MAX_VARIABLES} variables", f"变量超过{MAX_VARIABLES}个")
            words = words[: max(1, self._variables)]
        self._variables = max(0, self._variables - len(words))
        return words

    def _heredocs(self, text: str, line: int) -> tuple[Heredoc, ...]:
        found = []
        for name, descriptor, strip_tabs, expands in _heredoc_words(text, self._escape):
            first = self._at + 1
            content = self._heredoc_body(name, strip_tabs)
            if content is None:
                self._fault(line, f"the heredoc {name[:40]} has no end", f"heredoc {name[:40]}没有结束标记")
                content, self._at = "", len(self._lines)
            found.append(
                Heredoc(name=name, descriptor=descriptor, strip_tabs=strip_tabs, expand=expands, line=first, content=content)
            )
        return tuple(found)

    def _heredoc_body(self, name: str, strip_tabs: bool) -> str | None:
        if (name, strip_tabs) in self._endless:  # searched for before, so that many of them cost no more than one
            return None
        for at in range(self._at, len(self._lines)):
            line = self._lines[at]
            if (line.lstrip("\t") if strip_tabs else line) == name:
                body = self._lines[self._at : at]
                self._at = at + 1
                return "".join(f"{own}\n" for own in body)
        self._endless.add((name, strip_tabs))
        return None


def _length(text: str, word: str) -> int:
    """How much of `text`, which starts with this word, the word takes."""
    return len(word) if text.startswith(word) else len(text)


def _heredoc_words(text: str, escape: str) -> Iterator[tuple[str, int, bool, bool]]:
    """Name, descriptor, whether tabs are stripped, whether variables are expanded, of each heredoc that a line opens."""
    for word in split_words(text, escape) if "<<" in text else ():
        match = _HEREDOC.fullmatch(word)
        if match is None:
            continue
        name = re.sub(r"[\"']", "", match[3])
        if name:
            yield name, int(match[1] or 0), bool(match[2]), name == match[3]
