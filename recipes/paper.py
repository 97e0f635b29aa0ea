"""The authors' settings for every network, dataset and density.

They are taken from the authors' configuration files. Settings that are the same
in all of them are not in the table: momentum 0.9, cosine decay of the scores'
learning rate to zero, scores uniform in [0, 1], a constant penalty, signed
constant weights (pretrained weights on Caltech-101), and coupled weight decay
1e-4 in fine-tuning.

There are two differences. This library keeps exactly the given fraction of
weights, where the authors' code keeps slightly fewer. ResNet-50 has one logit
per class of Tiny ImageNet, where theirs has 1,000.

Columns:

*   kept: density in percent, which the paper calls sparsity.
*   scores, rate: optimizer and learning rate of mining.
*   batch: batch size of all training.
*   epochs: number of mining epochs, and also of fine-tuning epochs.
*   freeze: number of epochs between freezes.
*   lambda: weight of the sum of squared scores.
*   ticket: `alive` keeps all alive weights. `rounded` keeps only those whose
    score rounds to one, which are fewer than the row states (20 % ends as
    13.34 %).
*   weights, rate: optimizer and learning rate of fine-tuning.
*   dense: learning rate of dense and random networks, with the same optimizer.
*   status: how certain the row is.
    -   final: the configuration of the authors' last runs.
    -   first: the configuration of the three trials in the paper's first
        version.
    -   grid: the authors' choice from a grid is not recorded. This is the cell
        that they ran (WRN at 20 and 2.3), or one that is consistent with the
        rows next to it.
    -   extra: a configuration without a point in the paper.
"""

import math

_TABLE = """
kept  scores rate  batch epochs freeze lambda ticket  weights  rate dense status

cifar10 resnet20
50    sgd    0.05  128   150    8      1e-8   alive   sgd      0.1  0.1   first
20    sgd    0.1   128   150    5      5e-6   rounded sgd      0.01 0.1   final
5     sgd    0.1   128   150    5      3e-5   rounded sgd      0.01 0.1   extra
3.72  sgd    0.1   128   150    5      3e-5   alive   sgd      0.01 0.1   first
1.44  sgd    0.1   128   150    5      1e-4   alive   sgd      0.01 0.1   first
0.59  sgd    0.1   128   150    8      1e-4   alive   sgd      0.01 0.1   final
0.154 adam   0.1   128   150    5      1e-4   alive   sgd      0.01 0.1   extra

cifar10 mobilenet_v2
50    sgd    0.1   128   300    5      0      rounded sgd      0.01 0.1   final
20    sgd    0.1   128   300    5      3e-6   alive   sgd      0.01 0.1   final
5     sgd    0.1   128   300    5      7e-6   alive   sgd      0.01 0.1   final
1.4   sgd    0.1   128   300    5      1.5e-5 alive   sgd      0.01 0.1   final

cifar10 vgg16
50    adam   0.001 128   200    5      1e-6   alive   sgd      0.05 0.05  first
5     adam   0.001 128   200    5      1e-6   alive   sgd      0.05 0.05  first
2.5   adam   0.001 128   200    5      1e-6   alive   sgd      0.05 0.05  grid
1.4   adam   0.001 128   200    5      1e-6   alive   sgd      0.05 0.05  first
0.5   adam   0.001 128   200    5      1e-6   alive   sgd      0.05 0.05  first

cifar10 wide_resnet28_2
50    sgd    0.1   128   150    5      0      alive   sgd      0.01 0.1   first
21    sgd    0.1   128   150    5      0      alive   sgd      0.01 0.1   first
20    sgd    0.5   128   150    10     5e-6   alive   sgd      0.01 0.1   grid
5.5   sgd    0.5   128   150    10     5e-6   alive   sgd      0.01 0.1   grid
2.3   sgd    0.5   128   150    10     5e-6   alive   sgd      0.01 0.1   grid
2     sgd    0.1   128   150    5      0      alive   sgd      0.01 0.1   first
1.4   sgd    0.5   128   150    10     5e-6   alive   sgd      0.01 0.1   grid

cifar10 resnet18_cifar
5     adam   0.01  128   200    20     8.5e-6 alive   sgd      0.01 0.1   extra
0.5   adam   0.01  128   200    20     8.5e-6 rounded sgd      0.01 0.1   extra

cifar100 resnet32_double
5     sgd    0.1   128   150    5      1e-5   alive   sgd      0.01 0.1   grid
2     sgd    0.1   128   150    5      5e-5   alive   sgd      0.01 0.1   grid

tiny_imagenet resnet18
50    sgd    0.1   128   200    10     0      rounded sgd      0.1  0.2   first
20    sgd    0.1   256   200    10     3e-6   rounded sgd      0.1  0.2   first
5     adam   0.001 256   200    5      8e-6   alive   sgd      0.1  0.2   final
1.4   adam   0.001 256   200    5      5e-6   alive   sgd      0.1  0.2   final
0.5   adam   0.001 256   200    5      1e-5   alive   sgd      0.1  0.2   final

tiny_imagenet resnet50
5     adam   0.01  128   150    5      1e-6   alive   nesterov 0.1  0.1   final
1.4   adam   0.01  128   150    5      1e-6   alive   nesterov 0.1  0.1   final
0.5   adam   0.01  128   150    5      1e-6   alive   nesterov 0.1  0.1   final

caltech101 resnet50_affine
50    adam   0.001 16    50     5      0      rounded sgd      0.01 0.01  extra
5     adam   0.001 16    50     5      2e-6   alive   adam     1e-4 1e-4  final
2     adam   0.001 16    50     5      5e-6   alive   adam     1e-4 1e-4  final
"""

# Fractions of fine-tuning after which the learning rate drops to a tenth.
_MILESTONES = {
    50: (20 / 50, 40 / 50),
    150: (80 / 150, 120 / 150),
    200: (100 / 200, 150 / 200),
    300: (150 / 300, 250 / 300),
}


def _read(table):
    """Returns a dict from keys to pairs of settings and status."""
    rows = {}
    for line in table.strip().splitlines()[1:]:
        cells = line.split()
        if len(cells) == 2:
            section = cells
        elif cells:
            density, *cells, status = cells
            rows[(*section, float(density))] = (_settings(*cells), status)
    return rows


def _settings(
    optimizer,
    learning_rate,
    batch_size,
    epochs,
    freeze_period,
    regularization,
    masks,
    finetuning_optimizer,
    finetuning_learning_rate,
    dense_learning_rate,
):
    first_milestone, second_milestone = _MILESTONES[int(epochs)]
    return {
        "optimizer": optimizer,
        "learning_rate": float(learning_rate),
        "batch_size": int(batch_size),
        "mining_epochs": int(epochs),
        "finetuning_epochs": int(epochs),
        "freeze_period": int(freeze_period),
        "regularization": float(regularization),
        "masks": masks,
        "finetuning_optimizer": finetuning_optimizer,
        "finetuning_learning_rate": float(finetuning_learning_rate),
        "dense_learning_rate": float(dense_learning_rate),
        "first_milestone": first_milestone,
        "second_milestone": second_milestone,
    }


# From (dataset, network, density in percent) to (settings, status).
ROWS = _read(_TABLE)
DATASETS = tuple(dict.fromkeys(dataset for dataset, _, _ in ROWS))


def find(dataset, network, target_sparsity):
    """Finds a row of the table.

    Args:
        dataset: String, name of the dataset.
        network: String, name of the network.
        target_sparsity: Float in [0, 1), fraction of zeros.

    Returns:
        Dict of the row's arguments for `settings.Settings`.

    Raises:
        ValueError: If there is no such row. The message lists the rows of the
            dataset.
    """
    known = {}
    for (data, name, density), (row, _) in ROWS.items():
        if data == dataset:
            sparsity = round(1 - density / 100, 6)
            if name == network and math.isclose(sparsity, target_sparsity):
                return {
                    "dataset": dataset,
                    "network": network,
                    "target_sparsity": sparsity,
                    **row,
                }
            known.setdefault(name, []).append(f"{sparsity:g}")
    rows = "; ".join(f"{n} at {', '.join(s)}" for n, s in known.items())
    raise ValueError(
        "The paper must have the network at this sparsity on this data. "
        f"Received: network={network!r}, target_sparsity={target_sparsity:g} "
        f"on '{dataset}', for which it has {rows or 'nothing'}. Take one of "
        "these, or another preset."
    )
