"""JUnit XML of a run, for CI systems that show test reports: a suite for each archive, a case for each image."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from ..disk import disk_errors
from ..errors import Lang
from ..results import ImageRow, IssueRow
from ..tables import RunResult


def write_junit(path: str, result: RunResult, language: Lang) -> None:
    """Write the report; errors are failures with their way out, warnings stand in `system-out`."""
    root = ET.Element("testsuites", name=f"swrbatch {result.run.command}")
    for archive in result.archives:
        issues = [found for found in result.issues if found.archive == archive.archive]
        images = [row for row in result.images if row.archive == archive.archive]
        suite = ET.SubElement(root, "testsuite", name=archive.archive, tests=str(max(1, len(images))))
        suite.set("time", f"{archive.seconds:.3f}")
        if not images:
            _case(suite, archive.archive, archive.archive, archive.status == "rejected", issues, language)
        for row in images:
            own = [found for found in issues if found.image_index in (None, row.image_index)]
            _case(suite, archive.archive, _name(row), row.status == "rejected", own, language)
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("errors", "0")
    if result.failure is not None:
        suite = ET.SubElement(root, "testsuite", name="run", tests="1", failures="0", errors="1")
        case = ET.SubElement(suite, "testcase", classname="run", name=result.run.command)
        ET.SubElement(case, "error", message=str(result.failure))
    elif result.run.error is not None:
        suite = ET.SubElement(root, "testsuite", name="run", tests="1", failures="0", errors="0", skipped="1")
        case = ET.SubElement(suite, "testcase", classname="run", name=result.run.command)
        ET.SubElement(case, "skipped", message=result.run.error)
    ET.indent(root)
    with disk_errors("the JUnit report cannot be written"):
        ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _name(row: ImageRow) -> str:
    return row.reference or row.original_reference or f"image {row.image_index}"


def _case(suite: ET.Element, archive: str, name: str, rejected: bool, issues: list[IssueRow], language: Lang) -> None:
    case = ET.SubElement(suite, "testcase", classname=archive, name=name)
    errors = [found for found in issues if found.severity == "error"]
    if rejected:
        failure = ET.SubElement(case, "failure", type=errors[0].code if errors else "rejected")
        failure.set("message", _text(errors[0], language) if errors else "rejected")
        failure.text = "\n".join(f"{found.code}: {found.place}: {_text(found, language)}" for found in errors)
    warnings = [f"{found.code}: {_text(found, language)}" for found in issues if found.severity != "error"]
    if warnings:
        ET.SubElement(case, "system-out").text = "\n".join(warnings)


def _text(found: IssueRow, language: Lang) -> str:
    if language == "zh":
        return f"{found.message_zh}。{found.way_out_zh}"
    return f"{found.message}. {found.way_out}"
