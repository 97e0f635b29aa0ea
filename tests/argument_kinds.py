"""Invalid argument values, and the kinds of arguments that accept them."""

import math

import keras
import numpy as np

# Values that a user, a script or a file may pass by mistake. Generators and
# numbers of elements are excluded, since they could be valid by chance.
HOSTILE = {
    "none": None,
    "nan": math.nan,
    "inf": math.inf,
    "minus_inf": -math.inf,
    "negative": -1,
    "fraction": -0.5,
    "zero": 0,
    "half": 1.5,
    "true": True,
    "huge": 10**400,
    "large": 10**18,
    "empty": "",
    "text": "no such thing",
    "bytes": b"bytes",
    "empty_list": [],
    "list": [None],
    "dict": {},
    "config": {"class_name": "Nothing", "config": {}},
    "object": object(),
    "class": int,
    "function": len,
    "layer": keras.layers.Dense(2),
    "array": np.array([math.nan, 1.0]),
    "complex": 1j,
}

# Valid values of each kind of argument. All other values of `HOSTILE` must be
# refused.
COUNT = {"large"}
OPTIONAL = {"none"}
SPARSITY = {"zero"}
SWITCH = {"true"}
POSITIVE = {"half", "large"}
NUMBER = {*POSITIVE, "zero", "negative", "fraction"}
SEED = {"zero", "large"}
PATH = {"text", "bytes"}
PENALTY = {"half", "zero", "large"}
METHOD = {"distribution": set(), "pattern": set()}
TRAINED = {
    **METHOD,
    "target_sparsity": SPARSITY,
    "epochs": COUNT,
    "learning_rate": OPTIONAL | POSITIVE,
}
REWIRING = {
    **TRAINED,
    "update_period": COUNT,
    "fraction": {"zero"} - {"zero"},
    "end": set(),
    "seed": SEED,
}
ROUNDS = {**TRAINED, "rate": set(), "rounds": OPTIONAL | COUNT}
SALIENCY = {
    **METHOD,
    "target_sparsity": SPARSITY,
    "batches": OPTIONAL | COUNT,
}
