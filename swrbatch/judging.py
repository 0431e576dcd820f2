"""What becomes of an image that is to be loaded: a decision for each of its references, and the events that tell of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from .attempt import Attempt, Decision, LoadRules
from .cts import Actor, Trace, canonical_json, new_trace
from .errors import codes_of
from .ledger.loads import Accepted, LoadState, decide, plan


def judge_attempt(attempt: Attempt, state: LoadState, actor: Actor, rules: LoadRules) -> tuple[Decision, ...]:
    """Decide an attempt's references together: one refused reference refuses the image."""
    if attempt.refused or attempt.record is None:
        keys = [(reference.path, reference.tag) for reference in attempt.references]
        return tuple(Decision("rejected", state.effective(key), state.effective(key)) for key in keys)
    digest = str(attempt.manifest.digest) if attempt.manifest is not None else None
    image_id = attempt.record.image_id
    decisions = []
    accepted = Accepted()
    for reference in attempt.references:
        decision = decide(reference, image_id, digest, state, actor, rules, accepted)
        decisions.append(decision)
        if decision.issues:
            # The others are judged too, for their issues; nothing of this image is planned any more.
            rest = attempt.references[len(decisions) :]
            decisions += [decide(other, image_id, digest, state, actor, rules, accepted) for other in rest]
            return tuple(Decision("rejected", d.previous, d.previous, d.issues) for d in decisions)
    for reference, decision in zip(attempt.references, decisions, strict=True):
        plan(reference, image_id, decision, state, actor)
    return tuple(decisions)


def traces_of(attempt: Attempt, decisions: Sequence[Decision], actor: Actor, run_id: str, now: int) -> Iterator[Trace]:
    """The events of one attempt: organizations and repositories it makes, then one upload for each reference."""
    common: dict[str, Any] = {"actor": actor, "run_id": run_id, "time": attempt.started_ms, "record_time": now}
    own = [i.code for i in attempt.issues if i.is_error]
    made: set[str] = set()
    for position, decision in enumerate(decisions):
        reference = attempt.references[position]
        if decision.new_organization and reference.namespace not in made:
            made.add(reference.namespace)
            yield new_trace(
                "createUserNamespace",
                resource_name=reference.namespace,
                request={"namespace": reference.namespace},
                response={"owner": actor.user, "account": actor.account}
                | ({"administrator": True} if decision.new_administrator else {}),
                **common,
            )
        if decision.new_repository and reference.path not in made:
            made.add(reference.path)
            yield new_trace(
                "createImageRepository",
                resource_name=reference.path,
                request={"namespace": reference.namespace, "repository": reference.repository},
                response={"is_public": False},
                **common,
            )
        request = {
            "archive": attempt.archive,
            "image_index": attempt.image_index,
            "original": attempt.originals[position],
            "reference": str(reference),
            "image_id": attempt.record.image_id if attempt.record else None,
        }
        yield _upload(attempt, decision, [*own, *codes_of(decision.issues)], reference.name, request, common)
    if not decisions:
        request = {"archive": attempt.archive, "image_index": attempt.image_index}
        name = os.path.basename(attempt.archive)
        yield _upload(attempt, Decision("rejected"), own, name, request, common)


def _upload(
    attempt: Attempt, decision: Decision, codes: list[str], name: str, request: dict[str, Any], common: dict[str, Any]
) -> Trace:
    refused = decision.status == "rejected"
    response: dict[str, Any] = {"result": decision.status, "previous_digest": decision.previous}
    if refused:
        response["codes"] = codes
    else:
        response["digest"] = decision.digest
        # What the tag has afterwards: of one that was left as it is, the request's image is another.
        response["image_id"] = attempt.record.image_id if attempt.record and decision.status != "skipped" else None
    return new_trace(
        "uploadImagePackage",
        resource_name=name,
        resource_id="" if refused else decision.digest or "",
        rating="warning" if refused else "normal",
        code="403" if codes == ["permission-denied"] else "",
        message=canonical_json(codes) if refused else "",
        request=request,
        response=response,
        **common,
    )
