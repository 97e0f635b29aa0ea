from pathlib import Path

from tf_gems.comparison import experiment


def test_leftovers_of_killed_process_are_removed(tmp_path):
    path = tmp_path / "cell.json"
    left = Path(f"{path}.partial-0123456789ab.lock")
    others = tmp_path / "other.json.partial-0123456789ab.lock"
    for run in (lambda: {"accuracy": 0.5}, None):  # It runs once.
        left.touch()
        others.touch()
        assert experiment.recorded(path, run) == {"accuracy": 0.5}
        assert not left.exists()
        assert others.exists()
