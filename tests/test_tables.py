"""Tests tables of reports, as text and as HTML."""

import dataclasses
import html.parser
import unicodedata

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tf_gems as gems
from tf_gems.tables import DataReport
from tf_gems.tables import Report
from tf_gems.tables import Table

HOSTILE = "[red]<script>alert(1)</script>\x1b[31m :smile:"


class Cells(html.parser.HTMLParser):
    """The texts and tags of an HTML document."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5))
def test_columns_are_aligned_and_not_truncated(rows):
    rows = [(f"|{one}|", f"<{two}>") for one, two in rows]
    lines = str(Table(["name", ">size"], rows)).splitlines()
    assert len(lines) == 1 + len(rows)
    for line, (one, _) in zip(lines[1:], rows, strict=True):
        shown = str(Table(["x"], [[one]])).splitlines()[1]
        assert line.startswith(shown) and line.endswith(">")
        kinds = {unicodedata.category(c) for c in line}
        assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    if all((one + two).isascii() for one, two in rows):
        assert len({len(line) for line in lines[1:]}) == 1


def test_markup_and_control_characters_are_escaped():
    table = Table([">n", HOSTILE], [[1, HOSTILE], [], [22, "x"]])
    shown = HOSTILE.replace("\x1b", "\\x1b")
    lines = str(table).splitlines()
    assert lines[1:] == [f" 1  {shown}", "", "22  x"]
    cells = Cells(table._repr_html_())
    assert set(cells.tags) == {"table", "tr", "th", "td"}
    # The header has the escape character as the program wrote it.
    assert cells.texts[2:] == ["1", shown, "22", "x"]


def test_reports_render_as_html(ticket_of_a_layer, tmp_path):
    ticket, layer = ticket_of_a_layer
    ticket.save(tmp_path / "a.gem")
    row = {
        **{"method": HOSTILE, "check": None, "sparsity": 0.9, "seed": 0},
        **{"accuracy_before": 0.5, "accuracy": 0.6, "epochs_of_search": 2},
        **{"seconds_of_search": 1.0, "processor_seconds_of_search": 1.0},
        **{"seconds_of_finetuning": 1.0},
    }
    for report, found in (
        (ticket, f"{ticket.density:.2%}"),
        (gems.Ticket.inspect(tmp_path / "a.gem"), "positions"),
        (gems.PruningReport(layer), "(5, 7)"),
        (gems.Comparison([row], {"epochs": 3}, {}), "60.00"),
        (gems.sanity.SanityReport({"ticket": [0.8, 0.9]}), "85.00%"),
    ):
        assert isinstance(report, Report)
        assert str(report) == report.render()
        cells = Cells(report._repr_html_())
        assert {"table", "td"} <= set(cells.tags) and "script" not in cells.tags
        assert any(found in text for text in cells.texts)
        assert found in str(report) and "\x1b" not in report._repr_html_()


@pytest.fixture
def ticket_of_a_layer():
    layer = keras.layers.Dense(7)
    model = keras.Sequential([keras.Input((5,)), layer])
    sparse = gems.SparseModel(model, seed=0)
    ticket = gems.methods.RandomPruning(0.5, seed=0).find(sparse)
    return ticket, gems.unwrap(sparse)


def test_nested_reports_are_values():
    """Omitted and added values also apply to nested reports."""

    @dataclasses.dataclass
    class Part(DataReport):
        kept: int
        hidden: object
        _computed = ("twice",)

        @property
        def twice(self):
            return 2 * self.kept

        def to_dict(self):
            found = super().to_dict()
            del found["hidden"]
            return found

    @dataclasses.dataclass
    class Whole(DataReport):
        parts: list
        pair: tuple

    part = Part(3, object())
    values = Whole([{"part": part, "none": None}], (1, part)).to_dict()
    three = {"kept": 3, "twice": 6}
    assert values == {
        "parts": [{"part": three, "none": None}],
        "pair": (1, three),
    }
