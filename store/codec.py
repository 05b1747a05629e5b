"""Records to canonical JSON and back, and the limits on what may enter the store."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from store.errors import IntegrityError, UsageError
from store.records import RECORD_TYPES, Record, canonical, digest

MAX_BODY = 8 * 2**20  # bytes of one record's canonical form
_ESCAPED_NUL = b"\\u0000"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A record ready for storage."""

    id: str
    kind: str
    time: float
    subject: str
    body: bytes


def encode(record: Record) -> Encoded:
    """Canonical form of `record`, checked.

    Raises:
        UsageError: text with NUL or lone surrogates, numbers that are not finite (``bad_text``,
            ``bad_number``), or more than 8 MiB (``too_large``).
    """
    kind = type(record).__name__
    if not hasattr(record, "time") or kind == "Example":
        raise UsageError(f"A {kind} is derived and never stored.", code="not_stored")
    values = _values(record)
    try:
        body = canonical(values)
    except UnicodeEncodeError:
        raise UsageError(
            f"The {kind} contains broken Unicode (lone surrogates).", hint="Clean the text.", code="bad_text"
        ) from None
    except ValueError:
        raise UsageError(f"The {kind} contains a number that is not finite.", code="bad_number") from None
    if len(body) > MAX_BODY:
        raise UsageError(
            f"The {kind} has {len(body):,} bytes; the limit is {MAX_BODY:,}.", hint="Shorten it.", code="too_large"
        )
    if _ESCAPED_NUL in body and _has_nul(values):
        raise UsageError(f"The {kind} contains NUL characters.", hint="Remove them.", code="bad_text")
    subject = values.get("interaction", "")
    return Encoded(record_id(kind, body), kind, float(values["time"]), subject, body)


def record_id(kind: str, body: bytes) -> str:
    """The id of the record with this canonical body; equals `Record.id`."""
    return digest(b'["' + kind.encode() + b'",' + body + b"]")


def decode(kind: str, body: str | bytes, types: dict[str, type[Record]] = RECORD_TYPES) -> Record:
    """The record with this canonical body.

    Raises:
        IntegrityError: it does not have the shape of a `kind` (``bad_record``).
    """
    try:
        values = json.loads(body)
        return build(types[kind], values)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(
            f"A stored {kind} cannot be read.", hint="Run `corrigible doctor`.", code="bad_record"
        ) from None


R = TypeVar("R", bound=Record)


def build(kind: type[R], values: dict[str, Any]) -> R:
    """A `kind` from the values of its JSON object; lists become tuples, objects become values."""
    makers: dict[str, Any] = _makers(kind)  # type: ignore[arg-type]  # classes are hashable
    return kind(**{name: makers[name](value) if name in makers else value for name, value in values.items()})


def _values(record: object) -> dict[str, Any]:
    """As `dataclasses.asdict`, without its copies of every string: this is on the path of every write."""
    return {name: _value(getattr(record, name)) for name in record.__dataclass_fields__}  # type: ignore[attr-defined]


def _value(value: Any) -> Any:  # noqa: ANN401 - any field
    if isinstance(value, tuple):
        return [_value(item) for item in value]
    return _values(value) if hasattr(value, "__dataclass_fields__") else value


@cache
def _makers(kind: type[Record]) -> dict[str, Any]:
    """For each tuple field of `kind`, a function from its JSON list."""
    makers: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is tuple:
            item = get_args(hint)[0]
            if hasattr(item, "__dataclass_fields__"):
                makers[name] = lambda values, item=item: tuple(item(**value) for value in values)
            else:
                makers[name] = _deep_tuple
    return makers


def _deep_tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_deep_tuple(value) if isinstance(value, list) else value for value in values)


def _has_nul(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(map(_has_nul, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_nul, value))
