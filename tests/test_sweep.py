"""Runs part of the sweep of user models."""

import json
import re
import sys
from pathlib import Path

import keras
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from sweep_models import dense  # noqa: E402
from sweep_models import load  # noqa: E402
from sweep_models import stages  # noqa: E402
from sweep_models import table  # noqa: E402
from sweep_models.comparing import Wrong  # noqa: E402

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the user models have TensorFlow training steps",
)

CASES = load("patterns")
EXPORTS = ("saved_model", "litert")
# One of each kind. Only two are exported, since this starts a process.
WHOLE = ("functional_subclass", "adapted_normalization")
NAMES = (
    *WHOLE,
    "adafactor",
    "custom_cell",
    "distillation_by_compute_loss",
    "mixture_of_experts",
    "nested_dicts",
    "string_lookup",
    "subclassed_without_config",
    "tf_function_inside",
)
MORE = (
    "attribute_set_later",
    "call_with_arguments",
    "constraints",
    "equal_names",
    "lambda_with_a_name",
    "nested_models",
    "own_dense_with_a_counter",
    "simsiam",
    "transfer_learning",
    "vae",
)


@pytest.mark.parametrize(
    "name",
    [*NAMES, *(pytest.param(n, marks=pytest.mark.slow) for n in MORE)],
)
def test_every_stage_succeeds_or_is_refused(name, tmp_path):
    case = CASES[name]
    leave_out = () if name in WHOLE else EXPORTS
    outcomes, _ = stages.Sweep(case, tmp_path, leave_out=leave_out).run()
    for stage, step in stages.KERAS_STEP.items():
        if stage in outcomes and outcomes[stage].startswith("failed"):
            reason = dense.attempt(case, step, tmp_path)
            outcomes[stage] = stages.with_dense(outcomes[stage], reason)
    wrong = {
        stage: outcome
        for stage, outcome in outcomes.items()
        if outcome.startswith(("failed", "skipped"))
    }
    assert not wrong
    assert outcomes["mine"] == outcomes["strip"] == "ok"


@pytest.mark.parametrize("name", ["no_loss_at_all", "gan"])
def test_unsupported_models_are_refused_before_training(name, tmp_path):
    outcomes, _ = stages.Sweep(CASES[name], tmp_path).run()
    assert stages.verdict(outcomes) == "refused"


def test_refusal_states_rule_value_and_remedy():
    import tf_gems

    def raised(function):
        with pytest.raises(Exception) as caught:
            function()
        return caught.value

    model = keras.Sequential([keras.layers.Dense(3)])
    ours = raised(lambda: tf_gems.SparseModel(model))
    assert stages.is_refusal(ours)
    theirs = raised(lambda: keras.layers.Dense(-3))
    assert "Received" in str(theirs) and not stages.is_refusal(theirs)


def test_wrong_output_is_not_a_refusal(tmp_path):
    sweep = stages.Sweep(CASES["vae"], tmp_path)
    error = Wrong("The rule. Received: outputs that differ. Do something.")
    assert sweep._classify("litert", error).startswith("failed")


def test_table_counts_outcomes():
    outcomes = dict.fromkeys(stages.STAGES, "ok")
    outcomes["litert"] = "keras_fails: no | tf_gems: failed: no"
    rows = [("a", outcomes), ("b", {**outcomes, "strip": "failed: a | b"})]
    records = {
        ("patterns", name): {"suite": "patterns", "name": name, "stages": found}
        for name, found in rows
    }
    page = table.render(records, {"patterns": ["a", "b", "c"]})
    assert "Not run yet: c." in page
    assert "In every stage, 1 of 2 models give the right result" in page
    assert "| strip | 1 | 0 | 0 | 1 |" in page
    assert "| litert | 0 | 0 | 2 | 0 |" in page
    assert "* strip, **✗**, b: a / b" in page
    assert "* litert, k, a, b: no / tf_gems: failed: no" in page


def test_page_shows_every_record():
    text = (BENCHMARKS / "results" / "sweep.json").read_text("utf-8")
    rows = json.loads(text)["records"]
    records = {(row["suite"], row["name"]): row for row in rows}
    names = {}
    for suite, name in records:
        names.setdefault(suite, []).append(name)
    page = (BENCHMARKS.parent / "docs" / "sweep.md").read_text("utf-8")
    # The page also names the models that have no record.
    page = re.sub(r"^Not run yet: .*\n\n", "", page, flags=re.M)
    assert table.render(records, names) == page
