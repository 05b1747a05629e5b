"""One entry of a file that another program wrote: the records it became, or why it became none."""

from typing import NamedTuple

from store.codec import encode
from store.errors import UsageError
from store.records import Record


class Imported(NamedTuple):
    """The records of one entry of a foreign file, or why it has none; never the entry's text."""

    number: int  # line, element or row, from 1
    content: list[Record] | str


def checked(records: list[Record]) -> list[Record] | str:
    """`records`, or why they cannot be stored."""
    try:
        for record in records:
            encode(record)
    except UsageError as error:
        return error.message
    return records
