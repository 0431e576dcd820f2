"""Events as OCSF (Open Cybersecurity Schema Framework) API Activity, class 6003, for a SIEM or a security lake.

An event becomes one record: `record`. Written as JSON lines and as Parquet with the same fields (`schema`); `unmapped`, an
object in JSON, is a map of texts in Parquet, as security lakes have it. Only what the framework has had since 1.1 is used, so
the records are valid in every later version too, and say 1.1.0.

    activity   the verb of the event's name: create and upload 1, read and download 2, update 3, delete 4, else 99
    status     rating normal: Success 1; warning, incident: Failure 2
    severity   normal: Informational 1; warning: Medium 3; incident: High 4
    metadata   uid is the trace_id, sequence the place in the chain, logged_time the record_time
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .. import __version__
from .ledger import ChainedTrace

if TYPE_CHECKING:
    import pyarrow as pa

VERSION: Final = "1.1.0"
CLASS: Final = 6003
_VERB: Final = re.compile(r"[a-z]+", re.ASCII)
_ACTIVITY: Final = {
    **dict.fromkeys(("create", "upload", "add", "import"), (1, "Create")),
    **dict.fromkeys(("get", "list", "show", "read", "download", "query", "check"), (2, "Read")),
    **dict.fromkeys(("update", "modify", "change", "set"), (3, "Update")),
    **dict.fromkeys(("delete", "remove", "prune"), (4, "Delete")),
}
_SEVERITY: Final = {"normal": (1, "Informational"), "warning": (3, "Medium"), "incident": (4, "High")}
_MAPPED: Final = {
    "code",
    "message",
    "record_time",
    "resource_id",
    "resource_name",
    "resource_type",
    "service_type",
    "time",
    "trace_id",
    "trace_name",
    "trace_rating",
    "user",
}


def record(event: ChainedTrace, region: str) -> dict[str, Any]:
    """One event of the ledger as a record; texts that are empty are left out."""
    value = event.value
    verb = _VERB.match(value["trace_name"])
    activity, activity_name = _ACTIVITY.get(verb[0] if verb else "", (99, value["trace_name"]))
    severity, severity_name = _SEVERITY[value["trace_rating"]]
    failed = value["trace_rating"] != "normal"
    user, origin = value["user"], value["origin"]
    account = {"name": user["domain"]["name"]}
    found: dict[str, Any] = _filled(
        {
            "activity_id": activity,
            "activity_name": activity_name,
            "actor": {"user": {"name": user["name"], "account": account}},
            "api": {"operation": value["trace_name"], "service": {"name": value["service_type"]}},
            "category_name": "Application Activity",
            "category_uid": 6,
            "class_name": "API Activity",
            "class_uid": CLASS,
            "cloud": {"provider": "swrbatch", "region": region, "account": account},
            "message": value["message"],
            "metadata": {
                "correlation_uid": origin["run_id"],
                "event_code": value["trace_name"],
                "log_name": value["tracker_name"],
                "logged_time": value["record_time"],
                "product": {"name": "swrbatch", "vendor_name": "swrbatch", "version": __version__},
                "profiles": ["cloud"],
                "sequence": event.seq,
                "uid": value["trace_id"],
                "version": VERSION,
            },
            "resources": [{"name": value["resource_name"], "type": value["resource_type"], "uid": value["resource_id"]}],
            "severity": severity_name,
            "severity_id": severity,
            # The operation was local: its source is the machine that ran it.
            "src_endpoint": {"hostname": origin["host"] or "localhost"},
            "status": "Failure" if failed else "Success",
            "status_code": value["code"],
            "status_id": 2 if failed else 1,
            "time": value["time"],
            "type_name": f"API Activity: {'Other' if activity == 99 else activity_name}",
            "type_uid": CLASS * 100 + activity,
            "unmapped": {key: _text(item) for key, item in value.items() if key not in _MAPPED},
        }
    )
    return found


def json_lines(records: Sequence[dict[str, Any]]) -> bytes:
    """Records as JSON, one a line."""
    return "".join(json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n" for each in records).encode()


def parquet(records: Sequence[dict[str, Any]]) -> bytes:
    """Records as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**each, "unmapped": list(each.get("unmapped", {}).items())} for each in records]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows, schema=schema().with_metadata({"ocsf.version": VERSION, "swrbatch.version": __version__}))
    pq.write_table(table, sink, compression="zstd", write_page_index=True, write_page_checksum=True)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return, unused-ignore]


def schema() -> pa.Schema:
    """The Arrow schema of the records."""
    import pyarrow as pa

    def texts(*names: str) -> list[Any]:
        return [pa.field(name, pa.string()) for name in names]

    def whole(name: str) -> Any:
        return pa.field(name, pa.int64(), nullable=False)

    account = pa.field("account", pa.struct(texts("name")))
    moment = pa.int64()  # the framework's timestamp_t: ms since 1970, UTC
    product = pa.field("product", pa.struct(texts("name", "vendor_name", "version")))
    metadata = [
        *texts("correlation_uid", "event_code", "log_name"),
        pa.field("logged_time", moment),
        product,
        pa.field("profiles", pa.list_(pa.string())),
        pa.field("sequence", pa.int64()),
        *texts("uid", "version"),
    ]
    return pa.schema(
        [
            whole("activity_id"),
            *texts("activity_name"),
            pa.field("actor", pa.struct([pa.field("user", pa.struct([*texts("name"), account]))])),
            pa.field("api", pa.struct([*texts("operation"), pa.field("service", pa.struct(texts("name")))])),
            *texts("category_name"),
            whole("category_uid"),
            *texts("class_name"),
            whole("class_uid"),
            pa.field("cloud", pa.struct([*texts("provider", "region"), account])),
            *texts("message"),
            pa.field("metadata", pa.struct(metadata)),
            pa.field("resources", pa.list_(pa.struct(texts("name", "type", "uid")))),
            *texts("severity"),
            whole("severity_id"),
            pa.field("src_endpoint", pa.struct(texts("hostname"))),
            *texts("status", "status_code"),
            whole("status_id"),
            whole("time"),
            *texts("type_name"),
            whole("type_uid"),
            pa.field("unmapped", pa.map_(pa.string(), pa.string())),
        ]
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _filled(value: Any) -> Any:
    """The value without empty texts, and without what is empty then."""
    if isinstance(value, dict):
        kept = ((key, _filled(item)) for key, item in value.items())
        return {key: item for key, item in kept if item not in ("", {}, [])}
    if isinstance(value, list):
        return [item for item in map(_filled, value) if item not in ("", {}, [])]
    return value
