"""A case of the sweep: a user's model, its data and its training."""

import dataclasses
import typing

import keras
import numpy as np

PACKAGE = "sweep"


@dataclasses.dataclass
class Problem:
    """A user's model and training setup before pruning.

    Args:
        model: Built `keras.Model` to prune.
        x: Structure of arrays, the inputs.
        y: Structure of arrays, the targets. Defaults to `None`.
        loss: Loss, as for `compile`. Defaults to cross-entropy of logits.
        metrics: Metrics, as for `compile`. Defaults to `None`.
        optimizer: Function without arguments that returns an optimizer.
            Defaults to SGD with momentum.
        compile: Function that compiles a model. Defaults to `None`, which uses
            `optimizer`, `loss` and `metrics`.
        outer: Function that takes the pruned model and returns the user's
            trainer around it. Defaults to `None`, which trains the pruned model
            directly.
        data: Function without arguments that returns the data for `fit`, in
            place of `x` and `y`. Defaults to `None`.
        fit: Dict of further arguments of `fit`.
        batch_size: Integer. Defaults to `8`.
        sparsity: Float, target fraction of zeros. Defaults to `0.8`.
        logs: List of names that the user's training logic adds to the logs.
        loss_above: Float, lower bound of the user's own loss in the first
            epoch. Defaults to `None`, which does not check the loss.
        tolerance: Float, largest allowed difference, relative to the largest
            output. Defaults to `1e-4`.
        moves: Boolean, whether training changes any weights. Defaults to
            `True`.
        must_refuse: String, the reason why the library must refuse the model.
            Defaults to `None`.
        mentions: String that a refusal before training must contain. Defaults
            to `""`.
        example: Inputs for comparing outputs. Defaults to `None`, which uses
            the first batch of `x`.
    """

    model: keras.Model
    x: typing.Any
    y: typing.Any = None
    loss: typing.Any = "logits"
    metrics: typing.Any = None
    optimizer: typing.Callable | None = None
    compile: typing.Callable | None = None
    outer: typing.Callable | None = None
    data: typing.Callable | None = None
    fit: dict = dataclasses.field(default_factory=dict)
    batch_size: int = 8
    sparsity: float = 0.8
    logs: tuple = ()
    loss_above: float | None = None
    tolerance: float = 1e-4
    moves: bool = True
    must_refuse: str | None = None
    mentions: str = ""
    example: typing.Any = None

    def trainer(self, model):
        """Returns the model on which `fit` is called."""
        return model if self.outer is None else self.outer(model)

    def compile_model(self, model):
        """Compiles a model as the user does."""
        if self.compile is not None:
            self.compile(model)
            return
        loss = self.loss
        if isinstance(loss, str) and loss == "logits":
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = self.optimizer or (
            lambda: keras.optimizers.SGD(0.1, momentum=0.9)
        )
        model.compile(optimizer(), loss, metrics=self.metrics)

    def train(self, model, epochs, callbacks=()):
        """Calls `fit`. Returns its history."""
        arguments = {"epochs": epochs, "callbacks": list(callbacks)}
        if self.data is not None:
            found = {"x": self.data()}
        else:
            found = {"x": self.x, "batch_size": self.batch_size}
            if self.y is not None:
                found["y"] = self.y
        return model.fit(**found, **arguments, **self.fit, verbose=0).history

    def probe(self):
        """Returns one batch of inputs for comparing outputs."""
        if self.example is not None:
            return self.example
        return keras.tree.map_structure(
            lambda value: value[: self.batch_size], self.x
        )


@dataclasses.dataclass(frozen=True)
class Case:
    """A named model.

    Args:
        suite: String, name of the suite.
        name: String, name of the model.
        build_problem: Function without arguments that returns a `Problem`.
        about: String, description of the pattern.
    """

    suite: str
    name: str
    build_problem: typing.Callable
    about: str = ""

    def build(self):
        """Returns the `Problem`, which is the same for each call."""
        keras.config.set_dtype_policy("float32")
        keras.utils.set_random_seed(0)
        problem = self.build_problem()
        keras.config.set_dtype_policy("float32")
        return problem


def register(cases):
    """Returns a decorator that adds a pattern to a list of cases."""

    def add(function):
        about = (function.__doc__ or "").strip().splitlines()[0].rstrip(".")
        cases.append(Case("patterns", function.__name__, function, about))
        return function

    return add


def normal(*shape, seed=0):
    """Returns standard normal values, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def uniform(*shape, seed=0):
    """Returns values in [0, 1), float32."""
    return np.random.default_rng(seed).uniform(size=shape).astype("float32")


def integers(high, *shape, low=0, seed=0):
    """Returns integers below `high`, int32."""
    random = np.random.default_rng(seed)
    return random.integers(low, high, shape).astype("int32")


def classes_of(x, count, seed=1):
    """Returns labels that are a linear function of the examples."""
    flat = np.asarray(x, "float32").reshape(len(x), -1)
    return np.argmax(flat @ normal(flat.shape[1], count, seed=seed), -1)


def perceptron(features, *units, activation="relu", name=None):
    """Returns a Sequential of dense layers."""
    hidden = [keras.layers.Dense(u, activation=activation) for u in units[:-1]]
    return keras.Sequential(
        [keras.Input((features,)), *hidden, keras.layers.Dense(units[-1])],
        name=name,
    )
