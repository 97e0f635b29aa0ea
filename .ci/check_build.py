"""Checks that BUILD is complete and names no missing files.

    python .ci/check_build.py

BUILD is written in Starlark, which has the syntax of Python. The rules are
replaced by functions that record the files of each target, so Bazel is not
needed. The script prints each fault and exits with 1 if there are any.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def check(root):
    """Returns a list of faults. Each one names a target or a file.

    Args:
        root: Path of the directory that contains BUILD.
    """
    targets, faults = {}, []

    def glob(include, exclude=()):
        found = _matches(root, include) - _matches(root, exclude)
        if not found:
            faults.append(f"glob({include}) matches no file.")
        return sorted(found)

    def rule(name, srcs=(), data=(), deps=(), main=None, **ignored):
        if name in targets:
            faults.append(f"Two targets are named '{name}'.")
        targets[name] = {*srcs, *data}, deps
        if main is not None and main not in srcs:
            faults.append(f"'{name}' has a `main` that is not in its srcs.")

    def nothing(*arguments, **keywords):
        pass

    names = {
        **dict.fromkeys(("package", "licenses"), nothing),
        **dict.fromkeys(("py_library", "py_binary", "py_test"), rule),
        "glob": glob,
        "exports_files": lambda files: rule("exports_files", data=files),
    }
    code = compile((root / "BUILD").read_text("utf-8"), "BUILD", "exec")
    exec(code, names)  # noqa: S102  trusted file
    for name, (files, deps) in targets.items():
        for file in sorted(files):
            if not (root / file).is_file():
                faults.append(f"'{name}' names '{file}', which is missing.")
        for target in deps:
            if target.removeprefix(":") not in targets:
                faults.append(
                    f"'{name}' depends on '{target}', a missing target."
                )
    named = set().union(*(files for files, _ in targets.values()))
    for folder in ("benchmarks", "docs/guides", "recipes", "tests", "tf_gems"):
        for path in sorted(root.glob(f"{folder}/**/*.py")):
            file = path.relative_to(root).as_posix()
            if file not in named and "node_modules" not in path.parts:
                faults.append(f"'{file}' is in no target.")
    return faults


def _matches(root, patterns):
    return {
        path.relative_to(root).as_posix()
        for pattern in patterns
        # Before Python 3.13, a trailing `**` matches only directories.
        for path in root.glob(
            f"{pattern}/*" if pattern[-2:] == "**" else pattern
        )
        if path.is_file() and "__pycache__" not in path.parts
    }


if __name__ == "__main__":
    found = check(ROOT)
    print("\n".join(found) or "BUILD is complete.")
    sys.exit(bool(found))
