"""Batches of JSON columns, as DuckDB reads them, into packed batches of `TraceRow`: what `traces.read_trace` does, for many.

Values that are seldom twice the same are checked and converted as vectors; all others once for each different text, by the exact
reader's own functions. A row that breaks the contract, or has a value that no column takes, is `odd`: it is left out and told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..tables import row_schema
from .files import DECODER
from .packed import REPEATED, packed, packed_lists, packed_schema
from .traces import (
    DAY_MS,
    EARLIEST_MS,
    FLAGS,
    MAX_DEPTH,
    MAX_MS,
    NAMED,
    RATINGS,
    TEXTS,
    USER_COLUMNS,
    Source,
    TraceRow,
    as_float,
    as_text,
    compact,
    event_flag,
    is_error,
    is_number,
    is_time,
    is_trace_name,
    name_fits,
    no_user,
    parse_time,
    read_user,
    sorted_json,
    too_deep,
    user_due,
)

if TYPE_CHECKING:
    import pyarrow as pa

PLAIN_TEXTS: Final = (*TEXTS, "trace_rating", "trace_status")
JSON: Final = ("code", "user", "request", "response", "time", "record_time", "read_only", "content_length", "total_time")
FLAT_TEXTS: Final = (*PLAIN_TEXTS, "user", "request", "response")
_NOT_TEXTS: Final = tuple(name for name in JSON if name not in FLAT_TEXTS)
KNOWN: Final = (*PLAIN_TEXTS, *JSON)
"""The keys that columns are made of."""
_CACHED: Final = 50_000
_COUNTED: Final = 1 << 16


def extra(key: str) -> str:
    """The name of the column of a key that is none of `KNOWN`; no other column has such a name."""
    return f"+{key}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of a batch stand: `runs` of one file (begin, end, number, position of the first), and columns."""

    runs: list[tuple[int, int, int, int]]
    columns: dict[str, Any]
    latest: Any
    """For each row the time, ms UTC, after which an event is of the future."""
    uploaded: Any
    """Upload time, ms UTC, 0 where it is not known."""


class Places:
    """Numbers the rows of files as they come, in order."""

    def __init__(self, sources: Mapping[int, Source], now: int) -> None:
        self._sources = sources
        self._now = now
        self._seen = dict.fromkeys(sources, 0)

    def of(self, numbers: Any) -> Place:
        """The place of the next rows, which are of the files `numbers`."""
        import numpy as np
        import pyarrow as pa

        found = numbers.to_numpy(zero_copy_only=False)
        ends = [*(np.flatnonzero(np.diff(found)) + 1).tolist(), len(found)]
        runs: list[tuple[int, int, int, int]] = []
        for begin, end in zip([0, *ends], ends, strict=False):
            number = int(found[begin])
            runs.append((begin, end, number, self._seen[number]))
            self._seen[number] += end - begin
        sources = [self._sources[number] for _, _, number, _ in runs]
        lengths = [end - begin for begin, end, _, _ in runs]
        codes = np.repeat(np.arange(len(runs)), lengths)
        uploaded = np.repeat([each.uploaded or 0 for each in sources], lengths)
        known = np.repeat([each.uploaded is not None for each in sources], lengths)
        columns = {
            "region": packed([each.region for each in sources], codes),
            "uploaded": pa.array([each.uploaded for each in sources], pa.timestamp("ms", tz="UTC")).take(_index(codes)),
            "source_file": packed([each.name for each in sources], codes),
            "source_position": pa.array(
                np.concatenate([np.arange(first, first + n) for (*_, first), n in zip(runs, lengths, strict=True)])
            ),
        }
        return Place(runs, columns, np.where(known, uploaded, self._now) + DAY_MS, uploaded)


class Converter:
    """Batches of JSON columns into batches of `TraceRow`, packed.

    Columns that come: `file`; texts, unquoted; `request` and `response`, unquoted, with `…_other` where they were no text; the
    rest as JSON, learned keys as `extra` names them; `odd` where a text is none. Without `odd`, every text is one, and so are
    `user`, `request` and `response`. What goes: the plain rows, which rows are odd, and for each row the number of its keys,
    those inside of values included, and of its texts (where there is no `odd`).
    """

    def __init__(self, now: int, catalog: str) -> None:
        self._now = now
        self._catalog = catalog
        self._users = _Cache(_user_of)
        self._plain_users = _Cache(lambda text: (False, 0, read_user(text)))
        self._codes = _Cache(_code_of)
        self._numbers = _Cache(_number_of)
        self._flag_lists = _Cache(_flag_list)

    def __call__(self, batch: pa.RecordBatch, place: Place, learned: Sequence[str]) -> tuple[pa.RecordBatch, Any, Any, Any]:
        import numpy as np
        import pyarrow as pa

        given = {name: batch.column(name) for name in batch.schema.names}
        flat = "odd" not in given
        odd = np.zeros(batch.num_rows, dtype=bool) if flat else _bools(given["odd"])
        keys = _present(given, (*KNOWN, *map(extra, learned)))
        strings = _present(given, FLAT_TEXTS) + _quoted(given, (*_NOT_TEXTS, *map(extra, learned)))
        made: dict[str, Any] = {name: _encoded(given[name]) if name in REPEATED else given[name] for name in TEXTS}
        made |= place.columns
        judged = [
            _ratings(given, made),
            *(_times(given, made, name) for name in ("time", "record_time")),
            _each(self._plain_users if flat else self._users, given["user"], made, USER_COLUMNS),
            _each(self._codes, given["code"], made, ("code",)),
            *(_objects(given, made, name) for name in ("request", "response")),
            _truths(given, made, "read_only"),
            *(_each(self._numbers, given[name], made, (name,)) for name in ("content_length", "total_time")),
            _extras(given, made, learned),
            _names(made),
        ]
        for wrong, inside in judged:
            if wrong is not None:
                odd |= wrong
            if inside is not None:
                keys += inside
        made["flags"] = self._flags(made, place)
        made["violations"] = packed_lists([[]], np.zeros(batch.num_rows, dtype=np.int32))
        schema = packed_schema()
        rows = pa.RecordBatch.from_arrays([made[name].cast(schema.field(name).type) for name in schema.names], schema=schema)
        return (rows.filter(pa.array(~odd)) if odd.any() else rows), odd, keys, strings

    def _flags(self, made: Mapping[str, Any], place: Place) -> Any:
        import numpy as np

        service, kind, rating = _Codes(made["service_type"]), _Codes(made["resource_type"]), _Codes(made["trace_rating"])
        event = _Codes(made["trace_name"])
        catalog = self._catalog
        found = _combined((service, event, kind), lambda s, e, k: _BITS.get(event_flag(catalog, s, e, k) or "", 0))
        found |= _combined(
            (rating, _Codes(made["code"])), lambda r, c: _BITS["rating-code"] * (r == "normal" and c is not None and is_error(c))
        )
        due = _combined((_Codes(made["trace_type"]),), lambda t: int(user_due(t)))
        if due.any():
            nobody = _combined((_Codes(made["user_text"]),), lambda u: _BITS["user-missing"] * no_user(u))
            found |= np.where(due == 1, nobody, 0)
        found |= _misnamed(
            made, _combined((service, kind), lambda s, k: s == "SWR" and (1 if k in NAMED else 2 * (k == "usernamespace")))
        )
        found |= _time_bits(made, place)
        firsts, index = _different(found)
        return packed_lists([self._flag_lists(bits) for bits in found[firsts].tolist()], index)


_BITS: Final = {name: 1 << position for position, name in enumerate(sorted(FLAGS))}
# Names that fit, whatever the kind but `usernamespace`; most do. The policy judges those that do not match.
_FITTING: Final = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)?(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$"
_FITTING_LENGTH: Final = 64
Judged = tuple[Any, Any]
"""Which rows are odd, and the number of keys inside of the values of each row; None for none."""


class _Cache:
    """A function's results, kept for as long as they are not too many."""

    def __init__(self, made: Callable[[Any], Any]) -> None:
        self._made = made
        self._results: dict[Any, Any] = {}

    def __call__(self, value: Any) -> Any:
        if value not in self._results:
            if len(self._results) >= _CACHED:
                self._results.clear()
            self._results[value] = self._made(value)
        return self._results[value]


def _encoded(column: Any) -> Any:
    import pyarrow as pa

    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


class _Codes:
    """A column as codes of its different values: `codes` has -1 for null."""

    def __init__(self, column: Any) -> None:
        import numpy as np

        encoded = _encoded(column)
        self.codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        self.values = encoded.dictionary.to_pylist()

    def value(self, code: int) -> Any:
        return None if code < 0 else self.values[code]


def _combined(columns: Sequence[_Codes], judge: Callable[..., int]) -> Any:
    """For each row what `judge` says of its values, called once for each different combination."""
    import numpy as np

    key = np.zeros(len(columns[0].codes), dtype=np.int64)
    for column in columns:
        key = key * (len(column.values) + 1) + column.codes + 1
    firsts, index = _different(key)
    judged = [int(judge(*(column.value(int(column.codes[first])) for column in columns))) for first in firsts]
    return np.array(judged, dtype=np.int64)[index]


def _different(keys: Any) -> tuple[Any, Any]:
    """The places of the first row of each different key (whole numbers from 0), and for each row the number of its key there."""
    import numpy as np

    most = int(keys.max(initial=0))
    if most > _COUNTED:
        _, firsts, index = np.unique(keys, return_index=True, return_inverse=True)
        return firsts, index
    # Without sorting: of the places that are written for a key, the first row's is the last.
    seen = np.full(most + 1, -1, dtype=np.int64)
    seen[keys[::-1]] = np.arange(len(keys) - 1, -1, -1)
    known = np.flatnonzero(seen >= 0)
    numbers = np.empty(most + 1, dtype=np.int64)
    numbers[known] = np.arange(len(known))
    return seen[known], numbers[keys]


def _present(given: Mapping[str, Any], names: Sequence[str]) -> Any:
    """For each row the number of columns that are not null."""
    import numpy as np

    found = np.zeros(len(given["file"]), dtype=np.int64)
    whole = 0
    for name in names:
        column = given[name]
        if column.null_count == 0:
            whole += 1
        elif column.null_count < len(column):
            found += column.is_valid().to_numpy(zero_copy_only=False)
    return found + whole


def _quoted(given: Mapping[str, Any], names: Sequence[str]) -> Any:
    """For each row the number of columns whose JSON is a text."""
    import numpy as np
    import pyarrow.compute as pc

    found = np.zeros(len(given["file"]), dtype=np.int64)
    for name in names:
        if given[name].null_count < len(given[name]):
            found += _bools(pc.starts_with(given[name], '"'))
    return found


def _bools(column: Any) -> Any:
    import numpy as np

    return np.array(column.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)


def _index(positions: Any) -> Any:
    import pyarrow as pa

    return pa.array(positions)


def _flag_list(bits: int) -> list[str]:
    return [name for name, bit in _BITS.items() if bits & bit]


def _keys_inside(text: str) -> int:
    """Keys of the objects in a JSON text without white space; see `_Look`."""
    return text.count('":') - text.count('\\":')


def _value_of(text: str) -> Any:
    """A column's JSON text as a value; ValueError where the exact reader has to decide."""
    value = DECODER.decode(text)
    if isinstance(value, dict | list) and too_deep([value], f"[{text}"):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return value


# Each gives (odd, keys inside, values of the columns).
_ODD: Final = (True, 0, None)


def _user_of(text: str) -> tuple[bool, int, Any]:
    try:
        value = _value_of(text)
    except (ValueError, RecursionError):
        return _ODD
    return (
        (False, _keys_inside(text) if isinstance(value, dict) else 0, read_user(value)) if isinstance(value, dict | str) else _ODD
    )


def _code_of(text: str) -> tuple[bool, int, Any]:
    try:
        value = _value_of(text)
    except ValueError:
        return _ODD
    return (False, 0, (as_text(value),)) if isinstance(value, str) or is_number(value) else _ODD


def _number_of(text: str) -> tuple[bool, int, Any]:
    try:
        number = as_float(_value_of(text))
    except (ValueError, RecursionError):
        return _ODD
    return (False, 0, (number,)) if number is not None else _ODD


def _each(cache: _Cache, column: Any, made: dict[str, Any], names: Sequence[str]) -> Judged:
    """Columns out of one, converted once for each different text."""
    import numpy as np
    import pyarrow as pa

    schema = row_schema(TraceRow)
    if column.null_count == len(column):
        made.update({name: pa.nulls(len(column), schema.field(name).type) for name in names})
        return None, None
    codes = _Codes(column)
    results = [*(cache(text) for text in codes.values), (False, 0, None)]  # the last one is that of null: code -1
    for position, name in enumerate(names):
        values = [None if found is None else found[position] for _, _, found in results]
        index = codes.codes % len(results)
        made[name] = packed(values, index) if name in REPEATED else pa.array(values, schema.field(name).type).take(_index(index))
    odd, inside = (np.array([result[i] for result in results])[codes.codes] for i in (0, 1))
    return odd, inside


def _ratings(given: Mapping[str, Any], made: dict[str, Any]) -> Judged:
    import pyarrow.compute as pc

    rating, status = given["trace_rating"], given["trace_status"]
    both = None
    if status.null_count < len(status):
        both = ~_bools(rating.is_null()) & ~_bools(status.is_null())
        rating = pc.coalesce(rating, status)
    made["trace_rating"] = rating = _encoded(rating)
    wrong = _combined((_Codes(rating),), lambda r: r not in RATINGS) == 1
    return wrong if both is None else wrong | both, None


def _times(given: Mapping[str, Any], made: dict[str, Any], name: str) -> Judged:
    """Whole numbers of ms as vectors, everything else one by one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    column = given[name]
    try:
        found = column.cast(pa.int64())
    except pa.ArrowInvalid:
        found = pc.if_else(pc.match_substring_regex(column, "^[0-9]{1,15}$"), column, None).cast(pa.int64())
    ms = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    missing = _bools(column.is_null())
    slow = ~missing & ((ms < 0) | (ms > MAX_MS))
    odd = missing if name == "time" else np.zeros(len(ms), dtype=bool)
    texts: dict[int, str | None] = {}
    for row in np.flatnonzero(slow).tolist():
        moment, texts[row], wrong = _time_of(column[row].as_py())
        ms[row] = -1 if moment is None else moment
        odd[row] |= wrong
    made[name] = pa.array(ms, mask=ms < 0).cast(pa.timestamp("ms")).cast(row_schema(TraceRow).field(name).type)
    made[f"{name}_text"] = (
        pa.array([texts.get(row) for row in range(len(ms))], pa.string()) if texts else pa.nulls(len(ms), pa.string())
    )
    return odd, None


def _time_of(text: str) -> tuple[int | None, str | None, bool]:
    """ms UTC, the text, and whether the contract refuses it."""
    try:
        value = _value_of(text)
    except (ValueError, RecursionError):
        return None, None, True
    return (*parse_time(value), not is_time(value))


def _objects(given: Mapping[str, Any], made: dict[str, Any], name: str) -> Judged:
    """Texts as they are; objects and arrays as compact JSON."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    made[name] = given[name]
    other = _bools(given[f"{name}_other"]) if f"{name}_other" in given else np.zeros(0, dtype=bool)
    if not other.any():
        return None, None
    odd, inside = np.zeros(len(other), dtype=bool), np.zeros(len(other), dtype=np.int64)
    texts: list[str | None] = []
    for row in np.flatnonzero(other).tolist():
        text = given[name][row].as_py()
        try:
            value = _value_of(text)
            odd[row] = not isinstance(value, dict | list)
            texts.append(compact(value))
            inside[row] = _keys_inside(text)
        except (ValueError, RecursionError):
            odd[row] = True
            texts.append(None)
    made[name] = pc.replace_with_mask(given[name], pa.array(other), pa.array(texts, pa.string()))
    return odd, inside


def _truths(given: Mapping[str, Any], made: dict[str, Any], name: str) -> Judged:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = given[name]
    true: Any = pa.scalar("true")
    made[name] = pc.equal(column, true)
    return _combined((_Codes(column),), lambda v: v not in ("true", "false", None)) == 1, None


def _extras(given: Mapping[str, Any], made: dict[str, Any], learned: Sequence[str]) -> Judged:
    """The keys that no column takes, as one object; the same for each different combination of values."""
    import numpy as np
    import pyarrow as pa

    size = len(given["file"])
    used = [name for name in learned if given[extra(name)].null_count < size]
    if not used:
        made["extra"] = pa.nulls(size, pa.string())
        return None, None
    columns = [given[extra(name)].to_pylist() for name in used]
    cache = _Cache(_extra_of)
    results = [cache(tuple(zip(used, texts, strict=True))) for texts in zip(*columns, strict=True)]
    made["extra"] = pa.array([result[2] for result in results], pa.string())
    return np.array([result[0] for result in results]), np.array([result[1] for result in results], dtype=np.int64)


def _extra_of(pairs: tuple[tuple[str, str | None], ...]) -> tuple[bool, int, str | None]:
    texts = {name: text for name, text in pairs if text is not None}
    try:
        values = {name: _value_of(text) for name, text in texts.items()}
    except (ValueError, RecursionError):
        return _ODD
    inside = sum(_keys_inside(texts[name]) for name, value in values.items() if isinstance(value, dict | list))
    return False, inside, sorted_json(values) if values else None


def _names(made: Mapping[str, Any]) -> Judged:
    """What the contract says of trace_id and trace_name."""
    import pyarrow.compute as pc

    length = pc.utf8_length(made["trace_id"]).fill_null(0).to_numpy(zero_copy_only=False)
    name = _combined((_Codes(made["trace_name"]),), lambda n: n is None or not is_trace_name(n))
    return (length < 1) | (length > 128) | (name == 1), None


def _misnamed(made: Mapping[str, Any], kinds: Any) -> Any:
    """The bit of `name`, where a name does not fit; `kinds`: 1 for repositories and images, 2 for organizations, 0 for others."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = np.zeros(len(kinds), dtype=np.int64)
    names = made["resource_name"]
    short: Any = pc.less_equal(pc.binary_length(names), pa.scalar(_FITTING_LENGTH, pa.int32()))
    fitting = pc.and_(pc.match_substring_regex(names, _FITTING), short)
    doubtful = np.flatnonzero((kinds == 2) | ((kinds == 1) & ~_bools(fitting)))
    if len(doubtful):
        chosen = _index(doubtful)
        pairs = (_Codes(made["resource_type"].take(chosen)), _Codes(names.take(chosen)))
        found[doubtful] = _combined(pairs, lambda kind, name: _BITS["name"] * (not name_fits(kind, name)))
    return found


def _time_bits(made: Mapping[str, Any], place: Place) -> Any:
    """The bits of what is wrong with the times."""
    import numpy as np
    import pyarrow as pa

    def ms(name: str) -> tuple[Any, Any]:
        return made[name].cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), ~_bools(made[name].is_null())

    time, read = ms("time")
    recorded, known = ms("record_time")
    found = np.where(read, 0, _BITS["time-unread"])
    for name, wrong in (
        ("time-early", time < EARLIEST_MS),
        ("time-future", time > place.latest),
        ("record-early", known & (recorded < time)),
        ("late", place.uploaded // DAY_MS > time // DAY_MS),
    ):
        found |= np.where(read & wrong, _BITS[name], 0)
    return found
