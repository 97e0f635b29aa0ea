"""Runs exported files with either TensorFlow or LiteRT alone.

    python outside_runner.py tensorflow DIRECTORY...

`outside.py` starts this script in a separate environment. Each directory holds
the exported files, `tolerances.json`, and `truth.npz` with inputs and the
outputs of Keras. The script prints a JSON list with one row per file.
"""

import json
import os
import sys

import numpy as np

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.modules["tf_gems"] = None  # Makes every import of it fail.


def main():
    """Runs the files of the directories on the command line."""
    package, *directories = sys.argv[1:]
    rows = []
    for directory in directories:
        with open(os.path.join(directory, "tolerances.json")) as file:
            tolerances = json.load(file)
        with np.load(os.path.join(directory, "truth.npz")) as truth:
            inputs, expected = truth["inputs"], truth["outputs"]
            labels = truth["labels"]
        for name, tolerance in tolerances.items():
            path = os.path.join(directory, name)
            if not os.path.exists(path):
                continue
            run = runner(package, path)
            if run is None:
                continue
            difference = np.inf
            outputs = np.concatenate([run(inputs[:1]), run(inputs[1:])])
            if np.isfinite(outputs).all():
                difference = np.abs(outputs - expected).max()
            share = float(difference / np.abs(expected).max())
            rows.append(
                {
                    "network": os.path.basename(directory),
                    "file": name,
                    "images": len(inputs),
                    "difference": share,
                    "tolerance": tolerance,
                    "within": bool(share <= tolerance),
                    "accuracy": round(
                        float(np.mean(outputs.argmax(-1) == labels)), 4
                    ),
                }
            )
    print(json.dumps(rows))


def runner(package, path):
    """Returns a function from images to outputs, or `None` if unsupported."""
    if path.endswith(".tflite"):
        if package == "tensorflow":
            import tensorflow as tf

            interpreter = tf.lite.Interpreter(path)
        else:
            from ai_edge_litert.interpreter import Interpreter

            assert "tensorflow" not in sys.modules
            interpreter = Interpreter(path)
        run = interpreter.get_signature_runner()
        [name] = run.get_input_details()
        return lambda images: only(run(**{name: images}))
    if package != "tensorflow":
        return None
    if path.endswith(".keras"):
        import keras

        model = keras.models.load_model(path)
        return lambda images: np.asarray(model(images, training=False))
    import tensorflow as tf

    serve = tf.saved_model.load(path).signatures["serving_default"]
    [name] = serve.structured_input_signature[1]
    return lambda images: np.asarray(only(serve(**{name: tf.constant(images)})))


def only(outputs):
    """Returns the only value of a dict."""
    [value] = outputs.values()
    return value


if __name__ == "__main__":
    main()
