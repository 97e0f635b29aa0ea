"""Pre-trained weights of a network of the zoo."""

import keras

from tf_gems.targets import check_path


def load_pretrained(network, path):
    """Loads the weights of a network, except those of its classifier.

    `tf_gems.SparseModel(network, kernel_initializer=None)` then prunes these
    weights. Networks of `keras.applications` have their own pre-trained
    weights and do not need this function.

    Args:
        network: `keras.Model` of `tf_gems.zoo`, which is changed.
        path: Path of a `.keras` or `.weights.h5` file of the same network,
            with any number of classes.

    Returns:
        The network.

    Raises:
        ValueError: If the weights belong to another network.
        FileNotFoundError: If there is no such file.

    Example:

    ```python
    network = tf_gems.zoo.resnet50((224, 224, 3), 101, affine=True)
    tf_gems.load_pretrained(network, "imagenet.weights.h5")
    ```
    """
    path = check_path(path, "path", "Pass the name of a file of weights.")
    if not isinstance(network, keras.Model) or not network.built:
        raise ValueError(
            "Weights must be loaded into a built Keras model. Received: "
            f"network={network!r:.100}. Create one with `tf_gems.zoo`."
        )
    if not str(path).endswith((".keras", ".weights.h5")):
        raise ValueError(
            "Weights must be in a file that ends in .keras or .weights.h5. "
            f"Received: path='{path}'. Save them with `save` or "
            "`save_weights`."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"Weights must be in a file. Received: path='{path}', which is "
            "not a file. Check the name."
        )
    classifier = network.layers[-1]
    features = keras.Model(network.inputs, classifier.input)
    features.load_weights(str(path))
    return network
