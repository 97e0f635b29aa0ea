"""Reports: tables and sentences, for terminals and notebooks."""

import dataclasses
import html
import io

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from tf_gems.text import printable

_WIDEST = 1 << 16  # so that no cell is cut or wrapped


class Table:
    """Rows of cells under a header.

    Control characters in cells are escaped, see `tf_gems.text.printable`.

    Args:
        columns: List of strings, the header. A column whose name starts with
            `">"` is aligned to the right, as numbers are.
        rows: Iterable of lists of cells. Each cell is shown as its string. An
            empty list is an empty line.

    Example:

    >>> print(Table(["layer", ">kept"], [["dense", 30], ["dense_1", 5]]))
    layer    kept
    dense      30
    dense_1     5
    """

    def __init__(self, columns, rows):
        self.columns = [column.removeprefix(">") for column in columns]
        self.right = [column.startswith(">") for column in columns]
        self.rows = [[printable(cell) for cell in row] for row in rows]

    def __str__(self):
        table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name, right in zip(self.columns, self.right, strict=True):
            table.add_column(
                Text(name), justify="right" if right else "left", no_wrap=True
            )
        for row in self.rows:
            table.add_row(*map(Text, row))
        file = io.StringIO()
        Console(file=file, width=_WIDEST, color_system=None).print(table)
        return "\n".join(map(str.rstrip, file.getvalue().splitlines()))

    def _repr_html_(self):
        head = zip(self.columns, self.right, strict=True)
        lines = ["".join(_cell("th", *column) for column in head)]
        for row in self.rows:
            cells = zip(row, self.right, strict=bool(row))
            lines.append("".join(_cell("td", *cell) for cell in cells))
        rows = "".join(f"<tr>{line}</tr>" for line in lines if line)
        return f"<table>{rows}</table>"


class Report:
    """A base class for what is shown as tables and sentences.

    A subclass implements `_parts`.
    """

    def _parts(self):
        """Returns a list of strings, one a line, and of `Table`s."""
        raise NotImplementedError

    def render(self):
        """Returns the report as text, for a terminal."""
        return "\n".join(map(str, self._parts()))

    def __str__(self):
        return self.render()

    def _repr_html_(self):
        """Returns the report as HTML, for a notebook."""
        return "".join(
            part._repr_html_()
            if isinstance(part, Table)
            else f"<div>{html.escape(printable(part))}</div>"
            for part in self._parts()
        )


class DataReport(Report):
    """A report that is a dataclass of values that JSON has.

    Its values are the fields, and the properties that `_computed` names.
    """

    _computed = ()

    def to_dict(self):
        """Returns the report as plain, JSON-serializable values."""
        names = [field.name for field in dataclasses.fields(self)]
        names += getattr(self, "_computed", ())  # an estimate has none
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value):
    """Returns dataclasses as dicts, also within lists, tuples and dicts."""
    if isinstance(value, DataReport):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return DataReport.to_dict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value


def _cell(tag, text, right):
    align = "right" if right else "left"
    return f'<{tag} style="text-align: {align}">{html.escape(text)}</{tag}>'
