"""The Dockerfile parser: odd forms, compared with BuildKit's own parser in Go; located faults; bounds; no input raises."""

from __future__ import annotations

import time
from itertools import pairwise

import dockerfile as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swrbatch.lint.build import plan_build
from swrbatch.lint.check import lint_dockerfile
from swrbatch.lint.dockerfile import KEYWORDS, MAX_BYTES, MAX_INSTRUCTIONS, parse_dockerfile
from swrbatch.lint.instructions import Dockerfile
from swrbatch.lint.words import expand, unquote

FORMS = [
    'CMD ["a"] b', 'CMD ["a"] ', 'RUN [ "a" , "b" ]', 'COPY ["a b","c"]', "CMD ['a']", "RUN [a]", "RUN [ -f x ] && y",
    'CMD ["a", \\\n "b"]', "CMD [", "ENTRYPOINT []", "CMD", "RUN", 'onbuild run ["a"]', 'VOLUME ["/a"]', 'SHELL ["a","b"]',
    'CMD ["\\u00e9\\n"]', 'RUN ["a"', "SHELL a", "RUN \\\n# c\n\n  a \\\n  b", "RUN a\\\\\nRUN b", "RUN a \\", "RUN a \\ \n b",
    "RUN a \\\n\n\nRUN b", "RUN a \\\n\\\n b", "RUN a \\\t \n b", "RUN echo \\\n  # x \\\n  y", 'RUN echo "a \\\n# in\n b"', "\\\nRUN a",
    'LABEL a="b c" d=\'e f\'', "LABEL a b c", "ENV a=b\\ c d=\"x\\\"y\"", "ENV a b  c", "ENV  a=b \\\n  c=d", "ENV a= b=", "ENV =x",
    "LABEL a='b", 'LABEL "a b"=c', 'ENV a="b\\\n c"', "ENV a=$b${c:-d}", 'ARG a b=c "d=e f"', "ENV a=''", "ENV a=b=c",
    "RUN cat <<A <<-B\nx\nA\n\ty\n\tB", 'RUN <<"E"\n$x\nE', "RUN <<'E'\n$x\nE", "COPY <<E /f\nhi\nE", 'RUN echo "<<E"', "RUN cat << E",
    "RUN cat 3<<E\nq\nE", "RUN cat <<E > /x && cat <<F\n1\nE\n2\nF", "RUN <<EOF cat\nx\nEOF", "RUN cat <<EOF|sh\nx\nEOF|sh\n",
    "RUN <<E\nFROM y\n# no comment\n\\\nE\nRUN z", "RUN <<E\n E\nE", "RUN cat <<<word", "ADD <<E <<F /d/\n1\nE\n2\nF", "ENV a=<<E",
    'HEALTHCHECK CMD ["a","b"]', "HEALTHCHECK --interval=1s --retries=2 \\\n CMD a", "HEALTHCHECK none", "HEALTHCHECK --x CMD a",
    "ONBUILD RUN x", "ONBUILD ENV a=b", "MAINTAINER me <a@b>", "EXPOSE 80  443/tcp", "VOLUME /a /b", "USER a b", "WORKDIR /a b",
    "RUN --mount=type=cache,target=/x --network=none foo --bar", 'RUN --mount="type=cache, target=/x" y', "COPY -- a b",
    "COPY --chown=a:b --link x y z/", "STOPSIGNAL 9", "  RUN indented", "RUN a # no comment", "\tRUN a\t", "RUN\ta", "run a", "rUn b",
    "RUN a\r\n\r\nRUN b \\\r\n  c\r\n", "RUN é ü", "\n\n\nRUN x\n\n#c\n", "#c\n # d\nRUN x", "FROM --platform=$BUILDPLATFORM y AS z",
    "FROM y as z", "COPY --from=x --from=y a b", "RUN --mount=type=bind,source=a,target=b \\\n --mount=type=tmpfs,target=/t \\\n c",
]  # fmt: skip


def ours(text: str) -> list[tuple[object, ...]]:
    return [
        (
            found.keyword,
            found.trigger.keyword if found.trigger else None,
            found.is_json,
            tuple(map(str, found.flags)),
            (found.line, found.end_line),
            found.values,
            tuple((heredoc.name, heredoc.descriptor, heredoc.content) for heredoc in found.heredocs),
        )
        for found in parse_dockerfile(text.encode()).instructions
    ]


def theirs(text: str) -> list[tuple[object, ...]]:
    return [
        (
            found.cmd.upper(),
            found.sub_cmd.upper() if found.sub_cmd else None,
            found.json,
            found.flags,
            (found.start_line, found.end_line),
            found.value,
            tuple((heredoc.name, heredoc.file_descriptor, heredoc.content) for heredoc in found.heredocs),
        )
        for found in oracle.parse_string(text)
    ]


@pytest.mark.parametrize("form", FORMS)
def test_as_buildkit_parses_it(form: str) -> None:
    assert len(FORMS) > 60
    text = f"FROM x\n{form}"
    assert ours(text) == theirs(text)


@pytest.mark.parametrize("form", FORMS)
def test_with_a_backtick_as_escape(form: str) -> None:
    text = "# syntax=docker/dockerfile:1\n# Escape = `\nFROM x\n" + form.replace("\\", "`")
    assert ours(text) == theirs(text)


@pytest.mark.parametrize("form", ["RUN x <<E\nno end", "CMD [1]", 'COPY ["a", 1]', "ENV a", "LABEL a=b c", "# escape=x\nRUN a"])
def test_what_buildkit_refuses_is_a_fault(form: str) -> None:
    text = form if form.startswith("#") else f"FROM x\n{form}"
    with pytest.raises(oracle.GoParseError):
        oracle.parse_string(text)
    assert parse_dockerfile(text.encode()).faults


def faults(text: str) -> list[tuple[int, str]]:
    return [(fault.line, fault.message) for fault in parse_dockerfile(text.encode()).faults]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("FROM x\nADD ./app\n", 2, "source and a destination"),
        ("FROM x\nFOO y\n", 2, "unknown instruction FOO"),
        ("RUN a\nFROM x\n", 1, "must be first"),
        ("ARG a=1\n", 1, "no FROM"),
        ("", 1, "no FROM"),
        ("FROM x y\n", 1, "one image"),
        ("FROM x\nRUN --mont=a b\n", 2, "no flag --mont"),
        ("FROM x\nONBUILD FROM y\n", 2, "ONBUILD cannot hold FROM"),
        ("FROM x\nONBUILD ADD y\n", 2, "source and a destination"),
        ("FROM x\nONBUILD\n", 2, "ONBUILD cannot hold nothing"),
        ("FROM x\nHEALTHCHECK curl x\n", 2, "CMD and a command"),
        ("FROM x\nHEALTHCHECK CMD\n", 2, "CMD and a command"),
        ("FROM x\nSHELL bash\n", 2, "JSON array"),
        ("FROM x\nRUN\n", 2, "RUN has no arguments"),
        ("FROM x\n\n\nRUN <<E\nx\n", 4, "no end"),
        ("# escape=`\n# escape=`\nFROM x\n", 2, "given twice"),
        ("FROM x\nLABEL a=b c d=e\n", 2, "c in LABEL has no ="),
    ],
)
def test_faults_say_where_and_what(text: str, line: int, words: str) -> None:
    assert [(at, words in message) for at, message in faults(text)] == [(line, True)]


@pytest.mark.parametrize(
    "text", ["FROM x\nCMD\n", "ARG a\nFROM $a\n", "FROM scratch\nCOPY <<E /x\nE\n", "FROM x AS y\nHEALTHCHECK NONE"]
)
def test_no_faults(text: str) -> None:
    assert faults(text) == []


def test_what_is_not_utf8_is_told_with_its_place_and_read_on() -> None:
    found = parse_dockerfile(b"FROM x\nLABEL a=\xff\nRUN y\n")
    assert [(fault.line, fault.column) for fault in found.faults] == [(2, 9)]
    assert [one.keyword for one in found.instructions] == ["FROM", "LABEL", "RUN"]
    assert parse_dockerfile("FROM x\nLABEL a=\ufffd\n".encode()).faults == ()
    assert parse_dockerfile(b"\xef\xbb\xbfFROM x\n").faults == ()


def test_bounds() -> None:
    assert "bytes" in parse_dockerfile(b"#" * (MAX_BYTES + 1)).faults[0].message
    many = parse_dockerfile(b"FROM x\n" + b"RUN y\n" * MAX_INSTRUCTIONS)
    assert len(many.instructions) == MAX_INSTRUCTIONS
    assert many.faults[0].line == MAX_INSTRUCTIONS + 1


def test_deep_json_is_a_shell_command() -> None:
    text = "[" * 100_000
    assert not parse_dockerfile(f"FROM x\nCMD {text}".encode()).instructions[1].is_json


def test_raw_text_lines_comments_and_heredocs() -> None:
    text = "# top\nFROM x\n# above\nRUN a \\\n  # inside\n  && b\nRUN <<-E\n\thi\n\tE\n# end\n"
    found = parse_dockerfile(text.encode())
    run, document = found.instructions[1:]
    assert (run.line, run.end_line, run.raw) == (4, 6, "RUN a \\\n  # inside\n  && b")
    assert [(one.line, one.text) for one in run.comments] == [(3, "above"), (5, "inside")]
    assert [run.line_at(run.text.index(part)) for part in ("a", "b")] == [4, 6]
    assert (document.line, document.end_line) == (7, 9)
    assert [(one.line, one.strip_tabs, one.expand) for one in document.heredocs] == [(8, True, True)]
    assert [one.text for one in found.comments] == ["end"]


def test_the_line_of_a_command_inside_a_run() -> None:
    text = "FROM x\nRUN --network=none a \\\n # c\n  && bb \\\n  && cc\nRUN <<E\na\n\nbb\nE\n"
    first, second = plan_build(parse_dockerfile(text.encode())).stages[0].steps
    assert [(one.name, first.line_of(one)) for one in first.commands or ()] == [("a", 2), ("bb", 4), ("cc", 5)]
    assert [(one.name, second.line_of(one)) for one in second.commands or ()] == [("a", 7), ("bb", 9)]


@pytest.mark.parametrize(
    ("word", "text", "missing"),
    [
        ("$a", "1", ()), ("${a}b", "1b", ()), ("$ab", "", ("ab",)), ("'$a'", "$a", ()), ('"$a"', "1", ()), ("\\$a", "$a", ()),
        ("${z:-d}", "d", ()), ("${e:-d}", "d", ()), ("${e-d}", "", ()), ("${a:+d}", "d", ()), ("${z+d}", "", ()), ("$u", None, ()),
        ("${z:-$a}", None, ()), ("${a#x}", None, ()), ("${a", None, ()), ("a$", "a$", ()), ("${z}", "", ("z",)), ("${u:-d}", None, ()),
    ],
)  # fmt: skip
def test_variables(word: str, text: str | None, missing: tuple[str, ...]) -> None:
    found = expand(word, "\\", {"a": "1", "e": "", "u": None})
    assert (found.text, found.missing) == (text, missing)


@pytest.mark.parametrize(
    ("word", "text"), [("a", "a"), ("'a b'", "a b"), ('"a\\"b"', 'a"b'), ('"a\\b"', "a\\b"), ("a\\ b", "a b")]
)
def test_unquote(word: str, text: str) -> None:
    assert unquote(word) == text


def test_stages_and_arguments() -> None:
    text = "ARG v=1\nARG w\nFROM a:$v AS One\nENV p=/x\nARG v\nARG q=2\nFROM one\nWORKDIR $p/$q\nFROM $w\nFROM $nothing\n"
    build = plan_build(parse_dockerfile(text.encode()))
    assert [stage.base for stage in build.stages] == ["a:1", "one", None, ""]
    assert build.stages[1].parent is build.stages[0] and build.stages[1].root == "a:1"
    assert build.stages[1].steps[0].missing == ("q",)  # ARGs end with their stage, ENV is inherited
    assert build.stages[3].missing == ("nothing",)


LINES = st.lists(
    st.one_of(
        st.sampled_from([*FORMS, "FROM a", "# x", "", "\\", "<<E", "E", '["', "--", "$", "${"]),
        st.builds(lambda word, rest: f"{word} {rest}", st.sampled_from(sorted(KEYWORDS)), st.text(max_size=30)),
    ),
    max_size=12,
)


@given(LINES)
def test_no_text_raises_and_lines_are_in_order(lines: list[str]) -> None:
    found: Dockerfile = parse_dockerfile("\n".join(lines).encode("utf-8", "surrogatepass"))
    plan_build(found)
    spans = [(one.line, one.end_line) for one in found.instructions]
    assert all(start <= end for start, end in spans)
    assert all(before[1] < after[0] for before, after in pairwise(spans))


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    plan_build(parse_dockerfile(data))


@pytest.mark.parametrize(
    "data",
    [
        b"FOO <<E\n" * 100_000,
        b"RUN " + b"--a=b " * 150_000,
        b"RUN " + b"<<E " * 100_000,
        b"RUN a " + b"\\\n#\n" * 200_000,
        b"RUN " + b"(" * 500_000,
    ],
    ids=["endless heredocs", "flags", "heredocs of one line", "comments inside", "brackets"],
)
def test_hostile_files_end_soon(data: bytes) -> None:
    start = time.process_time()
    plan_build(parse_dockerfile(b"FROM x\n" + data))
    assert time.process_time() - start < 5


def test_variables_that_double_each_other_end_as_unknown() -> None:
    lines = ["ARG A=aaaaaaaaaa", *["ARG A=$A$A"] * 200, "FROM $A", "ENV B=x", *["ENV B=${B}${B}"] * 200, 'RUN echo "$B"']
    assert not {"floating-tag", "syntax"} & {one.rule for one in lint_dockerfile("\n".join(lines).encode(), "Dockerfile")}
    assert expand("$A" * 10, "\\", {"A": "x" * 10_000}).text is None
    assert expand("$A" * 5, "\\", {"A": "x" * 10_000}).text == "x" * 50_000
