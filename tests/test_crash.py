import importlib
import os
import pathlib

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
def test_the_digits_recipe_survives_kills_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    crash = importlib.import_module("crash")
    settings = ["mining_epochs=8", "finetuning_epochs=3"]
    found = []
    for name, delays in (("whole", []), ("killed", [3.0, 0.1, 2.5])):
        (tmp_path / name).mkdir()
        places = crash.run_killed(
            tmp_path / name, "smoke", settings, iter(delays)
        )
        found.append(crash.fingerprint(tmp_path / name))
        assert len(places) <= len(delays)
        left = [*tmp_path.rglob("*.partial-*"), *tmp_path.rglob("lock")]
        assert not left, "what killed processes left is removed"
    assert places, "no process was killed"
    assert found[0] == found[1]
    assert len(found[0]) > 12
