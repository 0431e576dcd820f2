"""Conditions of triggers: the automaton against a naive matcher, its growth, and what is said of bad patterns and names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swrbatch import UsageError
from swrbatch.trigger_patterns import MAX_NESTING, MAX_PATTERN, Condition, Pattern, why_invalid_trigger_name

# --- a naive matcher ---------------------------------------------------------------------------------------------------

Item = str | tuple["Sequence", ...]
"""A character, a wildcard, or the options of braces."""
Sequence = tuple[Item, ...]


def ends(sequence: Sequence, tag: str, at: int) -> Iterator[int]:
    """Where in `tag` a match of the sequence that begins at `at` can end, by the guide's words, trying everything."""
    if not sequence:
        yield at
        return
    item, rest = sequence[0], sequence[1:]
    if isinstance(item, tuple):
        stops = [stop for option in item for stop in ends(option, tag, at)]
    elif item == "**":
        stops = list(range(at, len(tag) + 1))
    elif item == "*":
        stops = [stop for stop in range(at, len(tag) + 1) if "/" not in tag[at:stop]]
    elif item == "?":
        stops = [at + 1] if at < len(tag) and tag[at] != "/" else []
    else:
        stops = [at + 1] if tag[at : at + 1] == item else []
    for stop in set(stops):
        yield from ends(rest, tag, stop)


def written(sequence: Sequence) -> str:
    return "".join("{" + ",".join(map(written, item)) + "}" if isinstance(item, tuple) else item for item in sequence)


def apart(items: list[Item]) -> Sequence:
    """Without two stars side by side, which would be read as another wildcard, and without empty braces."""
    kept: list[Item] = []
    for item in items:
        if kept and isinstance(item, str) and isinstance(kept[-1], str) and item[0] == "*" == kept[-1][0]:
            kept.append("a")
        kept.append(item)
    return tuple(item for item in kept if not isinstance(item, tuple) or any(item))


SEQUENCES = st.recursive(
    st.lists(st.sampled_from([*"ab/v-.", "*", "**", "?"]), max_size=4).map(apart),
    lambda inner: st.lists(
        st.sampled_from([*"ab/", "*", "**", "?"]) | st.lists(inner, min_size=1, max_size=3).map(tuple), max_size=4
    ).map(apart),
    max_leaves=8,
).filter(lambda sequence: written(sequence)[:1] not in ("", ".", "-"))


@given(SEQUENCES, st.text("abv/-.", max_size=7))
@example(("**", "a"), "b/a")
@example(("*", "a"), "b/a")
@example(("*", (("*",), ("a",)), "a"), "aaa")
@example(((("a",), ()), "b"), "b")
@example((("*", "**"), "/"), "a/")
def test_the_automaton_says_what_the_naive_matcher_says(sequence: Sequence, tag: str) -> None:
    compiled = Pattern(written(sequence))
    matched, steps = compiled.run(tag)
    assert matched == compiled.matches(tag) == (len(tag) in ends(sequence, tag, 0))
    assert steps <= len(compiled.text) * len(tag)


@given(SEQUENCES)
def test_spaces_around_options_do_not_count(sequence: Sequence) -> None:
    """The guide writes `{option 1, option 2, ...}`."""
    text = written(sequence)
    spaced = text.replace(",", " ,  ").replace("{", "{ ").replace("}", " }")
    for tag in map("".join, itertools.product("ab/", repeat=3)):
        assert Pattern(spaced).matches(tag) == Pattern(text).matches(tag)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("v*", ["v", "v1", "v1.2"], ["1", "av1", "v1/2", "V1"]),
        ("v**", ["v", "v1/2/3"], ["av"]),
        ("v?", ["v1"], ["v", "v12", "v/"]),
        ("{v1, v2}", ["v1", "v2"], ["v3", "v1,", " v2"]),
        ("v{1,2{a,b}}-*", ["v1-", "v2a-x", "v2b-"], ["v2-x"]),
        ("1.?.0{,-rc*}", ["1.2.0", "1.2.0-rc1"], ["1.2.01", "1x2.0"]),
        ("release-*", ["release-2026.1"], ["prerelease-1"]),
        ("***", ["", "a", "a/b"], []),
        ("a/**/b", ["a//b", "a/x/y/b"], ["a/b"]),
    ],
)
def test_examples(pattern: str, yes: list[str], no: list[str]) -> None:
    condition = Condition.parse("regular", pattern)
    assert [tag for tag in (*yes, *no) if condition.matches(tag)] == yes


# --- growth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["*a", "**", "{a,aa}", "{*,a}", "{a*,*a}", "?*"])
def test_steps_grow_with_pattern_times_tag(unit: str) -> None:
    """On what makes backtracking matchers exponential: doubling either doubles the steps, and no more."""

    def steps(times: int, length: int) -> int:
        pattern = Pattern(unit * times + "b")
        matched, taken = pattern.run("a" * length)
        assert not matched
        return taken

    base = steps(10, 200)
    assert base <= len(unit * 10) * 200
    assert steps(20, 200) <= 2.2 * base + 200 * len(unit)
    assert steps(10, 400) <= 2.2 * base


def test_the_largest_pattern_is_compiled_and_run() -> None:
    pattern = Pattern("*" + "?*" * ((MAX_PATTERN - 1) // 2))
    matched, steps = pattern.run("a" * 128)
    assert not matched and steps <= MAX_PATTERN * 128


# --- the three kinds ---------------------------------------------------------------------------------------------------


def test_kinds() -> None:
    for text in ("", ".*"):
        condition = Condition.parse("all", text)
        assert condition.text == ".*" and condition.matches("anything")
    assert Condition.parse("tag", "v1.0").matches("v1.0") and not Condition.parse("tag", "v1.0").matches("v1x0")
    assert Condition.parse("regular", "v?") == Condition.parse("regular", "v?") != Condition.parse("regular", "v*")
    for kind, text, said in (
        ("all", "v1", "use tag or regular"),
        ("tag", "v*", "use regular for wildcards"),
        ("tag", "", "empty"),
        ("glob", "v1", "it is one of all, tag, regular"),
    ):
        with pytest.raises(UsageError, match=said):
            Condition.parse(kind, text)


@pytest.mark.parametrize(
    ("pattern", "place", "said"),
    [
        ("", "character 1:", "empty"),
        ("  ", "character 1, ' '", "empty"),
        (".*", "character 1, '.'", "use the type all"),
        ("-x", "character 1, '-'", "no tag begins with -"),
        ("^v.*$", "character 1, '^'", "no tag has this character"),
        ("v[0-9]", "character 2, '['", "wildcards"),
        ("v\\d", "character 2", "wildcards"),
        ("v 1", "character 2, ' '", "no tag has this character"),
        ("{a b}", "character 3, ' '", "no tag has this character"),
        ("v{1,2", "character 2, '{'", "not closed"),
        ("v{1,{2,3}", "character 2, '{'", "not closed"),
        ("v1}", "character 3, '}'", "no brace is open"),
        ("v1,v2", "character 3, ','", "outside of braces"),
        ("v{}", "character 2, '{'", "no options"),
        ("v{ }", "character 2, '{'", "no options"),
        ("版本*", "character 1, '版'", "no tag has this character"),
        ("v\n", "character 2", "no tag has this character"),
        ("v" * (MAX_PATTERN + 1), f"character {MAX_PATTERN + 1}", "at most"),
        ("{" * (MAX_NESTING + 1) + "a" + "}" * (MAX_NESTING + 1), f"character {MAX_NESTING + 1}, '{{'", "nested deeper"),
    ],
)
def test_bad_patterns_are_located(pattern: str, place: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Pattern(pattern)
    assert place in str(caught.value) and said in str(caught.value) and "guide 4.7" in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.text(max_size=30) | st.text("ab{},*? ./", max_size=30))
def test_any_text_is_a_pattern_or_told(text: str) -> None:
    try:
        compiled = Pattern(text)
    except UsageError:
        return
    assert compiled.run("a" * 20)[1] <= len(text) * 20


# --- names -------------------------------------------------------------------------------------------------------------


def test_names_of_triggers() -> None:
    """Table 4-3, over all short texts: the rule in words against the check."""
    for length in range(1, 6):
        for name in map("".join, itertools.product("aZ9_-.", repeat=length)):
            rule = name[0].isalpha() and "." not in name and name[-1] not in "_-"
            rule = rule and not any(a in "_-" and b in "_-" for a, b in itertools.pairwise(name))
            assert (why_invalid_trigger_name(name) == "") == rule, name
    assert why_invalid_trigger_name("All_tags") == "" and why_invalid_trigger_name("a" * 64) == ""
    assert "64 at most" in why_invalid_trigger_name("a" * 65)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "empty"),
        ("1a", "begins with no letter"),
        ("a__b", "character 2"),
        ("a-_b", "side by side"),
        ("a-", "ends with"),
        ("a.b", "character 2, '.'"),
        ("触发器", "begins with no letter"),
        ("a\n", "character 2"),
        ("é", "begins with no letter"),
    ],
)
def test_bad_names(name: str, said: str) -> None:
    assert said in why_invalid_trigger_name(name) and why_invalid_trigger_name(name).isprintable()


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_told(name: str) -> None:
    assert (why_invalid_trigger_name(name) == "") == (
        re.fullmatch("[A-Za-z]([_-]?[A-Za-z0-9])*", name) is not None and len(name) <= 64
    )
