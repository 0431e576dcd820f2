"""Lint one image: a view in, findings out. Nothing is read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from ..errors import printable
from ..redaction import redacted
from .check import with_more, worst
from .rule import Finding, ImageForm, ImageHit, Rule, fingerprint
from .view import ImageView

_GUESS: Final = (" (in the base image, as its history suggests)", "（根据构建历史推测，位于基础镜像中）")


def lint_image(view: ImageView, rules: Sequence[Rule]) -> tuple[Finding, ...]:
    """The findings of an image, the worst first."""
    forms = [(one, one.image) for one in rules if one.image is not None]
    found = [(one, form, *told) for one, form in forms for told in worst(form.check(view), form.level)]
    found.sort(key=lambda each: (-(each[2].level or each[1].level).rank, each[0].id, each[2].layer or 0, each[2].place))
    seen: Counter[tuple[str, int | None, str, str]] = Counter()
    findings = []
    for one, form, hit, more in found:
        key = one.id, hit.layer, hit.place, hit.mark
        seen[key] += 1
        findings.append(with_more(_finding(view, one, form, hit, seen[key]), more))
    return tuple(findings)


def _finding(view: ImageView, one: Rule, form: ImageForm, hit: ImageHit, count: int) -> Finding:
    params = {key: redacted(value, view.secrets) for key, value in hit.params.items()}
    layer = str(view.diff_ids[hit.layer]) if hit.layer is not None else ""
    guess = _GUESS if hit.guess else ("", "")
    return Finding(
        rule=one.id,
        level=hit.level or form.level,
        path=view.head.path,
        line=1,
        end_line=1,
        message=form.message.format_map(params) + guess[0],
        message_zh=form.message_zh.format_map(params) + guess[1],
        way_out=form.way_out.format_map(params),
        way_out_zh=form.way_out_zh.format_map(params),
        section=one.section,
        snippet=_snippet(view, hit),
        # Of the place, never of what stands there.
        fingerprint=fingerprint(one.id, view.head.path, view.head.name, layer, hit.place, *filter(None, [hit.mark]), str(count)),
        image=printable(view.head.name),
        layer=layer,
        place=hit.place,
        bytes=hit.bytes,
    )


def _snippet(view: ImageView, hit: ImageHit) -> str:
    """The step of the history that is meant, or that made the layer."""
    step = view.history.step_at(hit.place)
    if step is None and hit.layer is not None:
        step = view.history.step_of(hit.layer)
    if step is None or not step.keyword:
        return ""
    if step.keyword in ("ENV", "ARG", "LABEL"):
        return f"{step.keyword} ***"
    return printable(redacted(f"{step.keyword} {step.text}", view.secrets), 160)
