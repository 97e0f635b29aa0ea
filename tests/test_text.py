"""Tests how text from files is displayed and used in file names."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tf_gems as gems
from tf_gems.comparison import Comparison
from tf_gems.text import file_name
from tf_gems.text import printable

HOSTILE = "\x1b[31mred\x1b]0;title\x07\r\b\x9b1m\u202egnp.exe\u2028\x7f\n"


@given(st.text())
def test_displayed_text_has_no_control_characters(text):
    shown = printable(text)
    kinds = {unicodedata.category(character) for character in shown}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text
    shown.encode()  # Lone surrogates are escaped as well.


@given(st.text(), st.text())
def test_file_names_stay_in_directory(one, other):
    name = file_name(one)
    assert not set(name) & set('/\\:\0<>"|?*') and name.isprintable()
    assert name not in ("", ".", "..") and not name.startswith((".", "-"))
    assert len(name.encode()) < 100
    assert (name == file_name(other)) == (one == other)
    assert file_name(name) == name


@pytest.mark.parametrize("name", ["snip", "random_erk", "SNIP, 2 batches"])
def test_plain_names_are_unchanged(name):
    assert file_name(name) == name


def row(name):
    return {
        **{"method": name, "check": None, "sparsity": 0.9, "seed": 0},
        **{"accuracy_before": 0.5, "accuracy": 0.6, "epochs_of_search": name},
        **{"density_of_layers": {f"{name}/kernel": 0.1}},
    }


def test_comparison_escapes_names(tmp_path):
    comparison = Comparison([row(HOSTILE)], {"epochs": HOSTILE}, {})
    assert all(line.isprintable() for line in str(comparison).splitlines())
    assert "\\x1b[31mred" in str(comparison)
    assert len(str(comparison).splitlines()) == 5


def test_plots_escape_names(tmp_path, monkeypatch):
    pictures = pytest.importorskip("tf_gems.comparison.pictures")
    # Dollar signs in a name are not parsed as formulas.
    first, second = row(HOSTILE + r"$\frac$"), row("b")
    for cell in (first, second):
        cell["epochs_of_search"] = 1
    seen = []
    show = pictures._label
    monkeypatch.setattr(
        pictures, "_label", lambda text: seen.append(show(text)) or seen[-1]
    )
    Comparison([first, second], {"epochs": 3}, {}).draw(tmp_path / "new")
    assert seen and all(text.isprintable() for text in seen)
    assert len(list((tmp_path / "new").glob("*.png"))) == 3


def test_ticket_summary_escapes_names(tmp_path):
    import numpy as np

    path = f"layer{HOSTILE}/kernel"
    mask = np.eye(3, dtype=bool)
    ticket = gems.Ticket(
        {path: mask}, {path: mask.astype("float32")}, {HOSTILE: HOSTILE}
    )
    ticket.save(tmp_path / "hostile.gem")
    shown = str(gems.Ticket.inspect(tmp_path / "hostile.gem"))
    assert all(line.isprintable() for line in shown.split("\n"))
    assert shown.count("\\x1b[31mred") == 2


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"rows": ' * 50_000,
        "[]",
        "1",
        '{"rows": [{}], "settings": {}, "provenance": {}}',
        '{"rows": [[]], "settings": {"epochs": 1}, "provenance": {}}',
        "\xff",
        "",
    ],
)
def test_invalid_comparison_file_is_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="which is not a comparison"):
        Comparison.load(path)


def test_huge_numbers_are_refused(tmp_path):
    rows = [{**row("a"), "accuracy": 10**400}] * 2
    path = tmp_path / "results.json"
    text = {"rows": rows, "settings": {"epochs": 1}, "provenance": {}}
    path.write_text(json.dumps(text))
    with pytest.raises(ValueError, match="which is not a comparison"):
        Comparison.load(path)
