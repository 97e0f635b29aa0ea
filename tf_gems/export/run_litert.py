"""Runs TFLite files."""

import importlib.metadata

import numpy as np

from tf_gems.quiet import quiet


def run_litert(path, feeds):
    """Runs a TFLite file with and without XNNPACK.

    LiteRT runs it if it is installed, TensorFlow otherwise. Where the file
    takes or returns integers `q` that stand for floats, `scale * (q - zero)`,
    floats are given and returned.

    Returns:
        `(outputs, ran)`: for each way to run it a list of dicts from the names
        of outputs to arrays; and a list of strings, what ran it.
    """
    with quiet():
        _, resolvers, program = load_interpreter()
        kinds = {
            "with XNNPACK": resolvers.AUTO,
            "without XNNPACK": resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        }
        outputs = []
        for resolver in kinds.values():
            run, _ = load_runner(path, experimental_op_resolver_type=resolver)
            outputs.append([run(feed) for feed in feeds])
    return outputs, [f"{program} {kind}" for kind in kinds]


def load_runner(path, **options):
    """Returns a function from feeds to outputs, and the details of inputs."""
    interpreter_class, _, _ = load_interpreter()
    interpreter = interpreter_class(model_path=path, **options)
    runner = interpreter.get_signature_runner()
    taken, given = runner.get_input_details(), runner.get_output_details()

    def run(feed):
        names = match(feed, taken)
        arrays = {
            names[key]: in_integers(value, taken[names[key]])
            for key, value in feed.items()
        }
        return in_floats(runner(**arrays), given)

    return run, taken


def in_integers(value, detail):
    """Returns floats as the integers that an input stands for them by."""
    scale, zero = detail["quantization"]
    if not scale or not np.issubdtype(value.dtype, np.floating):
        return value
    limits = np.iinfo(detail["dtype"])
    rounded = np.round(value / scale) + zero
    return np.clip(rounded, limits.min, limits.max).astype(detail["dtype"])


def in_floats(outputs, details):
    """Returns outputs with integers as the floats that they stand for."""
    found = {}
    for name, value in outputs.items():
        scale, zero = details[name]["quantization"]
        if scale and np.issubdtype(value.dtype, np.integer):
            value = (scale * (value.astype("float32") - zero)).astype("float32")
        found[name] = value
    return found


def load_interpreter():
    """Returns the classes of interpreters and resolvers, and their name."""
    try:
        from ai_edge_litert.interpreter import Interpreter
        from ai_edge_litert.interpreter import OpResolverType
    except ImportError:
        import tensorflow as tf

        return (
            tf.lite.Interpreter,
            tf.lite.experimental.OpResolverType,
            f"tf.lite {tf.__version__}",
        )
    version = importlib.metadata.version("ai-edge-litert")
    return Interpreter, OpResolverType, f"ai_edge_litert {version}"


def match(feed, details):
    """Returns the file's name of each input: TensorFlow cleans names."""
    names = {name: name for name in feed if name in details}
    left = [name for name in details if name not in names.values()]
    for name in feed:
        if name not in names:
            names[name] = left.pop(0)
    return names
