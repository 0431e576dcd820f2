"""Carrying out what triggers were set off to do (guide 4.7), offline: the images in a folder of Kubernetes manifests.

Loads write runs as pending in their own transactions; here they are done, in the order of the loads, one process at a time. A run
is marked as ended after its files were changed: after a crash in between it is done again, which changes nothing more. A failing
run is recorded as failed and neither undoes the load nor holds up the next run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from .cts import Actor, new_run_id, new_trace, now_ms
from .digest import Cancel
from .disk import locked
from .ledger.access import find
from .ledger.events import append_events
from .ledger.schema import organizations, repositories
from .ledger.triggers import containers_of, end_run, next_run
from .manifests import KINDS, Workload
from .patches import write_patch
from .policy import Reference
from .rights import Act, decide
from .store import Store
from .workloads import UpdateResult, update_images


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRun:
    """What came of one run: `name` is ORG/REPO:TAG, `files` those that were changed or written, below the folder.

    `error` "" means success; without files everything was right already.
    """

    trigger: str
    name: str
    digest: str
    workload: str
    files: tuple[str, ...] = ()
    error: str = ""


def run_triggers(
    store: Store,
    manifests: str | os.PathLike[str],
    *,
    actor: Actor,
    patch_only: bool = False,
    dry_run: bool = False,
    cancel: Cancel | None = None,
) -> list[TriggerRun]:
    """Carry out the pending runs in the manifests below the folder `manifests`; one result each, in the order of the loads.

    Runs of repositories that the actor may not edit stay pending.

    `patch_only` leaves the manifests as they are and writes a patch for kubectl beside them. `dry_run` touches no file, but the
    runs end in `store` all the same: it is for a plan's copy. Raises `StoreError`, `Cancelled`.
    """
    cancel, run_id = cancel or Cancel(), new_run_id(now_ms())
    done: list[TriggerRun] = []
    folder = os.fspath(manifests)
    registry, last = store.settings().get("registry", ""), 0
    with locked(store.lock("triggers"), cancel=cancel):
        while True:
            cancel.check()
            with store.ledger.read() as connection:
                row = next_run(connection, last)
                if row is None:
                    return done
                last = row.run
                statement = select(organizations.c.name, repositories.c.name).select_from(repositories.join(organizations))
                organization, repository = connection.execute(statement.where(repositories.c.id == row.repository_id)).one()
                facts = find(connection, actor, f"{organization}/{repository}", now_ms()).facts
            if not decide(actor, Act.TRIGGER_EDIT, facts).allowed:
                continue
            begun = now_ms()
            image = Reference(registry, organization, repository, row.tag)
            workload = Workload(KINDS[row.app_type], row.application, row.cluster_ns)
            containers = containers_of(row.container)
            if patch_only:
                result = write_patch(folder, workload, image, containers, to=folder, dry_run=dry_run)
            else:
                result = update_images(folder, workload, image, containers, dry_run=dry_run)
            files = (os.path.basename(result.patch),) if result.patch else result.files
            run = TriggerRun(
                trigger=row.name, name=image.name, digest=row.digest, workload=str(workload), files=files, error=result.error
            )
            _record(store, row, run, result, actor, run_id, begun)
            done.append(run)


def _record(store: Store, row: Any, run: TriggerRun, result: UpdateResult, actor: Actor, run_id: str, begun: int) -> None:
    """The end of a run, and its event, in one transaction."""
    now = now_ms()
    images = [{"file": e.file, "container": e.container, "before": e.before, "after": e.after} for e in result.changed]
    trace = new_trace(
        "runTrigger",
        actor=actor,
        run_id=run_id,
        time=begun,
        record_time=now,
        resource_name=f"{run.name.rpartition(':')[0]}:{run.trigger}",
        rating="warning" if run.error else "normal",
        message=run.error,
        request={"image": run.name, "digest": run.digest, "workload": run.workload, "load": row.run_id},
        response={"files": list(run.files), "images": images} | ({"error": run.error} if run.error else {}),
    )
    with store.ledger.write() as connection:
        end_run(connection, row.run, run.files, run.error, now)
        append_events(connection, [trace])
