"""Pre-trained weights of a network of the zoo."""

import keras


def load_pretrained(network, path):
    """Loads all weights of a network but its classifier's.

    `tf_gems.SparseModel(network, kernel_initializer=None)` then prunes them.
    Networks of `keras.applications` bring weights of their own, and are
    wrapped as they are.

    Args:
        network: `keras.Model` of `tf_gems.zoo`, which is changed.
        path: Of a `.keras` or `.weights.h5` file of the same network, with any
            number of classes.

    Returns:
        The network.

    Raises:
        ValueError: If the weights are of another network.
        FileNotFoundError: If there is no such file.

    Example:

    ```python
    network = tf_gems.zoo.resnet50((224, 224, 3), 101, affine=True)
    tf_gems.load_pretrained(network, "imagenet.weights.h5")
    ```
    """
    classifier = network.layers[-1]
    features = keras.Model(network.inputs, classifier.input)
    features.load_weights(str(path))
    return network
