"""`styles.csv`: what is repaired, what is quarantined, and when the whole file is refused."""

import pytest

from components.data.findings import Findings
from components.data.readers.fashion_products import COLUMNS, parse_styles
from components.errors import DataError
from tests.data.builders import row, table

GOOD = [row(1000 + i) for i in range(60)]


def parse(lines, *, raw=None):
    """Parse 60 good rows and the given ones."""
    findings = Findings()
    parsed = parse_styles(table([*GOOD, *lines]) if raw is None else raw, findings)
    return parsed, findings


def test_good_rows():
    """Rows of ten fields become ids and labels in file order."""
    parsed, findings = parse([row(7, "Shoes")])

    assert "7" == parsed.ids[-1]
    assert "Shoes" == parsed.labels[-1]
    assert ([], []) == (findings.quarantined, findings.repaired)


@pytest.mark.parametrize("name", ["Perfume, After Shave", "A, B, C, D", ",", "x,,y", 'a "b", c'])
def test_extra_commas_are_repaired(name):
    """The first nine fields are fixed, the rest is the product's name."""
    parsed, findings = parse([row(7, name=name)])

    assert "7" == parsed.ids[-1]
    assert [{"where": "styles.csv line 62", "value": name}] == findings.repaired


def test_quoted_name_is_no_defect():
    """A name in quotes may hold commas."""
    parsed, findings = parse([row(7, name='"Perfume, After Shave"')])

    assert ("7", []) == (parsed.ids[-1], findings.repaired)


@pytest.mark.parametrize("column", COLUMNS[1:9])
def test_implausible_repair_is_quarantined(column):
    """A comma among the first nine fields shifts them: an unknown value there gives it away."""
    _, findings = parse([row(7, name="a, b", **{column: "unheard of"})])

    assert ([], 1) == (findings.repaired, len(findings.quarantined))
    assert f"extra commas and unknown {column}" == findings.quarantined[0]["reason"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("7,Men,Apparel", "3 fields"),
        ("7", "1 fields"),
        (row(7, "a\0b"), "control character"),
        (row(7, articleType="a\x1bb"), "control character"),
        (row(7, label="Top\u202ewear"), "control character"),
        (row("\ufeff7"), "id is not a number"),
        (row(7, name="x" * 2**20), "longer than"),
        (row("seven"), "id is not a number"),
        (row("-7"), "id is not a number"),
        (row(" 7"), "id is not a number"),
        (row("12345678"), "id is not a number"),
        (row("\N{ARABIC-INDIC DIGIT SEVEN}"), "id is not a number"),
        (row(""), "id is not a number"),
        (row(1000), "id appears again"),
        (row(7, label=""), "empty label"),
        (row(7, label="  "), "empty label"),
        (row(7, label="x" * 101), "label longer"),
    ],
)
def test_bad_rows_are_quarantined(line, reason):
    """Each bad row is left out with its line number and the reason; the others stay."""
    parsed, findings = parse([line])

    assert 60 == len(parsed.ids)
    assert "styles.csv line 62" == findings.quarantined[0]["where"]
    assert reason in findings.quarantined[0]["reason"]
    assert len(findings.quarantined[0]["value"]) <= 120


def test_a_row_that_is_not_utf8():
    """Where other rows are UTF-8, one in another encoding is quarantined, not guessed."""
    raw = table([*GOOD, row(6, "\N{LATIN SMALL LETTER E WITH ACUTE}tui"), row(5, name="\N{SNOWMAN}")])
    raw += row(7, "Caf\xe9").encode("latin-1") + b"\n"

    parsed, findings = parse([], raw=raw)

    assert (62, "bytes that are not UTF-8") == (len(parsed.ids), findings.quarantined[0]["reason"])
    assert "Caf\\xe9" == findings.quarantined[0]["value"]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data + b"\n\n\n",
        lambda data: data.rstrip(b"\n"),
    ],
)
def test_harmless_differences(change):
    """Byte order mark, CRLF, blank lines and a missing last line end change nothing."""
    parsed, findings = parse([], raw=change(table(GOOD)))

    assert (60, []) == (len(parsed.ids), findings.quarantined)


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"id,label\n1,x\n", table(GOOD)[3:], b"\0" * 100, b"\xff\xfe" + "id".encode("utf-16-le")]
)
def test_other_header(data):
    """A file with other columns is refused."""
    with pytest.raises(DataError, match="must have the columns"):
        parse([], raw=data)


def test_header_alone():
    """A table without rows has none."""
    assert [] == parse([], raw=table([]))[0].ids


def test_too_many_bad_rows():
    """Above 5 % something is wrong with the file as a whole."""
    parse(["7"] * 3)

    with pytest.raises(DataError, match=r"at most 5%.*got 4 of 64.*line 62"):
        parse(["7"] * 4)


def test_all_bad_rows():
    """A file with nothing but bad rows is refused."""
    with pytest.raises(DataError, match="at most 5%"):
        parse([], raw=table(["1,2,3"] * 9))
