"""The page as a folder for any static web server."""

import os
import shutil
from pathlib import Path

from tf_gems.files import workplace
from tf_gems.page.server import FILES
from tf_gems.page.server import PACKAGES
from tf_gems.page.server import STATIC
from tf_gems.page.server import check_packages
from tf_gems.page.server import check_page
from tf_gems.page.server import find_file
from tf_gems.page.server import page_directory
from tf_gems.targets import check_directory

# What LiteRT.js loads on one thread, with and without relaxed SIMD.
_PARTS = (
    "core/dist/index.js",
    "core/wasm/litert_wasm_internal.js",
    "core/wasm/litert_wasm_internal.wasm",
    "core/wasm/litert_wasm_compat_internal.js",
    "core/wasm/litert_wasm_compat_internal.wasm",
)


def copy_page(directory, target):
    """Copies the page with all of its files, about 20 MB, to a new folder.

    The folder is written completely, or not at all.

    Args:
        directory: String or path of the run of a recipe, or of a directory
            that `tf_gems.page.write_page` has written. Links to files outside
            of it are not followed.
        target: String or path of a new or empty directory. The copied files
            refer to each other by relative URLs.

    Raises:
        FileExistsError: If the target is not empty.
        FileNotFoundError: If the directory has no page, or LiteRT.js is not
            installed.
        PermissionError: If a file of the page is a link to a file outside of
            its directory.
        ValueError: See `tf_gems.targets.check_directory`.

    Example:

    ```python
    tf_gems.page.copy_page("runs/mnist", "site")
    ```
    """
    target = check_directory(target, "target")
    if target.is_dir() and any(target.iterdir()):
        raise FileExistsError(
            "A page must be copied to a new folder. Received: "
            f"target='{target}', which contains files. Choose another name."
        )
    directory = page_directory(directory)
    check_page(directory)
    places = {f"run/{name}": _within(directory, name) for name in FILES}
    check_packages()
    for file in STATIC.iterdir():
        if file.stem != "benchmark":
            places[file.name] = file
    packages = PACKAGES / "@litertjs"
    utilities = (packages / "wasm-utils" / "dist").glob("*.js")
    for file in (*(packages / part for part in _PARTS), *utilities):
        places[f"litert/{file.relative_to(PACKAGES)}"] = file
    target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with workplace(target) as folder:
        site = folder / "new"
        for place, file in places.items():
            (site / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, site / place)
        if target.is_dir():
            target.rmdir()  # fails if something has come into it
        os.replace(site, target)


def _within(directory, name):
    """Returns a file of a run, or raises an error if it leads out of it."""
    file = find_file(directory, name)
    if file is not None:
        return file
    if os.path.lexists(directory / name):
        raise PermissionError(
            "Only files inside the directory of the run are copied. "
            f"Received: '{directory / name}', which is a link to a file "
            "outside of it. Copy the file into the directory."
        )
    raise FileNotFoundError(
        f"A page consists of {', '.join(FILES)}. Received: directory="
        f"'{directory}', without '{name}'. Write the page again."
    )
