"""The registry's rules: names, limits, renaming (guide 1.5, 4.1, 4.3, 9.3.2, 9.3.3)."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swrbatch.errors import UsageError, codes_of
from swrbatch.policy import (
    PATTERNS,
    PROFILES,
    Limits,
    Naming,
    Part,
    Reference,
    is_registry,
    limits_for,
    normalise,
    parse_reference,
    same_registry,
    upload_seq,
    why_invalid,
)
from swrbatch.rename import Rename, load_rename
from swrbatch.sizes import GIB, format_size, parse_size

PATIENT = settings(deadline=None, max_examples=60)  # the machine is shared
NAMINGS: tuple[Naming, ...] = ("guide", "api")
# CNCF distribution, reference grammar: one component of a repository's path.
COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*", re.ASCII)


def codes(raw: object, naming: Naming = "guide") -> list[str]:
    ref, issues = parse_reference(raw, naming, place="manifest[0].RepoTags[0]")
    assert (ref is None) == bool(issues)
    assert all(i.is_error and i.place == "manifest[0].RepoTags[0]" for i in issues)
    return codes_of(issues)


def details(raw: object, naming: Naming = "guide") -> str:
    return " | ".join(i.params.get("detail", "") for i in parse_reference(raw, naming, place="")[1])


# --- the patterns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "official"),
    [
        ("namespace", r"^([a-z]+(?:(?:(?:_|__|[-]*)[a-z0-9]+)+)?)$"),
        ("repository", r"^([a-z0-9]+(?:(?:(?:_|__|[-]*)[a-z0-9]+)+)?)$"),
    ],
)
def test_the_linear_patterns_are_the_official_ones(part: Part, official: str) -> None:
    """Over all strings of up to 7 of a letter, a digit, both separators, and one that is never allowed."""
    theirs, ours = re.compile(official, re.ASCII), PATTERNS[part, "guide"]
    accepted = 0
    for length in range(8):
        for chars in itertools.product("a0_-B" if length < 7 else "a0_-", repeat=length):
            text = "".join(chars)
            assert bool(ours.fullmatch(text)) == bool(theirs.match(text)), text
            accepted += bool(ours.fullmatch(text))
    assert accepted > 1000


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("part", ["namespace", "repository", "tag"])
def test_the_words_find_a_fault_exactly_where_the_pattern_does(part: Part, naming: Naming) -> None:
    """Beside the pattern, which is always shown, there is at least one reason in words; `/` joins components."""
    pattern = PATTERNS[part, naming]
    for length in range(6):
        for chars in itertools.product("a0_-.B", repeat=length):
            text = "".join(chars)
            why = why_invalid(part, text, naming)
            assert bool(why) != bool(pattern.fullmatch(text)), (text, why)
            if why:
                assert why.endswith("; " + pattern.pattern), (text, why)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("part", ["namespace", "repository"])
def test_every_accepted_name_is_a_path_of_the_distribution(part: Part, naming: Naming) -> None:
    """Over all strings of up to 6; api takes exactly the distribution's components (a namespace: letter first)."""
    for length in range(7):
        for chars in itertools.product("a0_-.", repeat=length):
            text = "".join(chars)
            ours, theirs = bool(PATTERNS[part, naming].fullmatch(text)), bool(COMPONENT.fullmatch(text))
            assert theirs or not ours, text
            if naming == "api":
                assert ours == (theirs and (part == "repository" or not text.startswith("0"))), text


LONG = {
    "letters": lambda n: "a" * n + "!",
    "dashes": lambda n: "a" + "-" * n,
    "pairs": lambda n: "a-" * (n // 2) + "-_",
    "slashes": lambda n: "reg.example.com/" + "a/" * (n // 2),
    "dots": lambda n: "a." * (n // 2) + "/x/y",
    "hyphenated host": lambda n: "a.b" + "-" * n + "/x/y:!",
    "tag": lambda n: "reg.example.com/a/b:" + "x" * n,
    "underscores": lambda n: "reg.example.com/a/" + "_" * n,
    "colons": lambda n: "a/b/c" + ":" * n,
    "spaces": lambda n: "reg.example.com/a/b" + " " * n,
}


def cost(act: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        act(text)
        best = min(best, time.process_time() - start)
    return max(best, 1e-3)  # below that, clocks are coarse


@pytest.mark.parametrize("part", ["namespace", "repository"])
def test_short_hostile_names_do_not_explode(part: Part) -> None:
    """The official pattern doubles its time with each letter: 256 times for these eight."""
    for naming in NAMINGS:
        judge = partial(why_invalid, part, naming=naming)
        assert cost(judge, "a" * 22 + "!") < 50 * cost(judge, "a" * 14 + "!")
        assert "'!'" in why_invalid(part, "a" * 22 + "!", naming)


@pytest.mark.parametrize("shape", LONG)
@pytest.mark.parametrize("naming", NAMINGS)
def test_the_cost_grows_with_the_length_and_no_faster(shape: str, naming: Naming) -> None:
    """Sixteen times the length: about 16 times the time when linear, 256 when quadratic; the bound lies between."""

    def judge(text: str) -> None:
        parse_reference(text, naming, place="")
        normalise(text)

    assert cost(judge, LONG[shape](320_000)) < 80 * cost(judge, LONG[shape](20_000))


# --- references ----------------------------------------------------------------------------------------------------

OK = "registry.example.com/team/app"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (f"{OK}:v1", Reference("registry.example.com", "team", "app", "v1")),
        (OK, Reference("registry.example.com", "team", "app", "latest")),
        ("localhost/team/app:1", Reference("localhost", "team", "app", "1")),
        ("reg:5000/team/app", Reference("reg:5000", "team", "app", "latest")),
        ("10.0.0.1:5000/team/app:V_1.2-x", Reference("10.0.0.1:5000", "team", "app", "V_1.2-x")),
        ("[::1]:5000/team/app", Reference("[::1]:5000", "team", "app", "latest")),
        ("Reg.Example.COM/t__e-a---m/0_app:_", Reference("Reg.Example.COM", "t__e-a---m", "0_app", "_")),
        (f"r.io/{'n' * 64}/{'r' * 128}:{'t' * 128}", Reference("r.io", "n" * 64, "r" * 128, "t" * 128)),
    ],
)
@pytest.mark.parametrize("naming", NAMINGS)
def test_good_names(raw: str, expected: Reference, naming: Naming) -> None:
    assert parse_reference(raw, naming, place="") == (expected, [])


def test_the_forms_of_a_reference() -> None:
    ref = Reference("r.io", "team", "app", "v1")
    assert (str(ref), ref.path, ref.name) == ("r.io/team/app:v1", "team/app", "team/app:v1")
    with pytest.raises(AttributeError):
        ref.tag = "v2"  # type: ignore[misc]


FAULTS: list[tuple[object, list[str]]] = [
    ("hello:v1", ["registry-missing", "namespace-missing"]),
    ("hello", ["registry-missing", "namespace-missing"]),
    ("team/hello:v1", ["registry-missing"]),
    ("team/sub/hello:v1", ["registry-missing"]),
    ("reg.example.com/hello:v1", ["namespace-missing"]),
    ("localhost:5000", ["registry-missing", "namespace-missing"]),
    ("reg.example.com//hello", ["namespace-missing"]),
    ("/team/hello", ["registry-missing"]),
    ("reg.example.com/team/", ["repository-invalid"]),
    ("", ["reference-invalid"]),
    ("   ", ["reference-invalid"]),
    (f" {OK}:v1", ["reference-invalid"]),
    (f"{OK}:v1\n", ["reference-invalid"]),
    (f"{OK}:v\x1b[31m1", ["reference-invalid"]),
    (f"{OK}:v\u202e1", ["reference-invalid"]),
    (f"{OK}:\udc80", ["reference-invalid"]),
    (f"{OK}@sha256:{'0' * 64}", ["reference-invalid"]),
    (f"{OK}:v1@sha256:{'0' * 64}", ["reference-invalid"]),
    (f"https://{OK}:v1", ["reference-invalid"]),
    (None, ["reference-invalid"]),
    (7, ["reference-invalid"]),
    ([OK], ["reference-invalid"]),
    (f"reg..example.com/team/app:{'t' * 129}", ["registry-invalid", "tag-invalid"]),
    ("-reg.example.com/team/app", ["registry-invalid"]),
    ("reg_1.example.com/team/app", ["registry-invalid"]),
    ("reg.example.com:0/team/app", ["registry-invalid"]),
    ("reg.example.com:65536/team/app", ["registry-invalid"]),
    ("reg.example.com:/team/app", ["registry-invalid"]),
    ("300.1.1.1/team/app", ["registry-invalid"]),
    ("r.io/1team/app", ["namespace-invalid"]),
    ("r.io/Team/App:v1", ["namespace-invalid", "repository-invalid"]),
    ("r.io/_team/app", ["namespace-invalid"]),
    ("r.io/team-/app_", ["namespace-invalid", "repository-invalid"]),
    ("r.io/te___am/a-_b", ["namespace-invalid", "repository-invalid"]),
    ("r.io/teäm/äpp:ä", ["namespace-invalid", "repository-invalid", "tag-invalid"]),
    ("r.io/team１/app", ["namespace-invalid"]),
    (f"r.io/{'n' * 65}/{'r' * 129}", ["namespace-invalid", "repository-invalid"]),
    (f"{OK}:", ["tag-invalid"]),
    (f"{OK}:.v1", ["tag-invalid"]),
    (f"{OK}:-v1", ["tag-invalid"]),
    (f"{OK}:a:b", ["tag-invalid"]),
    (f"{OK}:a+b", ["tag-invalid"]),
    ("Hello:v+1", ["registry-missing", "namespace-missing", "repository-invalid", "tag-invalid"]),
    ("a..b/1x/Y:?", ["registry-invalid", "namespace-invalid", "repository-invalid", "tag-invalid"]),
]


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize(("raw", "expected"), FAULTS)
def test_each_fault_is_found_and_all_at_once(raw: object, expected: list[str], naming: Naming) -> None:
    assert codes(raw, naming) == expected


@pytest.mark.parametrize(
    ("raw", "guide"),
    [
        ("r.io/team/sub/app:v1", ["too-many-parts"]),
        ("r.io/team/a/b/c", ["too-many-parts"]),
        ("r.io/te.am/app", ["namespace-invalid"]),
        ("r.io/team/my.app", ["repository-invalid"]),
        ("r.io/te.a-m/a/b.c__d/e--f:v1", ["too-many-parts", "namespace-invalid", "repository-invalid"]),
    ],
)
def test_the_api_profile_allows_more(raw: str, guide: list[str]) -> None:
    assert codes(raw, "guide") == guide
    ref, issues = parse_reference(raw, "api", place="")
    assert issues == []
    assert ref is not None
    assert str(ref) == raw if ":" in raw else str(ref) == f"{raw}:latest"
    assert (ref.namespace, ref.repository) == tuple(raw.partition(":")[0].removeprefix("r.io/").split("/", 1))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("r.io/team/a..b", ["repository-invalid"]),
        ("r.io/team/a.-b", ["repository-invalid"]),
        ("r.io/team/a/-b", ["repository-invalid"]),
        ("r.io/team/a//b", ["repository-invalid"]),
        ("r.io/team/a/b/", ["repository-invalid"]),
        ("r.io/.team/a", ["namespace-invalid"]),
        ("r.io/team./a", ["namespace-invalid"]),
        (f"r.io/team/{'a' * 64}/{'b' * 64}", ["repository-invalid"]),
    ],
)
def test_the_api_profile_has_rules_too(raw: str, expected: list[str]) -> None:
    assert codes(raw, "api") == expected


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("r.io/Team/app", "upper case: 'T'"),
        ("r.io/1team/app", "starts with a digit: '1'"),
        ("r.io/team/-app", "starts with a separator: '-'"),
        ("r.io/team/app_", "ends with a separator: '_'"),
        ("r.io/team/a___p", "separators in a row: '___'"),
        ("r.io/team/a-_p", "separators in a row: '-_'"),
        ("r.io/team/a.p", "allowed by the api profile only: '.'"),
        ("r.io/team/a+p", "character not allowed: '+'"),
        (f"r.io/{'n' * 70}/app", "too long: 70 characters, at most 64"),
        (f"r.io/team/{'r' * 130}", "too long: 130 characters, at most 128"),
        (f"{OK}:{'t' * 129}", "too long: 129 characters, at most 128"),
        (f"{OK}:.a", "starts with a separator: '.'"),
        (f"{OK}:", "empty"),
        ("", "empty"),
        (f"{OK}@sha256:00", "a digest (@) in place of a tag"),
        (f"http://{OK}", "a scheme (://)"),
        (f"{OK} ", "whitespace or control character: U+0020"),
        (f"{OK}\x00", "whitespace or control character: U+0000"),
        (None, "not a string but NoneType"),
    ],
)
def test_the_detail_says_which_rule_is_broken(raw: object, words: str) -> None:
    assert words in details(raw)


def test_one_name_can_break_several_rules() -> None:
    found = details(f"r.io/1Te__--am{'x' * 64}_/app")
    for words in ("too long", "upper case: 'T'", "starts with a digit", "ends with a separator", "'_-'"):
        assert words in found


def test_issues_fill_their_texts_and_stay_printable() -> None:
    ref, issues = parse_reference(f"a..b/1x{'{reference}' * 9}\x1b/Y", "guide", place="p")
    assert ref is None
    ref, more = parse_reference("a..b/1{x}/Y{0}/z:{tag}", "guide", place="p")
    assert ref is None
    assert len(more) == 5
    for i in [*issues, *more]:
        for text in (i.text("en"), i.text("zh"), i.remedy("en"), i.remedy("zh")):
            assert text
            assert text.isprintable()
        assert i.section == "9.3.3"
        assert i.swr_code


name_alphabet = st.text(alphabet="aZ0_-./:@ é\x00[]", max_size=40)


@PATIENT
@given(raw=st.one_of(st.text(), name_alphabet), naming=st.sampled_from(NAMINGS))
def test_no_text_raises_and_what_is_accepted_is_sound(raw: str, naming: Naming) -> None:
    ref, issues = parse_reference(raw, naming, place="x")
    assert isinstance(normalise(raw), str)
    assert Rename().apply(raw) == (raw, False)
    assert (ref is None) == bool(issues)
    if ref is not None:
        assert str(ref) in (raw, f"{raw}:latest")
        assert is_registry(ref.registry)
        assert all(COMPONENT.fullmatch(part) for part in ref.path.split("/"))
        assert not any(c.isspace() for c in str(ref))


labels = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,10}[A-Za-z0-9])?", fullmatch=True)


@PATIENT
@given(data=st.data(), naming=st.sampled_from(NAMINGS), port=st.integers(1, 65535))
def test_a_good_reference_survives_the_round_trip(data: st.DataObject, naming: Naming, port: int) -> None:
    def draw(part: Part) -> str:
        return data.draw(st.from_regex(PATTERNS[part, naming], fullmatch=True).filter(lambda text: len(text) <= 60))

    host = data.draw(labels) + f".example.com:{port}"
    ref = Reference(host, draw("namespace"), draw("repository"), draw("tag"))
    assert parse_reference(str(ref), naming, place="") == (ref, [])
    assert parse_reference(str(ref), "api", place="") == (ref, [])  # api takes all that guide takes
    assert normalise(str(ref)) == f"{host.lower()}/{ref.name}"
    assert normalise(normalise(str(ref))) == normalise(str(ref))


# --- registries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "good",
    ["r.io", "localhost", "LOCALHOST:1", "a", "a-b--c.d:65535", "10.0.0.1", "[::1]", "[fe80::1]:443", "x1.2a", "a" * 63]
)  # fmt: skip
def test_a_registry(good: str) -> None:
    assert is_registry(good)


@pytest.mark.parametrize(
    "bad",
    ["", ".", "a.", ".a", "a..b", "-a", "a-", "a_b", "a:", ":1", "a:0", "a:65536", "a:01", "a:x", "a:1:2", "a b",
     "ä.de", "１.0.0.1", "1.2.3", "1.2.3.256", "01.2.3.4", "::1", "[::1", "[::1]x", "[::1]:", "[fe80::1%eth0]", "[]",
     "a" * 64, ".".join(["a" * 63] * 4) + ".b", "a\n", "a/b", "9" * 5000, "a:" + "9" * 5000]
)  # fmt: skip
def test_no_registry(bad: str) -> None:
    assert not is_registry(bad)


def test_registries_are_compared_without_case() -> None:
    assert same_registry("Reg.Example.com:5000", "reg.example.COM:5000")
    assert not same_registry("reg.example.com", "reg.example.com:443")


# --- Docker's normalisation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("hello", "docker.io/library/hello:latest"),
        ("hello:v1", "docker.io/library/hello:v1"),
        ("team/x:1", "docker.io/team/x:1"),
        ("team/sub/x", "docker.io/team/sub/x:latest"),
        ("docker.io/hello", "docker.io/library/hello:latest"),
        ("index.docker.io/hello:v1", "docker.io/library/hello:v1"),
        ("index.docker.io/team/x", "docker.io/team/x:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("reg:5000/team/x:1", "reg:5000/team/x:1"),
        ("Reg.example.com/team/x:V", "reg.example.com/team/x:V"),
        ("MyHost/x:1", "myhost/x:1"),  # an organization has no upper case, so this is a registry
        ("localhost", "docker.io/library/localhost:latest"),
        ("reg.example.com:5000", "docker.io/library/reg.example.com:5000"),
        ("hello@sha256:00", "docker.io/library/hello@sha256:00"),
        ("", "docker.io/library/:latest"),
        ("/", "docker.io//:latest"),
    ],
)
def test_normalise(name: str, full: str) -> None:
    assert normalise(name) == full


# --- limits --------------------------------------------------------------------------------------------------------


def test_the_profiles_are_the_guides() -> None:
    page, client, none = (PROFILES[name] for name in ("page", "client", "none"))
    assert page == Limits(
        files_per_upload=10,
        max_archive_size=2147483648,
        max_decompressed=2147483648,
        outer_compressions=frozenset({"none", "gzip"}),
    )
    assert client == Limits(max_layer_size=10737418240)
    assert none == Limits()
    assert none.max_decompressed == client.max_decompressed == 64 * GIB
    assert all(limits_for(name) == limits for name, limits in PROFILES.items())


def test_given_limits_take_the_place_of_the_profiles() -> None:
    assert limits_for("client", max_layer_size=5).max_layer_size == 5
    assert limits_for("none", max_decompressed=7).max_decompressed == 7
    assert limits_for("none", max_decompressed=100 * GIB).max_decompressed == 100 * GIB
    page = limits_for("page", max_archive_size=5 * GIB)
    assert (page.max_archive_size, page.max_decompressed) == (5 * GIB, 5 * GIB)
    page = limits_for("page", max_archive_size=1 * GIB)
    assert (page.max_archive_size, page.max_decompressed) == (1 * GIB, 1 * GIB)
    page = limits_for("page", max_archive_size=5 * GIB, max_decompressed=3 * GIB)
    assert (page.max_archive_size, page.max_decompressed) == (5 * GIB, 3 * GIB)
    assert limits_for("none", max_archive_size=1).max_decompressed == 64 * GIB
    assert limits_for("none", max_archive_size=90 * GIB).max_decompressed == 90 * GIB
    assert limits_for("page", max_layer_size=3).outer_compressions == frozenset({"none", "gzip"})


def test_a_given_number_of_files_is_hard_and_ends_the_splitting() -> None:
    split, hard = limits_for("page"), limits_for("page", max_files=25)
    assert [upload_seq(i, split) for i in (0, 9, 10, 19, 20, 99)] == [1, 1, 2, 2, 3, 10]
    assert (hard.max_files, hard.files_per_upload) == (25, None)
    assert {upload_seq(i, hard) for i in range(30)} == {1}
    assert upload_seq(999, limits_for("client")) == 1


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("option", ["max_files", "max_archive_size", "max_layer_size", "max_decompressed"])
def test_a_limit_below_one_is_refused(option: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} {value}"):
        limits_for("page", **{option: value})


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'Page'.*page, client, none"):
        limits_for("Page")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024), ("0", 0), ("7 bytes", 7), ("1b", 1), ("1KiB", 1024), ("1K", 1024), ("1kB", 1000),
        ("1 KB", 1000), ("2GiB", 2 * GIB), ("2 GiB", 2 * GIB), ("2G", 2 * GIB), ("2g", 2 * GIB), ("10G", 10 * GIB),
        ("500MB", 500_000_000), ("1.5GiB", 3 * GIB // 2), ("0.3KiB", 307), (" 2gib ", 2 * GIB), ("1TB", 10**12),
        ("1T", 1024**4), ("0.1G", 107374182), ("9223372036854775807", 2**63 - 1), ("7E", 7 * 1024**6),
    ],
)  # fmt: skip
def test_parse_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " ", "G", "GiB", "-1", "+1", "1.5", "1.5b", ".5G", "1.G", "1,5G", "1e3", "2  GiB", "2GiBs", "２G", "0x10",
     "1_000", "2 G i B", "nan", "9223372036854775808", "8E", "9" * 5000, "1." + "9" * 5000 + "G",
     "2Gi\nB", "2\u212a", "2\u017f"]
)  # fmt: skip
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert repr(text[:20])[1:-1] in str(caught.value) or not text.isprintable()
    assert "GiB" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (512, "512 bytes"), (1000, "1000 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"),
        (1025, "1.0 KiB"), (36352, "35.5 KiB"), (1000 * 1024, "1000 KiB"), (2 * GIB, "2 GiB"), (2 * GIB + 1, "2.0 GiB"),
        (1288490188, "1.2 GiB"), (GIB - 1, "1.0 GiB"), (1024**2 - 1, "1.0 MiB"), (10 * GIB, "10 GiB"),
        (1536 * 1024**2, "1.5 GiB"), (1024**4, "1 TiB"), (2048 * 1024**6, "2048 EiB"), (-5, "-5 bytes"),
    ],
)  # fmt: skip
def test_format_size(size: int, text: str) -> None:
    assert format_size(size) == text


def test_a_size_just_over_its_limit_does_not_read_like_the_limit() -> None:
    assert format_size(2 * GIB + 1, beside=2 * GIB) == "2.0 GiB (2147483649 bytes)"
    assert format_size(3 * GIB, beside=2 * GIB) == "3 GiB"
    assert format_size(2 * GIB, beside=2 * GIB) == "2 GiB"


@PATIENT
@given(size=st.integers(0, 2**62), times=st.sampled_from([1, 1024, 1024**2, GIB]))
def test_sizes_survive_the_round_trip(size: int, times: int) -> None:
    """Whole units exactly, rounded ones within half a tenth of the unit."""
    exact = (size % 1024) * times
    assert parse_size(format_size(exact)) == exact
    assert parse_size(str(size)) == size
    again = parse_size(format_size(size))
    assert abs(again - size) <= max(size // 19, 1)
    assert format_size(again) in (format_size(size), format_size(size).replace(".0 ", " "))


@PATIENT
@given(st.text(max_size=30))
def test_any_text_is_a_size_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert 0 <= parse_size(text) < 2**63


# --- renaming ------------------------------------------------------------------------------------------------------


EVERY_FIELD = "*=[{registry}][{namespace}][{repository}][{path}][{tag}]"


@pytest.mark.parametrize(
    ("rule", "raw", "new"),
    [
        ("old.io/*=new.io/{path}:{tag}", "old.io/team/app:v1", "new.io/team/app:v1"),
        ("old.io/*=new.io/{path}:{tag}", "old.io/team/app", "new.io/team/app:latest"),
        ("hello:*=r.io/team/{repository}:{tag}", "hello:v1", "r.io/team/hello:v1"),
        ("hello:latest=r.io/team/hello:stable", "hello", "r.io/team/hello:stable"),
        ("*=r.io/{namespace}/{repository}:{tag}", "team/sub/app:1", "r.io/team/sub/app:1"),
        ("*=r.io/all/{repository}:{tag}", "old.io:5000/team/app:1", "r.io/all/app:1"),
        (EVERY_FIELD, "app:1", "[][][app][app][1]"),
        (EVERY_FIELD, "a.b/app:1", "[a.b][][app][app][1]"),
        (EVERY_FIELD, "a.b/n/x/y", "[a.b][n][x/y][n/x/y][latest]"),
        (EVERY_FIELD, "localhost:5000/x", "[localhost:5000][][x][x][latest]"),
        ("team/[ab]?p:*=r.io/{path}:{tag}", "team/app:1", "r.io/team/app:1"),
        (" team/* = r.io/{path} ", "team/app:1", "r.io/team/app"),
        ("*=r.io/{tag}{tag}/x", "app:1", "r.io/11/x"),
    ],
)  # fmt: skip
def test_a_rule_renames(rule: str, raw: str, new: str) -> None:
    assert load_rename([rule]).apply(raw) == (new, True)


@pytest.mark.parametrize(
    ("rule", "raw"),
    [
        ("old.io/*=new.io/{path}:{tag}", "other.io/team/app:v1"),
        ("docker.io/library/hello:*=r.io/t/x:1", "hello:v1"),  # nothing but the tag is added before matching
        ("HELLO:*=r.io/t/x:1", "hello:v1"),
        ("hello=r.io/t/x:1", "hello"),  # the pattern must reckon with the tag
        ("team/ap=r.io/t/x:1", "team/app"),
    ],
)
def test_without_a_match_a_name_stays_as_it_is(rule: str, raw: str) -> None:
    assert load_rename([rule]).apply(raw) == (raw, False)


def test_the_first_match_wins_and_no_change_is_no_change() -> None:
    rename = load_rename(["a/*=r.io/first/x:{tag}", "*=r.io/second/x:{tag}"])
    assert rename.apply("a/b:1") == ("r.io/first/x:1", True)
    assert rename.apply("b/b:1") == ("r.io/second/x:1", True)
    assert load_rename(["*={path}:{tag}"]).apply("a/b:1") == ("a/b:1", False)


def test_a_file_named_like_a_rule_is_read_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_rename(["a=b"]).apply("a") == ("a", False)
    Path("a=b").write_text("'*': from-file\n")
    assert load_rename(["a=b"]).apply("a") == ("from-file", True)


@pytest.mark.parametrize(
    "template",
    ["{tag.__class__}", "{tag[0]}", "{tag!r}", "{tag:>1000000000}", "{}", "{0}", "{Tag}", "{ tag }", "{{tag}}", "{tag",
     "tag}", "{digest}", "{self}", "{tag}}", "{path.__init__.__globals__}", "{", "}"]
)  # fmt: skip
def test_hostile_templates_are_refused_when_loaded(template: str) -> None:
    with pytest.raises(UsageError, match=r"the fields are \{registry\} \{namespace\} \{repository\} \{path\} \{tag\}"):
        load_rename([f"*=r.io/t/x:{template}"])


@pytest.mark.parametrize("rule", ["=x", "x=", "=", " = "])
def test_a_rule_needs_both_sides(rule: str) -> None:
    with pytest.raises(UsageError, match="has a pattern and a template"):
        load_rename([rule])


def test_fields_are_not_expanded_twice() -> None:
    assert load_rename(["*=r.io/{path}:{tag}"]).apply("{tag}/x:{registry}") == ("r.io/{tag}/x:{registry}", True)


def test_globs_stay_linear() -> None:
    apply = load_rename(["*a" * 30 + "b=x"]).apply
    assert apply("a" * 5000) == ("a" * 5000, False)
    assert cost(apply, "a" * 320_000) < 80 * cost(apply, "a" * 20_000)


@PATIENT
@given(pattern=st.text(min_size=1), raw=st.text())
def test_any_glob_loads_or_is_refused(pattern: str, raw: str) -> None:
    try:
        rename = load_rename([f"{pattern}=r.io/{{path}}:{{tag}}"], into="r.io/team")
    except UsageError:
        return
    assert isinstance(rename.apply(raw)[0], str)


@pytest.mark.parametrize(
    "text",
    [
        "- {match: 'old.io/*', to: 'new.io/{path}:{tag}'}\n- match: '*'\n  to: r.io/rest/{repository}:1.0\n",
        "\ufeff'old.io/*': new.io/{path}:{tag}\n'*': r.io/rest/{repository}:1.0\n",
    ],
)
def test_rules_of_a_yaml_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text, encoding="utf-8")
    rename = load_rename(["first:*=r.io/one/first:{tag}", str(file)])
    assert rename.apply("first:1") == ("r.io/one/first:1", True)
    assert rename.apply("old.io/a/b:2") == ("new.io/a/b:2", True)
    assert rename.apply("a/b:2") == ("r.io/rest/b:1.0", True)


def test_values_of_yaml_stay_text(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("1.10:latest: yes\n'true:latest': 2024-13-45\nnull:latest: !!int ''x\n".replace("!!int ''x", "0o7"))
    rename = load_rename([str(file)])
    assert [rename.apply(raw)[0] for raw in ("1.10", "true", "null")] == ["yes", "2024-13-45", "0o7"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rule"),
        ("[]", "no rule"),
        ("{}", "no rule"),
        ("just text", "no rule"),
        ("- just text", "item 1"),
        ("- {match: a, to: b}\n- {match: a}", "item 2"),
        ("- {match: a, to: b, extra: c}", "item 1"),
        ("- {match: a, match: b}", "item 1"),
        ("- {match: a, to: b, match: c}", "item 1"),
        ("- {match: a, to: [b]}", "item 1"),
        ("- {match: a, ? [to] : b}", "item 1"),
        ("a: [b]", "item 1"),
        ("a: b\n? [x]\n: c", "item 2"),
        ("a: b\nc:", r"item 2 \(line 2\): a rule has"),
        ("- {match: a, to: '{x}'}", r"item 1 \(line 1\): '{x}' in|item 1 \(line 1\): 'x' is no field"),
        ("&a [*a]", "item 1"),
        ("&a {match: *a, to: *a}", "item 1"),
        ("*nowhere", "no valid YAML"),
        ("a: b\n---\nc: d", "no valid YAML"),
        ("a: 'b", "no valid YAML"),
        ("\ta: b", "no valid YAML"),
        ("a: \x00", "no valid YAML"),
        (r'"\UFFFFFFFF": a', "no valid YAML"),
        (r'"\U00110000": a', "no valid YAML"),
        ("[" * 1000, "no valid YAML"),
        ("{a: " * 3000, "no valid YAML"),
    ],
)
def test_other_yaml_is_refused_by_file_and_item(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_rename([str(file)])
    assert "rules.yaml" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("option", ["retag", "names"])
def test_files_that_cannot_be_read(tmp_path: Path, option: str) -> None:
    def load(path: Path | str) -> str:
        with pytest.raises(UsageError) as caught:
            load_rename([str(path)]) if option == "retag" else load_rename(names=path)
        assert f"--{option}" in str(caught.value)
        return str(caught.value)

    assert "No such file" in load(tmp_path / "none")
    assert "directory" in load(tmp_path)
    assert "cannot be read" in load("nul\x00nul")
    assert "cannot be read" in load("x" * 5000)
    file = tmp_path / "utf16"
    file.write_bytes("archive,image_id,reference".encode("utf-16"))
    assert "not UTF-8" in load(file)
    assert "utf16" in load(file)
    big = tmp_path / "big"
    with big.open("wb") as out:
        out.truncate(64 * 1024**2 + 1)
    assert "more than 64 MiB" in load(big)


def test_into_takes_names_without_a_registry_that_no_rule_matched() -> None:
    rename = load_rename(["special:*=r.io/other/{repository}:{tag}", "same:*={path}:{tag}"], into="r.io:5000/team")
    assert rename.apply("hello") == ("r.io:5000/team/hello:latest", True)
    assert rename.apply("a/b/hello:v1") == ("r.io:5000/team/hello:v1", True)
    assert rename.apply("/x/hello:v1") == ("r.io:5000/team/hello:v1", True)
    assert rename.apply("special:v1") == ("r.io/other/special:v1", True)
    assert rename.apply("same:v1") == ("same:v1", False)
    assert rename.apply("own.io/a/hello:v1") == ("own.io/a/hello:v1", False)
    assert rename.apply("localhost/hello:v1") == ("localhost/hello:v1", False)
    assert rename.apply("") == ("", False)


@pytest.mark.parametrize(
    "into", ["", "/", "r.io", "r.io/", "team", "host/team", "r.io/a/b", "r..io/team", "r.io/Team", "r.io/1a"]
)
def test_into_must_be_a_registry_and_an_organization(into: str) -> None:
    with pytest.raises(UsageError, match="HOST/ORG"):
        load_rename(into=into)


A, B = "a1" * 32, "b2" * 32


def names_file(folder: Path, text: str) -> Path:
    file = folder / "names.csv"
    file.write_bytes(text.encode())
    return file


def test_names_for_images_without_any(tmp_path: Path) -> None:
    file = names_file(
        tmp_path,
        f"\ufeffarchive,image_id,reference\r\nx.tar,sha256:{A},r.io/t/a:1\r\n\r\nx.tar,{A[:12]},r.io/t/a:2\r\n"
        f"in/y.tar, {B[:20].upper()} ,\"r.io/t/b:1\"\r\nx.tar,{A},r.io/t/a:1\r\n",
    )  # fmt: skip
    rename = load_rename(names=file)
    assert rename.names_for("x.tar", f"sha256:{A}") == ["r.io/t/a:1", "r.io/t/a:2"]
    assert rename.names_for("deep/in/x.tar", A) == ["r.io/t/a:1", "r.io/t/a:2"]
    assert rename.names_for("x.tar", A[:12] + "0" * 52) == ["r.io/t/a:2"]
    assert rename.names_for("in/y.tar", f"sha256:{B}") == ["r.io/t/b:1"]
    assert rename.names_for("y.tar", B) == []
    assert rename.names_for("x.tar", B) == []
    assert rename.names_for("x.tar", "") == []
    assert Rename().names_for("x.tar", A) == []


def test_the_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    rename = load_rename(names=str(names_file(tmp_path, f"reference,archive,image_id\nr.io/t/a:1,x.tar,{A}")))
    assert rename.names_for("x.tar", A) == ["r.io/t/a:1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 must be the header archive,image_id,reference"),
        (f"x.tar,{A},r.io/t/a:1\n", "line 1 must be the header"),
        ("archive;image_id;reference\n", "line 1 must be the header"),
        ("archive,image_id,reference,more\n", "line 1 must be the header"),
        ("archive,image_id,archive\n", "line 1 must be the header"),
        (f"archive,image_id,reference\nx.tar,{A}\n", "line 2 "),
        (f"archive,image_id,reference\nx.tar,{A},r,s\n", "line 2 "),
        (f"archive,image_id,reference\n\nx.tar,{A[:11]},r\n", "line 3 "),
        (f"archive,image_id,reference\nx.tar,{A}0,r\n", "line 2 "),
        ("archive,image_id,reference\nx.tar,sha512:aaaaaaaaaaaa,r\n", "line 2 "),
        ("archive,image_id,reference\nx.tar,gggggggggggg,r\n", "line 2 "),
        (f"archive,image_id,reference\n,{A},r\n", "line 2 "),
        (f"archive,image_id,reference\nx.tar,{A}, \n", "line 2 "),
        (f'archive,image_id,reference\nx.tar,{A},"r\n', "line 2"),
        (f'archive,image_id,reference\nx.tar,{A},"r"s\n', "line 2"),
        (f"archive,image_id,reference\nx.tar,{A},{'r' * 200_000}\n", "line 2"),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_rename(names=names_file(tmp_path, text))
    assert "names.csv" in str(caught.value)
