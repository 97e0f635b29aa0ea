"""Reads tables of the docs, and compares their rounded figures."""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS.parent / "benchmarks" / "results"


def results(name):
    """Returns the rows of a file in `benchmarks/results`."""
    content = json.loads((RESULTS / name).read_text("utf-8"))
    return content["results"] if "results" in content else content["rows"]


def table_under(page, heading, number=0):
    """Returns the header and the other rows of a table in a section.

    Args:
        page: String, path within `docs`.
        heading: String, title of the section.
        number: Integer, index of the table in the section. Defaults to `0`.

    Returns:
        Tuple of a list of cells and a list of lists of cells.
    """
    text = (DOCS / page).read_text("utf-8")
    [section] = re.findall(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ (?!%%)|\Z)", text, re.M | re.S
    )
    table = re.findall(r"(?:^\|.*\n)+", section, re.M)[number]
    header, _, *rows = (
        [cell.strip(" `*") for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
    )
    return header, rows


def shows(text, *values):
    """Returns whether the numbers in a text are the rounded values.

    Args:
        text: String, such as `"53.6 / 61.3"`, `"1,024"` or `"42.8%"`.
        *values: Floats, one for each number in the text.
    """
    found = re.findall(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)
    assert len(found) == len(values), (text, values)
    for number, value in zip(found, values, strict=True):
        digits, _, exponent = number.replace(",", "").partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
        # Half a unit of the last digit, plus the rounding error of floats.
        shown = float(number.replace(",", ""))
        if abs(shown - value) > 0.5 * unit * (1 + 1e-9):
            return False
    return True
