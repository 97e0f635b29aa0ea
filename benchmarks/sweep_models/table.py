"""Renders the table of the sweep as a page of the docs."""

from sweep_models.stages import STAGES

_MARKS = {
    "ok": "✓",
    "refused": "r",
    "failed": "**✗**",
    "keras_fails": "k",
    "skipped": "·",
}
_TITLES = {
    "applications": "`keras.applications`",
    "keras_hub": "KerasHub",
    "patterns": "Patterns of user code",
}
_HEAD = """# Compatibility with third-party models

`python benchmarks/sweep.py` runs each model below through all stages, in a
separate process, and compares each result with the user's model.

* ✓: The outputs are those of the user's model.
* r: An error states the rule, what was received and the remedy. It is raised
  before training, or in a stage that writes a file.
* k: Keras or its converter fails for the plain model as well, in the same run.
* **✗**: The stage failed, or gave a wrong result.
* ·: The stage was not run, because of the outcome of an earlier one.

The stages are:

* report: print a `PruningReport`;
* wrap: create a `SparseModel`;
* mine: mine with `GemMinerCallback`;
* density: check that the ticket has exactly the target density;
* ticket_file: save and load the ticket;
* finetune: fine-tune the ticket;
* saved_model, litert: export a SavedModel and a TFLite file;
* strip: return the plain model;
* reuse: train the plain model further;
* keras_file: save and load the plain model;
* apply: apply the ticket to a new copy of the model;
* network: build the network from the ticket.
"""


def render(records, names):
    """Returns the page as Markdown.

    Args:
        records: Dict from pairs of a suite and a name to records.
        names: Dict from suites to the names of all their models.
    """
    lines = [_HEAD]
    for suite, title in _TITLES.items():
        rows = [row for row in records.values() if row["suite"] == suite]
        if rows:
            rows.sort(key=lambda row: row["name"])
            lines += [f"## {title}", "", *_counts(rows), ""]
            left = [n for n in names[suite] if (suite, n) not in records]
            if left:
                lines += [f"Not run yet: {', '.join(sorted(left))}.", ""]
            lines += [*_table(rows), ""]
            lines += _messages(rows)
    return "\n".join(lines).rstrip() + "\n"


def _counts(rows):
    right = sum(
        not any(o.startswith("failed") for o in row["stages"].values())
        for row in rows
    )
    lines = [
        f"In every stage, {right} of {len(rows)} models give the right "
        "result, raise a clear error, or fail in plain Keras as well.",
        "",
        "| stage | right | error | Keras fails | failed |",
        "| --- | --- | --- | --- | --- |",
    ]
    for stage in STAGES:
        words = [
            row["stages"][stage].split(":")[0]
            for row in rows
            if stage in row["stages"]
        ]
        counts = [
            words.count(word)
            for word in ("ok", "refused", "keras_fails", "failed")
        ]
        lines.append(f"| {stage} | {' | '.join(map(str, counts))} |")
    return lines


def _table(rows):
    lines = [
        f"| model | {' | '.join(STAGES)} |",
        f"| --- |{' --- |' * len(STAGES)}",
    ]
    for row in rows:
        outcomes = row["stages"]
        marks = [
            _MARKS[outcomes[stage].split(":")[0]] if stage in outcomes else "·"
            for stage in STAGES
        ]
        lines.append(f"| {row['name']} | {' | '.join(marks)} |")
    return lines


def _messages(rows):
    """Returns a line for each message, with the names of its models."""
    models = {}
    for row in rows:
        for stage, outcome in row["stages"].items():
            word, _, message = outcome.partition(": ")
            if word in ("refused", "failed", "keras_fails"):
                key = stage, word, _short(message)
                models.setdefault(key, []).append(row["name"])
    lines = [
        f"* {stage}, {_MARKS[word]}, {', '.join(names)}: {text}"
        for (stage, word, text), names in models.items()
    ]
    return [*lines, ""] if lines else []


def _short(message, length=240):
    # Escapes what Markdown would read as a tag, a cell, emphasis or a link.
    marks = {"<": "&lt;", "|": "/", "*": "\\*", "](": "] ("}
    for mark, plain in marks.items():
        message = message.replace(mark, plain)
    return message if len(message) <= length else message[:length] + " ..."
