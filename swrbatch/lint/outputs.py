"""Findings for programs: JSON (which is a baseline too), SARIF 2.1.0, GitLab code quality, JUnit."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import quote

from ..errors import Lang, UsageError, printable
from .catalog import RULES
from .rule import Finding, Level, Rule

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_SARIF: Final = {Level.ERROR: "error", Level.WARNING: "warning", Level.INFO: "note"}
_GITLAB: Final = {Level.ERROR: "major", Level.WARNING: "minor", Level.INFO: "info"}
_MAX_BASELINE: Final = 64 << 20


def to_json(files: Sequence[str], findings: Sequence[Finding]) -> str:
    """`{"files": […], "findings": [{rule, level, path, line, end_line, message, …, fingerprint}]}`."""
    return json.dumps({"files": list(files), "findings": [asdict(one) for one in findings]}, ensure_ascii=False)


def read_baseline(path: str) -> frozenset[str]:
    """The fingerprints of an earlier JSON result. UsageError if the file is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BASELINE + 1)
        found: Any = json.loads(data) if len(data) <= _MAX_BASELINE else None
        return frozenset(str(one["fingerprint"]) for one in found["findings"])
    except OSError as e:
        raise UsageError(f"--baseline {printable(path)} cannot be read: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise UsageError(f"--baseline {printable(path)} is no result of swrbatch lint --format json") from e


def to_sarif(findings: Sequence[Finding], language: Lang, version: str) -> str:
    """One run; every rule of ours stands in it with its help and examples, found or not."""
    index = {one.id: at for at, one in enumerate(RULES)}
    driver = {"name": "swrbatch", "version": version, "rules": [_sarif_rule(one, language) for one in RULES]}
    results = [_sarif_result(one, index[one.rule], language) for one in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, ensure_ascii=False)


def _sarif_rule(one: Rule, language: Lang) -> dict[str, Any]:
    markdown = f"{one.remedy(language)}\n\nBad:\n\n```dockerfile\n{one.bad}```\n\nGood:\n\n```dockerfile\n{one.good}```\n"
    return {
        "id": one.id,
        "name": "".join(word.capitalize() for word in one.id.split("-")),
        "shortDescription": {"text": one.text(language)},
        "fullDescription": {"text": f"{one.text(language)} ({one.section})"},
        "help": {"text": one.remedy(language), "markdown": markdown},
        "defaultConfiguration": {"level": _SARIF[one.level]},
        "properties": {"tags": ["dockerfile", f"practice-{one.practice}"]},
    }


def _sarif_result(one: Finding, index: int, language: Lang) -> dict[str, Any]:
    region = {"startLine": one.line, "endLine": one.end_line}
    context = {**region, "snippet": {"text": one.snippet}}
    place = {"artifactLocation": {"uri": quote(one.path)}, "region": region, "contextRegion": context}
    return {
        "ruleId": one.rule,
        "ruleIndex": index,
        "level": _SARIF[one.level],
        "message": {"text": f"{one.text(language)}. {one.remedy(language)}"},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"swrbatchFinding/v1": one.fingerprint},
    }


def to_gitlab(findings: Iterable[Finding], language: Lang) -> str:
    """A code quality report: a list of issues."""
    return json.dumps(
        [
            {
                "description": f"{one.text(language)}. {one.remedy(language)}",
                "check_name": one.rule,
                "fingerprint": one.fingerprint,
                "severity": _GITLAB[one.level],
                "location": {"path": one.path, "lines": {"begin": one.line, "end": one.end_line}},
            }
            for one in findings
        ],
        ensure_ascii=False,
    )


def to_junit(files: Sequence[str], findings: Sequence[Finding], language: Lang, fail_on: Level) -> str:
    """A suite for each file, a case for each rule that found something; it fails at or above the threshold."""
    root = ET.Element("testsuites", name="swrbatch lint")
    for file in files:
        own = [one for one in findings if one.path == file]
        rules = list(dict.fromkeys(one.rule for one in own)) or ["lint"]
        suite = ET.SubElement(root, "testsuite", name=printable(file), tests=str(len(rules)), errors="0")
        for name in rules:
            case = ET.SubElement(suite, "testcase", classname=printable(file), name=name)
            told = [one for one in own if one.rule == name]
            failing = [one for one in told if one.level.rank >= fail_on.rank]
            text = "\n".join(f"{printable(one.path)}:{one.line}: {one.text(language)}. {one.remedy(language)}" for one in told)
            if failing:
                ET.SubElement(case, "failure", type=name, message=failing[0].text(language)).text = text
            elif told:
                ET.SubElement(case, "system-out").text = text
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)
