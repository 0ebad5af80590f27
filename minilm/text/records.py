"""Records: the documents in JSON Lines, JSON arrays, CSV and Parquet, one text field of each record.

JSON and CSV are read as a stream, so that only one record is in memory; Parquet, by pyarrow, a batch of
rows at a time. The field is the one asked for, else "text", else the only one that holds text.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from minilm.errors import CorpusError, MissingExtraError
from minilm.text.conversations import MESSAGES, PAIR
from minilm.units import counted

# By the ending of a file's name.
FORMATS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
# These are never written as plain text for people, which the others are among other files.
ALWAYS_RECORDS = (".jsonl", ".ndjson", ".parquet")

LARGEST_RECORD = 2**26  # characters
_ROWS_AT_ONCE = 256
_READ_CHARACTERS = 2**16
_LISTED_FIELDS = 20
_QUOTED = re.compile('"[^"]*"?')
_AS_IT_IS = "take the file as it is: train with --raw-text"

Note = Callable[[str, str], object]
# Noted once for each of them.
NULL = "null in place of a text is left out"


def json_texts(
    texts: Iterable[str], where: str, text_field: str | None, note: Note
) -> Iterator[str]:
    """Yield the text of each record of JSON Lines, a JSON array or a single object, decoded.

    A record is an object with the text field, or a string; one whose text is null is left out. Raises
    CorpusError that names the record.
    """
    field = None
    for number, (record, _) in enumerate(json_values(texts, where), 1):
        if isinstance(record, str) and text_field is None:
            yield without_lone_surrogates(record)
            continue
        if not isinstance(record, dict):
            raise CorpusError(
                f"{where} record {number}",
                f"{type(record).__name__} in place of an object",
                f"an object with the field {text_field or 'text'}",
                _AS_IT_IS,
            )
        if field is None:
            if text_field is None and is_conversation(record):
                raise _conversations_error(where)
            field = choose_field(list(record), text_fields(record), text_field, where, is_text=True)
            note(where, f"documents are the field {field!r} of its records")
        text = text_of(record, field, f"{where} record {number}")
        if text is None:
            note(where, NULL)
        else:
            yield without_lone_surrogates(text)


def csv_texts(
    texts: Iterable[str], where: str, text_field: str | None, note: Note
) -> Iterator[str]:
    """Yield the text of each row below the header. Raises CorpusError that names the line."""
    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_RECORD))
    blank_lines = 0
    lines = _lines(texts, where)
    for first in lines:
        if first.strip(" \r\n"):
            break
        blank_lines += 1
    else:  # an empty file has no documents
        return
    delimiter = max(",;\t", key=_QUOTED.sub("", first).count)
    rows = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True)
    try:
        header = next(rows, [])
        field = choose_field(header, header, text_field, where, is_text=True)
        column = header.index(field)
        note(where, f"documents are the column {field!r} of its rows")
        for row in rows:
            if row and len(row) != len(header):
                raise CorpusError(
                    f"{where} line {blank_lines + rows.line_num}",
                    counted(len(row), "column"),
                    f"the {len(header)} of the header",
                    f"mend the line, or {_AS_IT_IS}",
                )
            if row:
                yield row[column]
    except csv.Error as error:
        raise CorpusError(
            f"{where} line {blank_lines + rows.line_num}",
            f"not CSV ({error})",
            "rows of a CSV file",
            _AS_IT_IS,
        ) from None


def parquet_texts(path: str, text_field: str | None, note: Note) -> Iterator[str]:
    """Yield the text of each row of a Parquet file; one whose text is null is left out.

    Raises MissingExtraError without pyarrow, CorpusError for a file or a column that cannot be read.
    """
    with _parquet_file(path) as file:
        schema = file.schema_arrow
        if text_field is None and is_conversation(_example_row(schema)):
            raise _conversations_error(path)
        strings = [each.name for each in schema if _holds_text(each.type)]
        strings = strings or [each.name for each in schema if str(each.type) == "null"]
        field = choose_field(schema.names, strings, text_field, path)
        note(path, f"documents are the column {field!r} of its rows")
        for number, row in enumerate(_rows(file, [field]), 1):
            text = text_of(row, field, f"{path} row {number}")
            if text is None:
                note(path, NULL)
            else:
                yield text


def parquet_has_conversations(path: str) -> bool:
    """Whether the columns of a Parquet file are those of conversations. Raises as `parquet_texts`."""
    with _parquet_file(path) as file:
        return is_conversation(_example_row(file.schema_arrow))


def parquet_conversations(path: str) -> Iterator[dict[str, Any]]:
    """Yield of each row the columns that a conversation may be in. Raises as `parquet_texts`."""
    with _parquet_file(path) as file:
        fields = [name for name in (*MESSAGES, *PAIR) if name in file.schema_arrow.names]
        yield from _rows(file, fields) if fields else [{}]


@contextlib.contextmanager
def _parquet_file(path: str) -> Iterator[Any]:
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "parquet", path)
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CorpusError(
            path, f"not read by pyarrow ({reason})", "a Parquet file", "leave it out with a glob"
        ) from None


def _rows(file: Any, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
        yield from batch.to_pylist()


def _example_row(schema: Any) -> dict[str, Any]:
    """A row with an empty list in each column of lists, None in the others."""
    from pyarrow import types

    def is_list(column: Any) -> bool:
        return bool(types.is_list(column) or types.is_large_list(column))

    return {each.name: [] if is_list(each.type) else None for each in schema}


def _holds_text(column: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(column):
        column = column.value_type
    return bool(types.is_string(column) or types.is_large_string(column))


def choose_field(
    fields: Sequence[str],
    text_fields: Sequence[str],
    requested_field: str | None,
    where: str,
    *,
    is_text: bool = False,
) -> str:
    """The field that documents are in, of ``fields``, of which ``text_fields`` hold text.

    ``is_text``: the records are in a text file, which may be taken as it is.
    """
    if requested_field is not None and requested_field in fields:
        return requested_field
    if requested_field is None and "text" in fields:
        return "text"
    if requested_field is None and len(text_fields) == 1:
        return text_fields[0]
    listed = ", ".join(field[:40] for field in fields[:_LISTED_FIELDS]) or "none"
    if len(fields) > _LISTED_FIELDS:
        listed += f" and {len(fields) - _LISTED_FIELDS} more"
    raise CorpusError(
        where,
        f"the fields {listed}",
        f"a field {requested_field or 'text'}",
        "name the one that holds the text with --text-field"
        + (f", or {_AS_IT_IS}" if is_text else ""),
    )


def text_fields(record: Mapping[str, Any]) -> list[str]:
    """The fields of a record that hold text, or, where none does, those that are null."""
    strings = [name for name, value in record.items() if isinstance(value, str)]
    return strings or [name for name, value in record.items() if value is None]


def text_of(record: Mapping[str, Any], field: str, where: str) -> str | None:
    """The text in a record's ``field``, None where that is null.

    Raises CorpusError with ``where`` for another value, and for a record without the field.
    """
    text = record.get(field)
    if isinstance(text, str) or (text is None and field in record):
        return text
    got = f"a field {field} of {type(text).__name__}" if field in record else f"no field {field}"
    raise CorpusError(
        where, got, "text in each record", "choose another with --text-field, or mend the record"
    )


def is_conversation(record: Any) -> bool:
    """Whether a record without a text holds `messages`, or `prompt` and `completion`."""
    return (
        isinstance(record, dict)
        and "text" not in record
        and (isinstance(record.get("messages"), list) or {*PAIR} <= record.keys())
    )


def _conversations_error(where: str) -> CorpusError:
    remedy = "`minilm finetune` trains a model that has been trained on text on them"
    return CorpusError(where, "conversations", "text", remedy)


_SPACE = re.compile(r"[ \t\r\n]*")


def json_values(texts: Iterable[str], where: str) -> Iterator[tuple[Any, int]]:
    """The elements of a JSON array, or the values that stand one after another; the line of each."""
    stream = iter(texts)
    decode = json.JSONDecoder().raw_decode
    buffer, start, number = "", 0, 0
    line, counted = 1, 0  # the line of buffer[counted]

    def refuse(reason: object) -> CorpusError:
        return CorpusError(
            f"{where} record {number + 1}",
            f"not JSON ({reason})",
            "JSON Lines or an array",
            f"mend the record, or {_AS_IT_IS}",
        )

    def read() -> bool:
        """Read as much again as is waiting; whether there was more."""
        nonlocal buffer, start, line, counted
        line, counted = line + buffer.count("\n", counted, start), 0
        parts, size = [buffer[start:]], 0
        while size < max(len(parts[0]), _READ_CHARACTERS) and (text := next(stream, "")):
            parts.append(text)
            size += len(text)
        buffer, start = "".join(parts), 0
        return size > 0

    def skip_space() -> str:
        """Move to the next character that is no space, and return it."""
        nonlocal start
        while True:
            match = _SPACE.match(buffer, start)
            assert match is not None
            start = match.end()
            if start < len(buffer) or not read():
                return buffer[start : start + 1]

    in_array = skip_space() == "["
    start += in_array
    while character := skip_space():
        if in_array and character == "]":
            start += 1
            if skip_space():
                raise refuse("text after the array")
            return
        if in_array and number:
            if character != ",":
                raise refuse("no comma between elements")
            start += 1
            skip_space()
        while True:
            try:
                value, end = decode(buffer, start)
            except json.JSONDecodeError as error:
                # An error near the end may only say that the value continues in the next text.
                at_end = error.pos > len(buffer) - 16 or error.msg.startswith("Unterminated string")
                place = error.pos - start
                if len(buffer) - start > LARGEST_RECORD:
                    raise refuse(f"over {LARGEST_RECORD:,} characters") from None
                if not at_end or not read():
                    reason = error.msg.removesuffix(" at")  # as that of an unterminated string ends
                    error_line = line + buffer.count("\n", counted, start + place)
                    raise refuse(f"{reason} at line {error_line}") from None
            except (ValueError, RecursionError) as error:  # too many digits, too deep
                raise refuse(error) from None
            else:
                break
        line, counted = line + buffer.count("\n", counted, start), start
        yield value, line
        start, number = end, number + 1
    if in_array:
        raise refuse("the array does not end")


def _lines(texts: Iterable[str], where: str) -> Iterator[str]:
    """The lines of ``texts`` with their ends, of whichever kind."""
    pending = ""
    for text in texts:
        lines = io.StringIO(pending + text, newline="").readlines()
        # A carriage return at the end may be followed by a newline.
        pending = "" if not lines or lines[-1].endswith("\n") else lines.pop()
        yield from lines
        if len(pending) > LARGEST_RECORD:
            raise CorpusError(
                where,
                f"a line of over {LARGEST_RECORD:,} characters",
                "rows of a CSV file",
                _AS_IT_IS,
            )
    if pending:
        yield pending


def without_lone_surrogates(text: str) -> str:
    r"""JSON can hold half of a surrogate pair, as "\ud800", which UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
