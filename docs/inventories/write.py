"""Write `sklearn.inv`, an inventory of Sphinx with the public names of scikit-learn."""

import zlib
from pathlib import Path

import sklearn
from sklearn.utils.discovery import all_displays, all_estimators, all_functions

HEADER = (
    "# Sphinx inventory version 2\n# Project: scikit-learn\n# Version: {}\n# The remainder is compressed by zlib.\n"
)


def public_name(thing):
    """Where users import it from: without the private modules."""
    parts = [part for part in thing.__module__.split(".") if not part.startswith("_")]
    return ".".join([*parts[:2], thing.__name__])


lines = []
for role, found in (("class", all_estimators() + all_displays()), ("function", all_functions())):
    for _, thing in found:
        name = public_name(thing)
        lines.append(f"{name} py:{role} 1 modules/generated/{name}.html#$ -\n")

version = ".".join(sklearn.__version__.split(".")[:2])
body = zlib.compress("".join(sorted(set(lines))).encode())
(Path(__file__).parent / "sklearn.inv").write_bytes(HEADER.format(version).encode() + body)
