"""Tests that several devices and workers find the ticket of one device."""

import importlib.util
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

TESTS = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="the test starts JAX in a separate process",
)


def start(kind, path, **environment):
    return subprocess.Popen(
        [sys.executable, TESTS / "many_devices.py", kind, path],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), **environment},
    )


def finish(*processes):
    for process in processes:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors[-3000:]


def read(path):
    return pickle.loads(path.read_bytes())


def assert_agree(one, many):
    """Asserts equality up to the order of floating-point additions.

    The adaptive penalty measures the mean gradient of each replica's part of a
    batch, so its weight differs slightly more.
    """
    assert many["kept"] == one["kept"] == round(0.2 * one["size"])
    for name, rtol in {
        "alive_density": 1e-2,
        "regularization": 1e-1,
        "score_penalty": 1e-2,
        "loss": 1e-2,
    }.items():
        np.testing.assert_allclose(
            many["mining"][name], one["mining"][name], rtol=rtol, err_msg=name
        )
    assert one["mining"]["alive_density"] == many["mining"]["alive_density"]
    np.testing.assert_allclose(
        many["finetuning"]["loss"], one["finetuning"]["loss"], rtol=2e-2
    )
    for a, b in zip(one["masks"], many["masks"], strict=True):
        assert (a == b).mean() > 0.98


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    path = tmp_path_factory.mktemp("mirrored") / "found"
    finish(start("mirrored", path))
    return read(path)


@pytest.mark.slow
def test_mirrored_replicas_find_ticket_of_one_device(mirrored):
    one, four, second = mirrored
    assert [run["devices"] for run in mirrored] == [1, 4, 2]
    assert one["mining"]["regularization"][0] > 0, "the penalty did not adapt"
    assert_agree(one, four)
    assert_agree(one, second)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for entry in sockets:
        entry.bind(("localhost", 0))
    ports = [entry.getsockname()[1] for entry in sockets]
    for entry in sockets:
        entry.close()
    return ports


@pytest.mark.slow
def test_two_workers_on_loopback(mirrored, tmp_path):
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    paths = [tmp_path / str(index) for index in range(2)]
    finish(
        *[
            start(
                "multiworker",
                path,
                TF_CONFIG=json.dumps(
                    {
                        "cluster": {"worker": addresses},
                        "task": {"type": "worker", "index": index},
                    }
                ),
            )
            for index, path in enumerate(paths)
        ]
    )
    [first], [second] = map(read, paths)
    assert_agree(mirrored[0], first)
    # All epochs of both phases and the tickets are equal, bit for bit.
    for one, other in [
        *zip(first["epochs"], second["epochs"], strict=True),
        (first["masks"], second["masks"]),
        (first["weights"], second["weights"]),
    ]:
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(first["epochs"]) == 12


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)
def test_data_parallel_on_jax(tmp_path):
    path = tmp_path / "found"
    flags = "--xla_force_host_platform_device_count=4"
    finish(start("jax", path, KERAS_BACKEND="jax", XLA_FLAGS=flags))
    one, four = read(path)
    assert (one["devices"], four["devices"]) == (1, 4)
    assert_agree(one, four)
