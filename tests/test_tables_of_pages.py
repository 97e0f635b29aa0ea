"""Tests that figures in the docs agree with their results files."""

import json
import re
from statistics import mean

import pytest
from tables_of_pages import DOCS
from tables_of_pages import RESULTS
from tables_of_pages import results
from tables_of_pages import shows
from tables_of_pages import table_under


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("42.8%", [42.84], True),
        ("42.8%", [42.86], False),
        ("58.8", [58.75], True),
        ("3e-07", [2.8e-7], True),
        ("3e-07", [3.6e-7], False),
        ("1,024 / 0.50", [1024, 0.504], True),
        ("1,024 / 0.50", [1024, 0.506], False),
        ("1,024", [1025], False),
    ],
)
def test_figures_are_rounded_values(text, values, expected):
    assert shows(text, *values) is expected


# Each test iterates over both the table and its file, so that neither has a row
# that is missing in the other.


def test_removed_channels():
    rows = {
        (
            row["network"],
            row["zeros"].split(",")[-1].strip(),
            row["sparsity"],
        ): (row)
        for row in results("compaction.json")
    }
    kinds = {
        "single weights": "as mined",
        "random statistics": "shifts drawn",
        "random": "random channels",
    }
    for network, zeros, *cells in table_under(
        "elsewhere.md", "Removing channels"
    )[1]:
        sparsity = float(re.match(r"[\d.]+", zeros)[0]) / 100
        kind = kinds[zeros.split(", ")[-1]]
        row = rows.pop((network, kind, round(sparsity, 6)))
        removed = [
            100 * (1 - after / before)
            for before, after in (row["parameters"], row["multiply_adds"])
        ]
        times = [row["dense_ms"], row["compact_ms"], row["speedup"]]
        difference = row["largest_difference"] / row["largest_output"]
        values = [*removed, *times, difference]
        assert all(map(shows, cells, values)), (network, zeros)
    assert not rows


def test_removed_channels_of_trained_networks():
    rows = [
        row
        for name in ("cifar10", "mobilenet", "mined")
        for row in results(f"compact_{name}.json")
    ]
    lines = table_under("elsewhere.md", "Trained networks")[1]
    for line, row in zip(lines, rows, strict=True):
        network, zeros, accuracy, work, *times = line
        assert network == f"{row['network']} x{row['width']:g}"
        if row["method"] == "dense":
            assert zeros == "none"
        else:
            method = {"gem_miner": "mined"}.get(row["method"], row["method"])
            assert method in zeros and shows(zeros, 100 * row["sparsity"])
            assert ("channels" in zeros) == (row["pattern"] == "channel")
        assert shows(accuracy, 100 * row["accuracy"])
        before, after = (number / 1e6 for number in row["multiply_adds"])
        assert shows(work, after, before)
        litert = row["dense_ms"], row["compact_ms"]
        for cell, pair in zip(
            times,
            (litert, row["tensorflow_ms"], row["browser_ms"]),
            strict=True,
        ):
            assert shows(cell, *pair), (network, zeros)


def test_removed_channels_of_applications():
    rows = results("compact_applications.json")
    found = [row for row in rows if "skipped" not in row]
    assert (len(rows), len(found)) == (40, 24)  # As the page states.
    ratios = [
        row["multiply_adds"][1] / row["multiply_adds"][0] for row in found
    ]
    assert sum(ratio < 1 / 3 for ratio in ratios) == 15
    assert max(row["difference"] for row in found) <= 2e-6


def test_arm_ethos_u():
    rows = [row for row in results("ethos_u.json") if "estimate" in row]
    lines = table_under("elsewhere.md", "Arm Ethos-U")[1]
    for line, row in zip(lines, rows, strict=True):
        network, zeros, masks, *cells = line
        assert network == row["network"]
        assert zeros == f"{row['sparsity']:.2%}"
        assert masks.split(",")[0] in row["masks"]
        dense, sparse = row["dense"], row["estimate"]
        values = [
            *(dense["cycles"], sparse["cycles"]),
            dense["cycles"] / sparse["cycles"],
            *(dense["weight_bytes"], sparse["weight_bytes"]),
        ]
        assert all(map(shows, cells, values)), (network, zeros)


def test_hls4ml():
    rows = [r for r in results("elsewhere.json") if r["tool"] == "hls4ml"]
    lines = table_under("elsewhere.md", "hls4ml")[1]
    for (zeros, layers, total), row in zip(lines, rows, strict=True):
        assert shows(zeros, 100 * row["sparsity"])
        assert shows(layers, *row["multipliers"])
        assert shows(total, sum(row["multipliers"]))


def test_numbers_of_epochs():
    penalties = ("auto", "5e-4, resting", "5e-4, as the paper")
    of_three_seeds, of_one = (
        [row for row in results(name) if row["optimizer"] == "SGD, momentum"]
        for name in ("adaptive.json", "adaptive_long.json")
    )
    seen = 0
    for epochs, sizes, seeds, *cells in table_under(
        "paper.md", "Different numbers of epochs"
    )[1]:
        sizes = set(map(int, sizes.split(", ")))
        rows = of_three_seeds if int(seeds) == 3 else of_one
        for penalty, cell in zip(penalties, cells, strict=True):
            found = [
                row
                for row in rows
                if (row["epochs"], row["penalty"]) == (int(epochs), penalty)
            ]
            assert {row["batch_size"] for row in found} == sizes
            assert len({row["seed"] for row in found}) == int(seeds)
            assert shows(cell, 100 * mean(row["after"] for row in found))
            seen += len(found)
    assert seen == len(of_three_seeds) + len(of_one)

    # The sentence below the table refers to rows with three seeds.
    text = (DOCS / "paper.md").read_text("utf-8")
    for key in ("after", "before"):
        means = [
            mean(row[key] for row in of_three_seeds if row["penalty"] == name)
            for name in penalties
        ]
        assert (
            "{:.1%}, {:.1%} and {:.1%}".format(*means).replace("%", "") in text
        )


def test_learning_rates_of_scores():
    rows = results("score_rates.json")
    arms = {"ScoreOptimizer()": "travel 20", "ScoreOptimizer(40)": "travel 40"}
    header, lines = table_under("paper.md", "Without a learning rate")
    for name, *cells in lines:
        arm = arms.get(name) or name.replace("SGD, ", "sgd ")
        for column, cell in zip(header[1:], cells, strict=True):
            data, epochs = column.lower().split(", ")
            found = [
                row
                for row in rows
                if (row["data"], row["epochs"], row["arm"])
                == (data, int(epochs), arm)
            ]
            means = [
                100 * mean(row[key] for row in found)
                for key in ("before", "after")
            ]
            assert shows(cell, *means), (name, column)


def test_ideas():
    rows = results("ideas.json")
    ideas = {"SGD, 1": "sgd 1", "SGD, 3": "sgd 3", "dense": "dense"}
    lines = table_under("paper.md", "Ideas for mining and fine-tuning")[1]
    shown = set()
    for name, seeds, *cells in lines:
        idea = ideas.get(name) or name.replace(", ", " ").replace("`", "")
        found = [row for row in rows if row["idea"] == idea]
        assert int(seeds) == len(found), name
        shown.add(idea)
        for key, cell in zip(("before", "after"), cells, strict=True):
            values = [100 * row[key] for row in found if key in row]
            if not values:
                assert cell == "-"
            elif len(values) == 1:
                assert shows(cell, values[0]), (name, key)
            else:
                half = (max(values) - min(values)) / 2
                assert shows(cell, mean(values), half), (name, key)
    assert shown == {row["idea"] for row in rows}


def test_summary_of_reduced_tables():
    folder = RESULTS / "reproduce" / "resnet20-0.08-0.2"
    cells = [
        cell
        for name in ("compared", "table2", "table3", "table4")
        for cell in json.loads((folder / f"{name}.json").read_text("utf-8"))
    ]

    def means(density, name):
        found = {
            cell["seed"]: cell
            # `compared` takes precedence if both files have a cell.
            for cell in reversed(cells)
            if cell["density"] == density and re.fullmatch(name, cell["name"])
        }
        return [
            100 * mean(cell[key] for cell in found.values())
            for key in ("before", "after")
        ]

    lines = table_under("results.md", "Reduced versions of the paper's tables")[
        1
    ]
    for kept, theirs, constant, ours in lines:
        density = float(kept.strip(" %"))
        assert shows(theirs, *means(density, "Gem-Miner, authors' settings"))
        assert shows(constant, *means(density, "Gem-Miner, penalty .* by hand"))
        assert shows(ours, *means(density, "Gem-Miner, ours"))


def test_speed_in_browsers():
    networks = {
        "MobileNetV1 x0.75": "v1",
        "MobileNetV2 x1": "v2",
        "keras.applications.MobileNet x0.5": "stock",
    }
    rows = results("mined_speed.json")
    lines = table_under("speed.md", "Inference speed")[1]
    for name, zeros, dense, mined, magnitude, *speeds, size in lines:
        network = networks[name.replace("`", "")]
        found = [row for row in rows if row["network"] == network]
        [unpruned] = [row for row in found if row["method"] == "dense"]
        assert shows(dense, 100 * unpruned["accuracy"])
        for method, accuracy, speed in (
            ("gem_miner", mined, speeds[0]),
            ("magnitude", magnitude, speeds[1]),
        ):
            pruned = [
                row
                for row in found
                if row["method"] == method
                and shows(zeros, 100 * row["sparsity"])
            ]
            if not pruned:
                assert accuracy == "-"
                continue
            assert shows(accuracy, 100 * pruned[0]["accuracy"])
            assert [row["size"] for row in pruned] == [96, 224]
            ratios = (
                min(row["speedup"], row["speedup_of_fastest"]) for row in pruned
            )
            assert shows(speed, *ratios)
            assert shows(size.split("MB")[0], *_megabytes(pruned[0]))


def _megabytes(row):
    return [number / 1e6 for number in row["bytes"]]


def test_speed_of_dense_layers():
    rows = results("native_mined.json")
    lines = table_under("speed.md", "Inference speed", 1)[1]
    for name, zeros, dense, mined, magnitude, *speeds, size in lines:
        network = list(map(int, name.split("-")))
        places = {"single weights": "random"}.get(zeros, zeros)
        found = [row for row in rows if row["network"] == network]
        unpruned = [row for row in found if row["method"] == "dense"]
        assert shows(dense, 100 * mean(row["accuracy"] for row in unpruned))
        for method, accuracy, speed in (
            ("gem_miner", mined, speeds[0]),
            ("magnitude", magnitude, speeds[1]),
        ):
            pruned = [
                row
                for row in found
                if (row["method"], row["places"]) == (method, places)
            ]
            if not pruned:
                assert accuracy == speed == "-"
                continue
            assert shows(accuracy, 100 * mean(r["accuracy"] for r in pruned))
            assert shows(speed, mean(row["speedup"] for row in pruned))
            if method == "gem_miner":
                assert shows(size, *pruned[0]["bytes"])


def test_memory_of_mining():
    keys = {
        "SGD with momentum": "momentum",
        "Adam": "adam",
        "SGD without momentum": "sgd",
    }
    content = json.loads((RESULTS / "memory.json").read_text("utf-8"))
    rows = {
        row["optimizer"]: row
        for row in content["results"]
        if row["witness"] == "variables"
    }
    for name, *cells in table_under("costs.md", "Memory")[1]:
        row = rows.pop(keys[name])
        each = [
            sum(row[phase].values()) / content["weights"]
            for phase in ("dense", "mining")
        ]
        assert all(map(shows, cells, [*each, row["ratio"]]))
    assert not rows


def test_cost_of_exports():
    content = json.loads((RESULTS / "export_cost.json").read_text("utf-8"))
    for name, *cells in table_under("costs.md", "Exports")[1]:
        key = {"TFLite": "litert", "SavedModel": "saved_model"}[name]
        ours, keras = content[f"{key}, ours"], content[f"{key}, Keras"]
        times = [
            ours["first_seconds"] / keras["first_seconds"],
            ours["seconds"] / keras["seconds"],
        ]
        memory = [ours["memory"], keras["memory"]]
        assert all(map(shows, cells, times)) and shows(cells[2], *memory)


def test_cost_of_several_devices():
    rows = results("devices_cost.json")
    lines = table_under("costs.md", "Several devices")[1]
    for (name, *cells), row in zip(lines, rows, strict=True):
        assert name.startswith(row["name"])
        assert all(map(shows, cells, [row["images_a_second"], row["ratio"]]))


def test_cost_of_training():
    ratios = {row["line"]: row["ratio"] for row in results("all.json")}
    seconds = {
        row["line"]: float(row["value"].split()[0])
        for row in results("all.json")
        if row["line"].startswith("freeze")
    }
    epochs = {r["epoch"]: r["to_pytorch"] for r in results("epoch_cost.json")}
    steps = [
        ratios[f"ResNet-20 step, {place}: {phase}"]
        for place in ("TF graph", "TF jit", "JAX")
        for phase in ("mining", "finetuning")
    ]
    expected = [
        steps,
        [epochs[phase] for phase in ("dense", "mining", "finetuning")],
        [
            ratios["step of tf_gems: edge-popup"],
            ratios["step of torch: edge-popup"],
        ],
        [
            ratios["step of tfmot: prune_low_magnitude, masks rest"],
            ratios["step of tfmot: prune_low_magnitude, masks of each step"],
        ],
        [
            seconds[f"freeze, {part}, {count} scores"]
            for part in ("whole freeze", "keep_largest")
            for count in ("25,000,000", "100,000,000")
        ],
        [
            ratios[f"memory of parameters, mining, {optimizer}"]
            for optimizer in ("momentum", "adam")
        ],
    ]
    lines = table_under("costs.md", "Training cost")[1]
    for (name, cell), values in zip(lines, expected, strict=True):
        assert shows(cell, *values), name
