"""Reads tables with pandas: encoding and delimiter are found, every row keeps its line, and nothing is lost without a word."""

import codecs
import csv
import io
import json
import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import numpy as np
import pandas as pd

from components.data.findings import Findings
from components.errors import ConfigurationError, DataError
from components.text import error_text, escaped

MAX_RECORD_LENGTH = 131_072
"""Characters of a row at most: Python's csv module takes no longer field."""

_MAX_RECORD_LINES, _MAX_HEADER_LINES = 1_000, 20
_DELIMITERS = ",;\t|"
_CHUNK = 50_000
_MARK = "\ufdd0"  # no character: Unicode keeps it for a program's own use
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202d\u202e\ud800-\udfff]")
"""Control characters, the two that turn text around, and bytes that the table's encoding does not know. Tabs, line ends
and invisible joiners are ordinary text."""

_UNKNOWN = re.compile("[\udc80-\udcff]")
"""What Python makes of bytes that are not UTF-8."""

_FORMATS = {"parquet": "parquet", "pq": "parquet", "jsonl": "json", "ndjson": "json", "json": "json"} | dict.fromkeys(
    ("xlsx", "xlsm", "xls", "ods"), "excel"
)


@dataclass(frozen=True)
class Rows:
    """A table's rows as text, those that cannot be used left out.

    Attributes:
        frame: The wanted columns, indexed by line (by row where the file has no lines).
        beyond: (N,) object; what a row has beyond the header's last column, delimiters included; empty for nothing.
        num_rows: Rows of the file, those left out included; blank lines and the header are none.
        place: Begins the place of a row in findings; its number follows.
        header: Every column's name.
    """

    frame: pd.DataFrame
    beyond: np.ndarray
    num_rows: int
    place: str
    header: list[str]


def read_rows(data: bytes, name: str, columns: Sequence[str], findings: Findings, *, knows_quotes: bool = True) -> Rows:
    """Read columns of a table as text.

    Fields are separated by comma, semicolon, tab or bar; a first line such as `sep=;` is heeded. Text is UTF-8, UTF-16 or,
    where neither fits, Windows-1252. Parquet, JSON lines and Excel are told by the name's ending.

    Args:
        data: The file.
        name: File name.
        columns: What to return. Blanks around the header's names do not count.
        findings: Receives rows that are too long or too short, wrongly quoted, or hold control characters or bytes that are not UTF-8.
        knows_quotes: False for a format whose writers do not quote: a quote that does not fit is then ordinary text.

    Raises:
        DataError: The file is no such table, or lacks a column.
        ConfigurationError: The package that reads this format is not installed.
    """
    columns = [normalised(column) for column in columns]
    if kind := _FORMATS.get(name.rpartition(".")[2].lower()):
        frame = _other_format(data, name, kind)
        header = list(frame.columns)
        frame = frame.iloc[:, _picked(header, columns, name)].map(_text)
        beyond, num_rows, place = np.full(len(frame), "", object), len(frame), f"{name} row"
    else:
        encoding = _encoding(data)
        if encoding != "utf-8":
            findings.notes[f"encoding of {name}"] = encoding
        lines = _Lines(data, encoding)
        delimiter, header = _header(lines, columns, name)
        picked = _picked(header, columns, name)
        records = _Records(lines, delimiter, len(header), findings, name, knows_quotes=knows_quotes)
        frame, beyond = _parsed(records, len(header), picked, delimiter, findings)
        num_rows, place = records.num_rows, f"{name} line"
    frame.columns = columns
    readable = np.ones(len(frame), bool)
    for number, values in enumerate(zip(*(frame[column] for column in columns), strict=True)):
        if strange := next((value for value in values if _CONTROL.search(value)), None):
            reason = "bytes that are not UTF-8" if _UNKNOWN.search(strange) else "control character"
            shown = _UNKNOWN.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", strange)
            findings.quarantine(f"{place} {frame.index[number]}", reason, shown)
            readable[number] = False
    return Rows(frame[readable], beyond[readable], num_rows, place, header)


def normalised(text: str) -> str:
    """Return text in Unicode's composed form (NFC), trimmed, each run of blanks a single space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class _Lines:
    """Physical lines with their numbers, any line ends; lines that were taken on trial can be given back."""

    def __init__(self, data: bytes, encoding: str) -> None:
        errors = "replace" if encoding.startswith("utf-16") else "surrogateescape"
        self._lines = io.TextIOWrapper(io.BytesIO(data), encoding, errors=errors, newline="")
        self._back: deque[str] = deque()
        self.number = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._lines)
        self.number += 1
        return line.removeprefix("\ufeff") if self.number == 1 else line

    def give_back(self, lines: list[str]) -> None:
        """Take lines back that were read last, in order."""
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)


class _Records:
    """A text file as pandas reads it: one row at a time, each of them sound, blank lines left out.

    Attributes:
        name: File name.
        numbers: Line on which each row begins that was handed out, the header included, until it is taken out.
        num_rows: Rows seen, the header not counted.
    """

    def __init__(
        self, lines: _Lines, delimiter: str, num_columns: int, findings: Findings, name: str, *, knows_quotes: bool
    ) -> None:
        self._lines, self._delimiter, self._num_columns = lines, delimiter, num_columns
        self._findings, self.name, self._knows_quotes = findings, name, knows_quotes
        self.numbers: list[int] = []
        self.num_rows = -1

    def __iter__(self) -> Self:
        return self

    def read(self, size: int = -1) -> str:
        """Exist, because pandas asks for it; it reads rows."""
        raise io.UnsupportedOperation(size)

    def readline(self) -> str:
        """Return the next row, or nothing at the end."""
        return next(self, "")

    def __next__(self) -> str:
        for line in self._lines:
            if not line.strip("\r\n"):
                continue
            self.num_rows += 1
            number = self._lines.number
            try:
                record = self._whole(line) if '"' in line else line
                if len(record) > MAX_RECORD_LENGTH:
                    raise csv.Error(f"longer than {MAX_RECORD_LENGTH:,} characters")
            except csv.Error as error:
                self._findings.quarantine(f"{self.name} line {number}", str(error), line[:200].rstrip("\r\n"))
                continue
            self.numbers.append(number)
            return record
        raise StopIteration

    def _whole(self, line: str) -> str:
        """Return a row whose first line holds a quote, as strict csv; raise `csv.Error` where it is no row."""
        taken = [line]

        def following() -> Iterator[str]:
            yield line
            for more in self._lines:
                taken.append(more)
                if len(taken) > _MAX_RECORD_LINES or sum(map(len, taken[-2:])) > MAX_RECORD_LENGTH:
                    return
                yield more

        try:
            fields = next(csv.reader(following(), delimiter=self._delimiter, strict=True))
            if len(taken) == 1 or self._is_one_row(fields, taken):
                return "".join(taken)
            problem = f"a quote opens a field of {len(taken)} lines"
        except csv.Error as error:
            problem = str(error)
        self._lines.give_back(taken[1:])
        lenient = next(csv.reader([line], delimiter=self._delimiter))
        if len(lenient) != self._num_columns or line.count('"') % 2:
            lenient = line.rstrip("\r\n").split(self._delimiter)
            if self._knows_quotes:
                raise csv.Error(f"quoting is wrong ({problem})")
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerow(lenient)
        return text.getvalue()

    def _is_one_row(self, fields: list[str], lines: list[str]) -> bool:
        if self._knows_quotes:
            return len(fields) == self._num_columns
        return len(fields) >= self._num_columns and not any(
            line.count(self._delimiter) >= self._num_columns - 1 for line in lines[1:]
        )


def _encoding(data: bytes) -> str:
    """Return the encoding: what a byte order mark says, else what fits."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return encoding
    start = np.frombuffer(data[:4096][: len(data[:4096]) // 2 * 2], np.uint8).reshape(-1, 2)
    if len(start) and (start == 0).mean(axis=0).max() > 0.4:
        return "utf-16-le" if (start[:, 1] == 0).mean() > 0.4 else "utf-16-be"
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(data)
    try:
        for at in range(0, len(view), 2**20):
            decoder.decode(view[at : at + 2**20])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        valid = _MULTIBYTE.findall(data)
        num_others = sum(byte > 0x7F for byte in data) - sum(map(len, valid))
        return "utf-8" if len(valid) > num_others else "cp1252"
    return "utf-8"


def _header(lines: _Lines, columns: Sequence[str], name: str) -> tuple[str, list[str]]:
    """Return delimiter and column names; `lines` then goes on with the header."""
    delimiters, first = _DELIMITERS, _filled(lines)
    if said := re.fullmatch(r'"?sep=(.)"?[,;\t]*', first.rstrip("\r\n")):
        delimiters, first = said[1], _filled(lines)
    taken = [first, *islice(lines, _MAX_HEADER_LINES)] if first else []
    lines.give_back(taken)
    headers, problem = {}, ""
    for delimiter in delimiters:
        try:
            headers[delimiter] = [
                normalised(column) for column in next(csv.reader(taken, delimiter=delimiter, strict=True), [])
            ]
        except csv.Error as error:
            problem = str(error)
    if not headers:
        raise DataError(f"{name}: first line must hold the column names; got {problem}. Correct it")
    return max(headers.items(), key=lambda item: (len({*columns} & {*item[1]}), len(item[1])))


def _filled(lines: _Lines) -> str:
    return next((line for line in lines if line.strip("\r\n")), "")


def _picked(header: Sequence[str], columns: Sequence[str], name: str) -> list[int]:
    """Return the columns' places; raise `DataError` where one is missing or there twice."""
    if missing := sorted({*columns} - {*header}):
        raise DataError(
            f"{name} must have the columns {', '.join(missing)}; got {escaped(','.join(header))}. Correct the table or its"
            " description"
        )
    if repeated := sorted({c for c in columns if header.count(c) > 1}):
        raise DataError(f"{name} must have each column once; got {', '.join(repeated)} more than once. Rename them")
    return [header.index(column) for column in columns]


def _parsed(
    records: _Records, num_columns: int, picked: list[int], delimiter: str, findings: Findings
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the picked columns by line, and what rows have beyond the last column."""

    def marked(fields: list[str]) -> list[str]:
        last = num_columns - 1
        return [*fields[:last], fields[last] + _MARK + delimiter + delimiter.join(fields[last + 1 :])]

    # pandas takes the length of the first row for the table's: with the header as a row it is right whatever follows.
    chunks = pd.read_csv(
        records, header=None, sep=delimiter, engine="python", dtype=str, keep_default_na=False, na_filter=False,
        skip_blank_lines=False, on_bad_lines=marked, chunksize=_CHUNK,
    )  # fmt: skip
    frames, beyond = [], []
    for chunk in chunks:
        numbers = np.array(records.numbers[: len(chunk)])
        del records.numbers[: len(chunk)]
        chunk = chunk.set_axis(numbers)
        last, rest = chunk.iloc[:, -1].to_numpy(object), np.full(len(chunk), "", object)
        for place, text in enumerate(last):
            if isinstance(text, str) and _MARK in text:
                last[place], _, rest[place] = text.partition(_MARK)
        chunk[chunk.columns[-1]] = last
        used = chunk.iloc[:, picked]
        lacking = used.isna().any(axis=1).to_numpy()
        for place in np.flatnonzero(lacking).tolist():
            fields = chunk.iloc[place].dropna()
            reason = f"{len(fields)} fields instead of {num_columns}"
            findings.quarantine(f"{records.name} line {numbers[place]}", reason, delimiter.join(fields))
        frames.append(used[~lacking])
        beyond.append(rest[~lacking])
    return pd.concat(frames).iloc[1:], np.concatenate(beyond)[1:]


def _other_format(data: bytes, name: str, kind: str) -> pd.DataFrame:
    """Read Parquet, JSON lines or Excel; rows are numbered as the program that shows them does."""
    read = {
        "parquet": pd.read_parquet,
        "excel": lambda file: pd.read_excel(file, dtype=object, keep_default_na=False),
        "json": lambda file: pd.read_json(file, lines=data.lstrip()[:1] == b"{", dtype=False),
    }[kind]
    try:
        frame = read(io.BytesIO(data))
    except ImportError as error:
        raise ConfigurationError(
            f"{name} must be read with a package that is not installed; got {error_text(error)} Install it, or give a csv file"
        ) from None
    except Exception as error:  # a decoder may raise anything on damaged bytes
        if kind == "json" and (place := _no_object(data)):
            raise DataError(f"{name} {place}. Correct it") from error
        raise DataError(f"{name} must be a readable {kind} file; got {error_text(error)}. Correct it") from error
    frame.columns = [normalised(str(column)) for column in frame.columns]
    first = 2 if kind == "excel" else 1
    return frame.set_axis(range(first, first + len(frame)))


def _no_object(data: bytes) -> str:
    """Return which line or row of a JSON table is no object, as `line 2 must ...`; empty where that is not what is wrong."""
    in_lines = data.lstrip().startswith(b"{")
    try:
        rows = data.splitlines() if in_lines else list(json.loads(data))
    except (ValueError, TypeError, RecursionError):
        return ""
    for number, row in enumerate(rows, 1):
        if not (in_lines and not row.strip()) and not _is_object(row):
            got = row if in_lines else json.dumps(row)
            return f"{'line' if in_lines else 'row'} {number} must be a JSON object; got {escaped(got)}"
    return ""


def _is_object(row: Any) -> bool:
    try:
        return isinstance(json.loads(row) if isinstance(row, bytes) else row, dict)
    except (ValueError, RecursionError):
        return False


def _text(value: Any) -> str:
    """Return a value as a csv file would hold it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if value is None or (np.isscalar(value) and pd.isna(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
