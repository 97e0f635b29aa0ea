import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9 needs POSIX")
def test_jobs_survive_kills_bit_for_bit(tmp_path):
    output = tmp_path / "crash.json"
    # A fork requires that TensorFlow has not run in this process.
    subprocess.run(
        [
            *(sys.executable, ROOT / "benchmarks" / "crash.py"),
            *("--kills=8", "--kills_of_a_run=2", f"--output={output}"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    found = json.loads(output.read_text("utf-8"))
    assert found["kills"] == 8
    assert set(found["kills_by_stage"].values()) == {2}
    assert len(found["kills_by_place"]) > 2
    assert found["files_compared"] > 4 * 8
    assert not found["different"] + found["left_behind"] + found["problems"]
