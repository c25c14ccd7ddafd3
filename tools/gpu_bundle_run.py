"""Measure this library on a GPU: what is needed besides torch and transformers lies here.

    python gpu-bundle/run.py [OUT_FOLDER] [--quick] [--smoke] [--only NAME ...]
    python gpu-bundle/run.py study OUT_FOLDER [--minutes 8]

Results go to the folder gpu-results, or OUT_FOLDER. No network is needed, and nothing is installed.
The second form compares families of models, by the recipe that was packed with its text.
"""

from __future__ import annotations

import os
import runpy
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECIPE = "study.toml"  # of python tools/gpu_bundle.py --study


def unpack(wheel: Path, folder: Path) -> bool:
    """Unpack a wheel into ``folder``, if this Python lacks one of its modules."""
    with zipfile.ZipFile(wheel) as packed:
        tops = {name.partition("/")[0] for name in packed.namelist()}
        modules = {
            top.removesuffix(".py") for top in tops if not top.endswith((".dist-info", ".data"))
        }
        if all(find_spec(module) for module in modules):
            return False
        packed.extractall(folder)
        return True


def main() -> None:
    site, python = HERE / "site", (HERE / "PYTHON").read_text().strip()
    sys.path[0:1] = [str(HERE), str(HERE / "src")]
    site.mkdir(exist_ok=True)
    sys.path.append(str(site))  # last: what the machine has fits together
    wheels = sorted((HERE / "wheels").glob("*.whl"))
    lacked = [wheel.name for wheel in wheels if unpack(wheel, site)]
    here = ".".join(map(str, sys.version_info[:2]))
    if here != python and not all(name.endswith("-none-any.whl") for name in lacked):
        sys.exit(
            f"this bundle has wheels for Python {python}, and this is {here}, which lacks some; "
            f"pack another with: python tools/gpu_bundle.py --python {here}"
        )
    if sys.argv[1:2] == ["study"]:
        study(sys.argv[2:])
    else:
        runpy.run_path(str(HERE / "benchmarks" / "gpu.py"), run_name="__main__")


def study(arguments: list[str]) -> None:
    """Run the study of the bundle, whose text lies beside it."""
    if not arguments or arguments[0].startswith("-"):
        sys.exit("name a folder for the results: run.py study OUT_FOLDER [--minutes 8]")
    out = os.path.abspath(arguments[0])
    os.chdir(HERE)
    if not Path(RECIPE).is_file():
        sys.exit("no study was packed: python tools/gpu_bundle.py --study recipes/study/gpu.toml")
    sys.argv[1:] = ["study", RECIPE, "--out", out, *arguments[1:]]
    runpy.run_module("blt", run_name="__main__")


if __name__ == "__main__":
    main()
