"""The page as a folder that any web server can give away."""

import shutil
from pathlib import Path

from tf_gems.page.server import PACKAGES
from tf_gems.page.server import STATIC
from tf_gems.page.server import check_directory
from tf_gems.page.server import page_directory

# What LiteRT.js loads on one thread, with and without relaxed SIMD.
_PARTS = (
    "core/dist/index.js",
    "core/wasm/litert_wasm_internal.js",
    "core/wasm/litert_wasm_internal.wasm",
    "core/wasm/litert_wasm_compat_internal.js",
    "core/wasm/litert_wasm_compat_internal.wasm",
)
_RUN = (
    "page.json",
    "dense.tflite",
    "sparse.tflite",
    "inputs.bin",
    "outputs.bin",
)


def copy_page(directory, target):
    """Copies the page and what it needs, about 20 MB, into a new folder.

    Args:
        directory: String or path: of a recipe's run, or what
            `tf_gems.page.write_page` wrote.
        target: String or path that does not exist yet. Its files refer to
            each other by relative addresses.

    Raises:
        FileExistsError: If the target exists.
        FileNotFoundError: If the directory holds no page, or LiteRT.js is not
            installed.

    Example:

    ```python
    tf_gems.page.copy_page("runs/mnist", "site")
    ```
    """
    directory, target = page_directory(directory), Path(target)
    check_directory(directory)
    (target / "run").mkdir(parents=True)
    for name in _RUN:
        shutil.copy(directory / name, target / "run" / name)
    for file in STATIC.iterdir():
        if file.stem != "benchmark":
            shutil.copy(file, target / file.name)
    packages = PACKAGES / "@litertjs"
    utilities = (packages / "wasm-utils" / "dist").glob("*.js")
    files = [*(packages / part for part in _PARTS), *utilities]
    for file in files:
        place = target / "litert" / file.relative_to(PACKAGES)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
