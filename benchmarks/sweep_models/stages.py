"""Takes one model through every stage, and returns the outcomes.

An outcome is `"ok"`, or a word and a message:

* `refused`: an error that states the rule, the received value and the remedy,
before training begins or in a stage that writes a file;
* `failed`: any other error, or a wrong output;
* `keras_fails`: the same step fails on the plain model in Keras itself;
* `skipped`: an earlier stage failed.
"""

import math
import re
import time
import traceback
import warnings
from pathlib import Path

import keras
import numpy as np

from sweep_models import comparing
from sweep_models import dense
from sweep_models.comparing import Wrong
from sweep_models.comparing import answer

STAGES = (
    "report",
    "wrap",
    "mine",
    "density",
    "ticket_file",
    "finetune",
    "saved_model",
    "litert",
    "strip",
    "reuse",
    "keras_file",
    "apply",
    "network",
)
# No training can be lost after these stages.
BEFORE_TRAINING = ("report", "wrap", "mine")
FILES = ("ticket_file", "saved_model", "litert", "keras_file", "network")
# Steps that Keras itself may fail to do with the plain model.
KERAS_STEP = {
    "mine": "fit",
    "finetune": "fit",
    "saved_model": "saved_model",
    "litert": "litert",
    "keras_file": "keras_file",
}
EPOCHS = 4


class Batches(keras.callbacks.Callback):
    """Counts the trained batches."""

    done = 0

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1


class Sweep:
    """Runs the stages of one model.

    Args:
        case: `Case`.
        directory: Path of an empty directory for files.
        tell: Function of the outcomes, called after each stage. Defaults to
            `None`.
        leave_out: Names of the stages to skip.
    """

    def __init__(self, case, directory, tell=None, leave_out=()):
        self.case = case
        self.directory = Path(directory)
        self.tell = tell or (lambda outcomes, seconds, stage: None)
        self.leave_out = leave_out
        self.outcomes, self.seconds, self.notes = {}, {}, []
        self.batches = Batches()

    def run(self):
        """Returns the outcomes and the seconds of the stages."""
        self.problem = self.case.build()
        self.probe = self.problem.probe()
        for name in STAGES:
            if name in self.leave_out:
                continue
            self.tell(self.outcomes, self.seconds, name)
            begin = time.perf_counter()
            self.outcomes[name] = self._outcome(name)
            self.seconds[name] = round(time.perf_counter() - begin, 2)
            if self._refused_early(name):
                break
        self.tell(self.outcomes, self.seconds, None)
        return self.outcomes, self.seconds

    def _refused_early(self, name):
        outcome = self.outcomes[name]
        return outcome.startswith("refused") and name in BEFORE_TRAINING

    def _outcome(self, name):
        missing = {
            "mine": "sparse",
            "density": "mined",
            "ticket_file": "ticket",
            "finetune": "ticket",
            "saved_model": "tuned",
            "litert": "tuned",
            "strip": "tuned",
            "reuse": "plain",
            "keras_file": "plain",
            "apply": "loaded",
            "network": "loaded",
        }.get(name)
        if missing and not hasattr(self, missing):
            return "skipped: an earlier stage left nothing to work on"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = getattr(self, name)() or "ok"
        except Exception as error:
            outcome = self._classify(name, error)
            if name == "mine" and outcome.startswith("failed"):
                self._go_on_without_mining()
        return outcome

    def _classify(self, name, error):
        message = " ".join(str(error).split())
        kind = type(error).__name__
        if isinstance(error, Wrong):
            return f"failed: {message}"
        early = name in FILES or name in BEFORE_TRAINING
        if self.batches.done and name == "mine":
            early = False
        if is_refusal(error) and early:
            word = self.problem.mentions
            if name in BEFORE_TRAINING and word not in message:
                return f"failed: the refusal does not say {word!r}: {message}"
            return f"refused: {message}"
        place = where(error)
        late = ", after training began" if is_refusal(error) else ""
        return f"failed: {kind}{late} at {place}: {message[:600]}"

    def _go_on_without_mining(self):
        """Uses a magnitude ticket, so that the later stages also run."""
        import tf_gems as gems

        method = gems.methods.get(
            "magnitude",
            target_sparsity=self.problem.sparsity,
            distribution="uniform",
        )
        try:
            self.ticket = method.find(self.sparse)
        except Exception:
            return

    def report(self):
        import tf_gems as gems

        report = gems.PruningReport(self.problem.model)
        report.render()
        vectors = [v.path for v in report.prunable if is_vector(v)]
        if vectors:
            raise Wrong(f"vectors are prunable: {', '.join(vectors)}")

    def wrap(self):
        import tf_gems as gems

        model = self.problem.model
        self.trainable = [v.path for v in model.trainable_variables]
        before = answer(model, self.probe)
        again = answer(model, self.probe)
        self.random = not comparing.same(before, again, 1e-6)
        values = [np.array(v) for v in model.variables]
        sparse = gems.SparseModel(model, seed=0)
        after = [np.array(v) for v in model.variables]
        if not all(map(np.array_equal, values, after)):
            raise Wrong("wrapping changed a variable of the model")
        comparing.refuse_other_shapes(before, answer(sparse, self.probe))
        self.sparse = sparse
        self.user = self.problem.trainer(sparse)

    def mine(self):
        import tf_gems as gems

        problem = self.problem
        kernels = [w.weight for w in self.sparse.gem.prunable]
        before = [np.array(kernel) for kernel in kernels]
        problem.compile_model(self.user)
        history = problem.train(
            self.user,
            EPOCHS,
            [
                self.batches,
                gems.GemMinerCallback(problem.sparsity, freeze_period=1),
            ],
        )
        if problem.must_refuse:
            raise Wrong(f"the model was not refused: {problem.must_refuse}")
        missing = [name for name in problem.logs if name not in history]
        if missing:
            raise Wrong(
                f"the user's training logic was not used: {missing} not in "
                f"the logs {list(history)}"
            )
        least = problem.loss_above
        if least is not None and not history["loss"][0] > least:
            raise Wrong(
                f"the user's own loss was not used: {history['loss'][0]:.3g} "
                f"is not above {least:g}"
            )
        moved = [
            kernel.path
            for kernel, value in zip(kernels, before, strict=True)
            if not np.array_equal(value, np.array(kernel))
        ]
        if moved:
            raise Wrong(f"weights changed during mining: {moved[:3]}")
        self.mined = True
        self.ticket = self.sparse.ticket()

    def density(self):
        size = sum(math.prod(w.weight.shape) for w in self.sparse.gem.prunable)
        kept = sum(int(m.sum()) for m in self.ticket.masks.values())
        wanted = round((1 - self.problem.sparsity) * size)
        if kept != wanted:
            raise Wrong(f"{kept} of {size} weights kept, not {wanted}")
        empty = [p for p, mask in self.ticket.masks.items() if not mask.any()]
        if empty:
            raise Wrong(f"no weight is kept in {empty[:3]}")

    def ticket_file(self):
        import tf_gems as gems

        path = self.directory / "ticket.gem"
        self.ticket.save(path)
        # The ticket may be larger than the default limit of the reader.
        loaded = gems.Ticket.load(path, max_bytes=1 << 33)
        for name, mask in self.ticket.masks.items():
            if not np.array_equal(mask, loaded.masks[name]):
                raise Wrong(f"the file has a different mask of '{name}'")
            value = np.where(mask, self.ticket.weights[name], 0)
            if not np.array_equal(value, loaded.weights[name]):
                raise Wrong(f"the file has different weights of '{name}'")
        self.loaded = loaded

    def finetune(self):
        sparse, problem = self.sparse, self.problem
        sparse.start_finetuning(self.ticket)
        self.start = answer(sparse, self.probe)
        kernels = [w.weight for w in sparse.gem.prunable]
        before = [np.array(kernel) for kernel in kernels]
        self.tuned = True
        problem.compile_model(self.user)
        problem.train(self.user, 1)
        after = [np.array(kernel) for kernel in kernels]
        if problem.moves and all(map(np.array_equal, before, after)):
            raise Wrong("no kept weight changed during fine-tuning")
        self._refuse_lost_zeros()
        if not comparing.is_finite(answer(sparse, self.probe)):
            del self.tuned
            raise Wrong("the trained model computes NaN or infinities")

    def _refuse_lost_zeros(self):
        for prunable, mask in zip(
            self.sparse.gem.prunable, self.ticket.masks.values(), strict=True
        ):
            if np.any(np.array(prunable.weight)[~mask]):
                raise Wrong(f"'{prunable.path}' lost its zeros")

    def saved_model(self):
        import tf_gems as gems

        path = self.directory / "saved_model"
        expected = answer(self.sparse, self.probe)
        gems.export_saved_model(self.sparse, path, inputs=self.probe)
        received = dense.run_saved_model(path, self.problem.model, self.probe)
        self._compare(expected, received, exported=True)

    def litert(self):
        import tf_gems as gems

        path = self.directory / "model.tflite"
        expected = answer(self.sparse, self.probe)
        gems.export_litert(self.sparse, path, inputs=self.probe)
        self._compare_litert(expected, path)

    def _compare_litert(self, expected, path):
        received = dense.run_litert(path, self.problem.model, self.probe)
        self._compare(expected, received, exported=True)

    def _compare(self, expected, received, exported=False):
        tolerance = self.problem.tolerance
        if exported and self.random:
            comparing.refuse_other_shapes(expected, received)
            return
        comparing.refuse_unlike(
            expected, received, max(tolerance, 1e-3) if exported else tolerance
        )

    def strip(self):
        import tf_gems as gems

        model, masks = self.problem.model, self.ticket.masks.values()
        expected = answer(self.sparse, self.probe)
        kernels = [w.weight for w in self.sparse.gem.prunable]
        wanted = [
            np.where(mask, np.array(kernel), 0)
            for kernel, mask in zip(kernels, masks, strict=True)
        ]
        self.plain = plain = gems.strip(self.sparse)
        if plain is not model:
            kind = type(plain).__name__
            difference = "equal"
            if not comparing.same(
                expected, answer(plain, self.probe), self.problem.tolerance
            ):
                difference = "and other outputs"
            raise Wrong(
                f"not the user's object, but another {kind}, {difference}"
            )
        self._compare(expected, answer(plain, self.probe))
        for kernel, value in zip(kernels, wanted, strict=True):
            if not np.array_equal(value, np.array(kernel)):
                raise Wrong(f"'{kernel.path}' is not its values times its mask")
        trainable = [v.path for v in model.trainable_variables]
        if trainable != self.trainable:
            lost = set(self.trainable) ^ set(trainable)
            raise Wrong(f"different weights are trainable: {sorted(lost)[:4]}")

    def reuse(self):
        """The plain model must train as it did before."""
        problem, plain = self.problem, self.plain
        values = [np.array(v) for v in plain.variables]
        trainer = problem.trainer(plain)
        problem.compile_model(trainer)
        problem.train(trainer, 1)
        moved = sum(
            not np.array_equal(value, np.array(v))
            for value, v in zip(values, plain.variables, strict=True)
        )
        if problem.moves and not moved:
            raise Wrong("`fit` does not train the stripped model")
        for value, variable in zip(values, plain.variables, strict=True):
            variable.assign(value)

    def keras_file(self):
        path = self.directory / "plain.keras"
        expected = answer(self.plain, self.probe)
        self.plain.save(path)
        loaded = keras.saving.load_model(path, compile=False)
        if type(loaded) is not type(self.plain):
            raise Wrong(f"the file holds a {type(loaded).__name__}")
        self._compare(expected, answer(loaded, self.probe))

    def apply(self):
        fresh = self.case.build().model
        self.loaded.apply(fresh)
        self._compare(self.start, answer(fresh, self.probe))

    def network(self):
        received = answer(self.loaded.network(), self.probe)
        self._compare(self.start, received)


def is_vector(variable):
    """Returns whether a weight is a vector, such as a bias or a token."""
    name = variable.path.rsplit("/", 1)[-1]
    if name.endswith(("kernel", "embeddings")):
        return False
    return name.endswith("bias") or sum(n > 1 for n in variable.shape) < 2


def is_refusal(error):
    """Returns whether an error of tf_gems states rule, value and remedy."""
    kinds = (ValueError, TypeError, RuntimeError, OSError)
    message = " ".join(str(error).split())
    rule, found, rest = message.partition("Received:")
    remedy = re.search(r"[.)\]'\"] +\S.{10,}[.`'\")]$", rest)
    ours = "/tf_gems/" in where(error, whole=True)
    return bool(
        isinstance(error, kinds)
        and ours
        and found
        and len(rule) > 15
        and "user code" not in rule
        and remedy
    )


def where(error, whole=False):
    """Returns the file and the line that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "?"
    name = frames[-1].filename
    if not whole:
        name = "/".join(Path(name).parts[-2:])
    return f"{name}:{frames[-1].lineno}"


def with_dense(outcome, reason):
    """Returns an outcome combined with that of Keras on the plain model.

    Args:
        outcome: String, the outcome of tf_gems.
        reason: `None` if Keras succeeds, or a message.
    """
    if "was not refused" in outcome:
        return outcome
    if reason is not None:
        return f"keras_fails: {reason} | tf_gems: {outcome}"
    if outcome.startswith("refused"):
        return f"{outcome} | Keras does it with the plain model."
    return outcome


def verdict(outcomes):
    """Returns the verdict on a model: right, refused, keras or failed."""
    words = {outcome.split(":")[0] for outcome in outcomes.values()}
    if "failed" in words or not words:
        return "failed"
    if any(
        outcomes.get(name, "").startswith("refused") for name in BEFORE_TRAINING
    ):
        return "refused"
    if "refused" in words:
        return "refused a file"
    if "keras_fails" in words:
        return "keras fails"
    return "right" if words == {"ok"} else "failed"
