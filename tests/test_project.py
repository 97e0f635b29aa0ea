"""Tests that metadata, BUILD and the changelog are consistent."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

import tf_gems

ROOT = Path(__file__).parents[1]


def text(name):
    return (ROOT / name).read_text("utf-8")


def test_version_is_consistent():
    project = tomllib.loads(text("pyproject.toml"))
    dynamic = project["tool"]["setuptools"]["dynamic"]["version"]
    assert dynamic == {"attr": "tf_gems.__version__"}
    version = re.escape(tf_gems.__version__)
    assert re.search(rf"^version: {version}$", text("CITATION.cff"), re.M)
    assert re.search(rf"^## {version}$", text("CHANGELOG.md"), re.M)


@pytest.fixture(scope="module")
def check():
    path = ROOT / ".ci" / "check_build.py"
    spec = importlib.util.spec_from_file_location("check_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.check


def test_build_file_is_consistent(check):
    assert check(ROOT) == []


def test_build_file_faults_are_found(check, tmp_path):
    (tmp_path / "tf_gems").mkdir()
    for name in ("here", "forgotten"):
        (tmp_path / "tf_gems" / f"{name}.py").touch()
    (tmp_path / "BUILD").write_text(
        'py_library(name = "a", srcs = ["tf_gems/here.py", "gone.py"])\n'
        'py_test(name = "b", srcs = ["tf_gems/here.py"], deps = [":c"])\n'
        'py_test(name = "b", srcs = glob(["*.rs"]), main = "m.py")\n'
    )
    assert sorted(check(tmp_path)) == [
        "'a' names 'gone.py', which is missing.",
        "'b' has a `main` that is not in its srcs.",
        "'tf_gems/forgotten.py' is in no target.",
        "Two targets are named 'b'.",
        "glob(['*.rs']) matches no file.",
    ]
