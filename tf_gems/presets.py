"""Named settings, in one readable table.

`"paper"` holds what the authors' configurations share: scores uniform in
[0, 1], threshold 0.5, kernels of signed constants, an L2 weight of 1e-4 on
the scores at all times, a freeze every 5 epochs. (The ticket of those runs is
what is alive at the end, the default of `SparseModel.ticket`.)
"""

from tf_gems.validation import check_choice

PRESETS = {
    "paper": {
        "model": {"mask": "round", "kernel_initializer": "signed_constant"},
        "callback": {
            "regularization": 1e-4,
            "stop_at_target": False,
            "saturate_scores": False,
            "freeze_period": 5,
        },
    },
}


def get_preset(name):
    """Returns the settings of a preset, a dict of two dicts of arguments.

    Args:
        name: Name of a preset.

    Returns:
        `{"model": ..., "callback": ...}`, arguments of `SparseModel` and
        `GemMinerCallback`.

    Raises:
        ValueError: If there is no such preset.
    """
    return PRESETS[check_choice(name, "preset", PRESETS)]
