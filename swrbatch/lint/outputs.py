"""Findings for programs: JSON (which is a baseline too), SARIF 2.1.0, GitLab code quality, JUnit."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import quote

from ..errors import Issue, Lang, UsageError, plain, printable, to_json_text
from .catalog import RULES
from .causes import CAUSES
from .rule import Finding, Level, Rule, spelled_alike
from .targets import LintResult

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_SARIF: Final = {Level.ERROR: "error", Level.WARNING: "warning", Level.INFO: "note"}
_GITLAB: Final = {Level.ERROR: "major", Level.WARNING: "minor", Level.INFO: "info"}
_MAX_BASELINE: Final = 64 << 20
_MAX_ELEMENTS: Final = 2_000_000  # of a baseline; so many findings as fit into its bytes have fewer


def to_json(result: LintResult) -> str:
    """`{"files": […], "images": [{path, name}], "findings": [{rule, level, path, line, …}], "accepted": […], "issues": […]}`.

    `findings` are those that count; `accepted` are the others, which say why.
    """
    names = ("code", "severity", "archive", "image_index", "place", "message", "message_zh", "way_out", "way_out_zh")
    told = {
        "files": list(result.files),
        "images": [{"path": path, "name": printable(name)} for path, name in result.images],
        "findings": [asdict(one) for one in result.counting],
        "accepted": [asdict(one) for one in result.findings if one.accepted],
        "issues": [{name: getattr(one, name) for name in names} for one in result.issues],
    }
    return to_json_text(told)


def read_baseline(path: str) -> frozenset[str]:
    """The fingerprints of an earlier JSON result. UsageError if the file is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BASELINE + 1)
        small = len(data) <= _MAX_BASELINE and sum(map(data.count, (b",", b"{", b"["))) <= _MAX_ELEMENTS
        found: Any = json.loads(data) if small else None
        return frozenset(str(one["fingerprint"]) for one in found["findings"])
    except OSError as e:
        raise UsageError(f"the baseline {printable(path)} cannot be read: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise UsageError(f"the baseline {printable(path)} is no result of swrbatch lint --format json") from e


def to_sarif(result: LintResult, language: Lang, version: str) -> str:
    """One run; every rule of ours stands in it with its help and examples, found or not.

    What could not be read is a notification of the run's invocation, which then was not successful.
    """
    index = {one.id: at for at, one in enumerate(RULES)}
    run = {
        "tool": {"driver": {"name": "swrbatch", "version": version, "rules": [_sarif_rule(one, language) for one in RULES]}},
        "invocations": [
            {
                "executionSuccessful": not result.failed,
                "toolExecutionNotifications": [_sarif_notification(one, language) for one in result.issues],
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(one, index[one.rule], language) for one in result.counting],
    }
    return to_json_text({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _sarif_rule(one: Rule, language: Lang) -> dict[str, Any]:
    kind = "yaml" if one.workload is not None else "dockerfile"
    bad, good, colon = ("反例", "正例", "：") if language == "zh" else ("Bad", "Good", ":")
    examples = "\n\n".join(f"{name}{colon}\n\n```{kind}\n{text}```" for name, text in ((bad, one.bad), (good, one.good)))
    remedy, heading = plain(one.remedy(language)), one.heading(language)
    practice = [f"practice-{one.practice}"] if one.practice else []
    return {
        "id": one.id,
        "name": "".join(word.capitalize() for word in one.id.split("-")),
        "shortDescription": {"text": plain(one.text(language))},
        "fullDescription": {"text": CAUSES[one.id][language == "zh"] + (f" ({heading})" if heading else "")},
        "help": {"text": remedy, "markdown": f"{remedy}\n\n{examples}\n"},
        "defaultConfiguration": {"level": _SARIF[one.level]},
        "properties": {"tags": [*one.forms, *practice]},
    }


def _sarif_notification(one: Issue, language: Lang) -> dict[str, Any]:
    return {
        "descriptor": {"id": one.code},
        "level": "error" if one.is_error else "warning",
        "message": {"text": f"{one.text(language)} {one.remedy(language)}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(one.archive)}}}],
    }


def _sarif_result(one: Finding, index: int, language: Lang) -> dict[str, Any]:
    place: dict[str, Any] = {"physicalLocation": _sarif_lines(one)}
    told: dict[str, Any] = {"bytes": one.bytes} if one.bytes is not None else {}
    if one.image:
        told |= {"step": one.snippet} if one.snippet else {}
        place = {"physicalLocation": {"artifactLocation": {"uri": _uri(one.path)}}, "logicalLocations": _sarif_logical(one)}
    return {
        "ruleId": one.rule,
        "ruleIndex": index,
        "level": _SARIF[one.level],
        "message": {"text": f"{one.text(language)}. {one.remedy(language)}"},
        "locations": [place],
        "partialFingerprints": {"swrbatchFinding/v1": one.fingerprint},
        **({"properties": told} if told else {}),
    }


def _sarif_lines(one: Finding) -> dict[str, Any]:
    region = {"startLine": one.line, "endLine": one.end_line}
    context = {**region, "snippet": {"text": one.snippet}}
    return {"artifactLocation": {"uri": _uri(one.path)}, "region": region, "contextRegion": context}


def _uri(path: str) -> str:
    """The path as a URI; a name that is not UTF-8 keeps its bytes."""
    return quote(os.fsencode(spelled_alike(path)))


def _sarif_logical(one: Finding) -> list[dict[str, str]]:
    """Image, layer, path: from the outermost to what is meant, each with its whole name."""
    parts = [(one.image, "image"), (one.layer, "layer"), (one.place, "member" if one.layer else "property")]
    found: list[dict[str, str]] = []
    for name, kind in parts:
        if name:
            whole = f"{found[-1]['fullyQualifiedName']}/{name}" if found else name
            found.append({"name": name, "fullyQualifiedName": whole, "kind": kind})
    return found


def to_gitlab(findings: Iterable[Finding], language: Lang) -> str:
    """A code quality report: a list of issues. GitLab shows one where its path is that of the repository's file, with no `./`."""
    return to_json_text(
        [
            {
                "description": f"{_where(one)}{one.text(language)}. {one.remedy(language)}",
                "check_name": one.rule,
                "fingerprint": one.fingerprint,
                "severity": _GITLAB[one.level],
                "location": {"path": spelled_alike(one.path), "lines": {"begin": one.line, "end": one.end_line}},
            }
            for one in findings
        ]
    )


def _where(one: Finding) -> str:
    """The place within an image, for programs that know only files and lines."""
    return f"{one.image} {one.place}: " if one.image else ""


def to_junit(result: LintResult, language: Lang, fail_on: Level) -> str:
    """A suite for each file or image, a case for each rule that found something; it fails at or above the threshold.

    An issue that keeps an archive from being read is an error of a suite of its own.
    """
    root = ET.Element("testsuites", name="swrbatch lint")
    holders = {path for path, _ in result.images}
    suites = [(file, "") for file in result.files if file not in holders]
    suites += [(path, printable(name)) for path, name in result.images]
    found: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for one in result.counting:
        found[one.path, one.image].append(one)
    for path, image in suites:
        own = found[path, image]
        rules = list(dict.fromkeys(one.rule for one in own)) or ["lint"]
        shown = printable(path if image in ("", path) else f"{path} {image}")
        suite = ET.SubElement(root, "testsuite", name=shown, tests=str(len(rules)), errors="0")
        for name in rules:
            case = ET.SubElement(suite, "testcase", classname=shown, name=name)
            told = [one for one in own if one.rule == name]
            failing = [one for one in told if one.level.rank >= fail_on.rank]
            text = "\n".join(f"{one.location}: {one.text(language)}. {one.remedy(language)}" for one in told)
            if failing:
                ET.SubElement(case, "failure", type=name, message=failing[0].text(language)).text = text
            elif told:
                ET.SubElement(case, "system-out").text = text
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
    for issue in result.issues:
        if issue.is_error:
            suite = ET.SubElement(root, "testsuite", name=printable(issue.archive), tests="1", errors="1", failures="0")
            case = ET.SubElement(suite, "testcase", classname=printable(issue.archive), name=issue.code)
            ET.SubElement(case, "error", type=issue.code, message=issue.text(language)).text = issue.remedy(language)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)
