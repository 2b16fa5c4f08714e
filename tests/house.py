"""Measurements of how airy a package is: ``python tests/house.py skvae --beside zuko skorch``.

A package is named by its folder or by its import name; its tests are left out. Code lines are the lines that are
neither blank, nor a comment, nor part of a docstring.
"""

import argparse
import ast
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

FIGURES = (
    "parallel assignments",
    "conditional expressions",
    "comprehensions",
    "blank lines in functions",
    "comments on a line of their own",
)
"""The first three are counted per 1,000 code lines, the others per 100."""


@dataclass
class Figures:
    """Counts over some files."""

    code: int = 0
    parallel: int = 0
    conditional: int = 0
    comprehension: int = 0
    blank: int = 0
    comment: int = 0

    def rates(self) -> dict[str, float]:
        """The figures that packages of different sizes can be compared by."""
        statements = [self.parallel, self.conditional, self.comprehension]
        air = [self.blank, self.comment]
        rates = [1000 * count / self.code for count in statements] + [100 * count / self.code for count in air]
        return dict(zip(FIGURES, rates, strict=True))


def files_of(package: str) -> list[Path]:
    """Source files of a folder or of an importable package, without its tests; none if it is not found."""
    folder = Path(package)

    if not folder.is_dir():
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            return []
        if spec is None or not spec.submodule_search_locations:
            return []
        folder = Path(spec.submodule_search_locations[0])

    return [path for path in sorted(folder.rglob("*.py")) if "tests" not in path.relative_to(folder).parts]


def docstring_lines(tree: ast.Module) -> set[int]:
    """Numbers of the lines that docstrings take."""
    numbers: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)) and ast.get_docstring(node):
            numbers.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return numbers


def body_lengths(tree: ast.Module) -> dict[str, int]:
    """Lines of every function's body, without docstrings, by name and line number."""
    documented = docstring_lines(tree)
    lengths = {}
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            body = range(node.body[0].lineno, node.end_lineno + 1)
            lengths[f"{node.name}:{node.lineno}"] = len(set(body) - documented)
    return lengths


def is_parallel(node: ast.AST) -> bool:
    """Whether a statement assigns several values to several names: ``a, b = x, y``."""
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple)


def measure(paths: Iterable[Path]) -> Figures:
    """Figures of some source files together."""
    figures = Figures()

    for path in paths:
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        tree = ast.parse(source)
        documented = docstring_lines(tree)

        for number, line in enumerate(lines, 1):
            stripped = line.strip()
            if stripped.startswith("#"):
                figures.comment += 1
            elif stripped and number not in documented:
                figures.code += 1

        for node in ast.walk(tree):
            figures.parallel += is_parallel(node)
            figures.conditional += isinstance(node, ast.IfExp)
            figures.comprehension += isinstance(node, COMPREHENSIONS)
            # lines of an inner function count for it and for the function around it
            if isinstance(node, FUNCTIONS):
                for number in range(node.body[0].lineno, node.end_lineno + 1):
                    figures.blank += not lines[number - 1].strip() and number not in documented

    return figures


def table(measured: dict[str, Figures], anchors: list[str]) -> str:
    """Markdown table of the figures of some packages and the median of the anchors among them."""
    rows = {name: [figures.code, *figures.rates().values()] for name, figures in measured.items()}

    if anchors:
        of_anchors = [rows[name] for name in anchors]
        medians = [median(column) for column in zip(*of_anchors, strict=True)]
        rows["median of the anchors"] = medians
        code, parallel, conditional, comprehension, blank, comment = medians
        # less is better for statements packed into a line, more for air
        rows["twice as bad"] = [code, 2 * parallel, 2 * conditional, 2 * comprehension, blank / 2, comment / 2]

    heads = ["", "code lines", *FIGURES]
    text = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for name, (code, *rates) in rows.items():
        cells = [f"{code:,.0f}", *[f"{rate:.1f}" for rate in rates]]
        text.append("| " + " | ".join([name, *cells]) + " |")

    return "\n".join(text)


def main() -> None:
    """Print the table for the packages named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package")
    parser.add_argument("--beside", nargs="*", default=[], metavar="PACKAGE")
    arguments = parser.parse_args()

    measured = {}
    for package in [arguments.package, *arguments.beside]:
        paths = files_of(package)
        if paths:
            measured[package] = measure(paths)
        else:
            print(f"{package} is not installed here: left out.")

    anchors = [package for package in arguments.beside if package in measured]
    print(table(measured, anchors))


if __name__ == "__main__":
    main()
