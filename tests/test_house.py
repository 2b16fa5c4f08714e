"""How the package is built: imports point down, importing changes nothing, the code is airy, everything is documented."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from house import FUNCTIONS, body_lengths, measure

import skvae
from skvae.model.likelihoods import BLOCKS
from skvae.table.kinds import KINDS

FOLDER = Path(skvae.__file__).parent
# by module name without the root: "columns.tables"; the root itself is "__init__"
FILES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(FOLDER.rglob("*.py"))
}
MODULES = sorted(m.name for m in pkgutil.walk_packages(skvae.__path__, "skvae."))

# what each file or folder may import of the package, from the bottom to the top
MAY_IMPORT = {
    "_sklearn": set(),
    "exceptions": set(),
    "files": set(),
    "interpolation": set(),
    "neighbours": set(),
    "threads": set(),
    "surroundings": set(),
    "randomness": {"threads"},
    "table": {"_sklearn"},
    "model": {"randomness", "threads"},
    "engine": {"exceptions", "model", "randomness", "threads"},
    "quasirandom": set(),
    "inference": {"model", "quasirandom", "threads"},
    "conditioning": {"model", "table", "threads"},
    "imputation": {"conditioning", "inference", "model", "quasirandom", "table", "threads"},
    "marginal": {"conditioning", "inference", "model", "quasirandom"},
    "conditionals": {"conditioning", "inference", "marginal", "model", "table"},
    "constraints": {"table"},
    "validity": {"table"},
    "information": {"model", "table", "threads"},
    "facts": {"fitted", "information", "model", "table"},
    "prediction": {"conditionals", "fitted", "parameters", "progress", "table"},
    "parameters": {"_sklearn", "model", "table"},
    "progress": {"engine"},
    "version": set(),
    "fitted": {
        "version",
        "surroundings",
        "conditionals",
        "conditioning",
        "engine",
        "imputation",
        "inference",
        "marginal",
        "model",
        "parameters",
        "table",
        "threads",
        "validity",
    },
    "model_state": {"constraints", "engine", "fitted", "model", "surroundings", "table", "threads"},
    "persistence": {"constraints", "estimator", "files", "model", "model_state", "table", "version"},
    "export": {
        "estimator",
        "files",
        "fitted",
        "inference",
        "model",
        "parameters",
        "surroundings",
        "table",
        "threads",
    },
    "kept_rows": {"table"},
    "shards": {"_sklearn", "engine", "kept_rows", "table", "training_rows"},
    "joint_fit": {"engine", "estimator", "shards", "table"},
    "on_dask": {"estimator", "joint_fit", "kept_rows", "parameters"},
    "distributed": {"engine", "estimator", "joint_fit", "on_dask"},
    "stream": {"estimator", "files", "fitting", "kept_rows", "parameters", "progress", "table"},
    "callbacks": {"parameters", "persistence"},
    "training_rows": {"_sklearn", "engine", "fitted", "model", "table"},
    "resumption": {"engine", "fitted", "parameters", "table", "training_rows"},
    "fitting": {
        "engine",
        "resumption",
        "exceptions",
        "fitted",
        "model",
        "parameters",
        "progress",
        "shards",
        "surroundings",
        "table",
        "threads",
        "training_rows",
    },
    "sampling": {"fitted", "parameters", "progress", "table"},
    "scoring": {"_sklearn", "fitted", "parameters", "progress"},
    "estimator": {
        "_sklearn",
        "facts",
        "fitted",
        "fitting",
        "interpolation",
        "model",
        "parameters",
        "prediction",
        "sampling",
        "scoring",
        "shards",
        "table",
    },
    "metrics": {"table"},
    "pipelines": {"_sklearn", "estimator", "table"},
    "outliers": {"_sklearn", "estimator", "parameters", "table"},
    "joint": {"estimator", "table"},
    "oversampling": {"_sklearn", "estimator", "joint", "neighbours", "table"},
    "drawing": set(),
    "evaluation": {"drawing", "table"},
    "displays": {"_sklearn", "drawing", "evaluation", "metrics", "table"},
    "__init__": {"estimator", "evaluation", "exceptions", "persistence", "pipelines", "version"},
}
TORCH_ONLY = [name for name in FILES if name.startswith(("model.", "engine.")) and name != "model.latent"] + [
    "randomness",
    "threads",
]


def imports(path):
    """Full names of the modules that a file imports when it runs, wherever in it."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        # what annotations alone name is not imported
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body.clear()

    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "skvae"}
    return names


def packages(path):
    """Names of the packages that a file imports, wherever in it."""
    return {module.split(".")[0] for module in imports(path)}


def private_imports(source, package):
    """Full names of what a source imports of a package by a name that begins with one underscore."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == package and any(re.match("_(?!_)", part) for part in parts):
                found.append(name)
    return found


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name):
    area = name.split(".")[0]
    own = {module.split(".")[1] for module in imports(FILES[name]) if module.startswith("skvae.")}
    if FILES[name].parent != FOLDER:  # files of one folder may use each other, without a circle
        own -= {area}
    assert area in MAY_IMPORT, f"{area} has no row in the table: say what it may import"
    assert own <= MAY_IMPORT[area]


def test_no_two_files_import_each_other():
    used = {
        name: {m.removeprefix("skvae.") for m in imports(path) if m.startswith("skvae.")} & FILES.keys()
        for name, path in FILES.items()
    }
    left = dict(used)
    while free := [name for name in left if not left[name] & left.keys()]:
        left = {name: need for name, need in left.items() if name not in free}
    assert not left, f"a circle of imports among {sorted(left)}"


@pytest.mark.parametrize("name", FILES)
def test_nobody_imports_the_package_root(name):
    assert "skvae" not in imports(FILES[name])


@pytest.mark.parametrize("name", TORCH_ONLY)
def test_model_and_training_import_no_scikit_learn(name):
    assert not packages(FILES[name]) & {"sklearn", "narwhals", "pandas", "polars"}


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("table")])
def test_table_imports_no_torch(name):
    assert "torch" not in packages(FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_private_names_of_scikit_learn_are_imported_in_one_file(name):
    private = private_imports(FILES[name].read_text(), "sklearn")
    if name == "_sklearn":
        assert private, "the file has nothing left to hold"
    else:
        assert not private, "take them from skvae._sklearn"


def test_private_names_are_found():
    source = """
import sklearn.utils._tags
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from sklearn import __version__
from skvae._sklearn import StrOptions
"""
    assert private_imports(source, "sklearn") == [
        "sklearn.utils._tags",
        "sklearn.utils._param_validation.Interval",
        "sklearn.utils.validation._check_sample_weight",
    ]


@pytest.mark.parametrize("name", FILES)
def test_optional_packages_load_where_they_are_used(name):
    optional = {"pandas", "polars", "matplotlib", "rich", "imblearn"}
    if name == "oversampling":
        optional.remove("imblearn")  # imported by name only, and made of it
    top = ast.parse(FILES[name].read_text()).body
    for node in top:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
        assert not optional & {n.split(".")[0] for n in names}


def test_importing_changes_nothing_and_needs_no_optional_package():
    code = """
import random, sys, numpy, torch, os, warnings, logging
import sklearn, sklearn.callback
states = lambda: (
    random.getstate(),
    str(numpy.random.get_state()),
    torch.get_rng_state().tolist(),
    torch.get_num_threads(),
    torch.get_num_interop_threads(),
    torch.get_default_dtype(),
    torch.is_grad_enabled(),
    torch.are_deterministic_algorithms_enabled(),
    torch.get_float32_matmul_precision(),
    torch.backends.cudnn.benchmark,
    numpy.geterr(),
    str(numpy.get_printoptions()),
    dict(os.environ),
    list(warnings.filters),
    logging.getLogger().handlers[:],
    sklearn.get_config(),
)
optional = {"pandas", "polars", "matplotlib", "rich", "imblearn"}
before, loaded = states(), optional & set(sys.modules)
import skvae
after = states()
assert [a == b for a, b in zip(before, after)] == [True] * len(before), list(zip(before, after))
assert optional & set(sys.modules) == loaded, "an optional package was loaded"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_are_there():
    assert "VAEEstimator" in skvae.__all__
    for name in skvae.__all__:
        assert getattr(skvae, name).__module__.startswith("skvae.")
    assert skvae.__version__


def public_callables():
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module_name:
                continue
            if inspect.isfunction(thing):
                yield f"{module_name}.{name}", thing
            elif inspect.isclass(thing):
                yield f"{module_name}.{name}", thing
                for method_name, method in vars(thing).items():
                    if not method_name.startswith("_") and inspect.isfunction(inspect.unwrap(method)):
                        yield f"{module_name}.{name}.{method_name}", method


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*pair, id=pair[0]) for pair in public_callables()])
def test_everything_public_has_a_docstring(name, thing):
    assert (inspect.getdoc(thing) or "").strip(), f"{name} has no docstring"


@pytest.mark.parametrize("name", skvae.__all__)
def test_every_parameter_is_in_the_docstring(name):
    thing = getattr(skvae, name)
    methods = [thing, *(m for k, m in vars(thing).items() if not k.startswith("_") and inspect.isfunction(m))]
    for method in methods if inspect.isclass(thing) else [thing]:
        doc = inspect.getdoc(method)
        for parameter in inspect.signature(method).parameters:
            assert parameter == "self" or f"{parameter} : " in doc, f"{method.__qualname__} says nothing of {parameter}"


def test_every_module_says_what_it_is_for():
    for path in FILES.values():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.name} has no docstring"


# ------------------------------------------------------------------------------------------------ air, words and types

LINES_PER_FILE = 500
LINES_PER_FUNCTION = 50  # of its body, without docstrings
# No figure may be worse than twice the median of the packages in docs/contributing.md, where the table is.
AT_MOST = {"parallel assignments": 4.0, "conditional expressions": 11.3, "comprehensions": 13.5}
AT_LEAST = {"blank lines in functions": 6.0, "comments on a line of their own": 4.5}

AIRY = """def f(a, b):
    \"""Docstring.

    Its lines do not count.
    \"""
    x, y = a, b
    first, second = f(a, b)

    # a comment
    if x:
        return [i if i else 0 for i in range(y)]
    return {i: (j for j in i) for i in x}
"""


def test_figures_of_a_short_source(tmp_path):
    path = tmp_path / "airy.py"
    path.write_text(AIRY)
    figures = measure([path, path])
    assert figures.code == 2 * 6
    assert figures.rates() == pytest.approx(
        {
            "parallel assignments": 1000 * 1 / 6,  # not the unpacking of one call's pair
            "conditional expressions": 1000 * 1 / 6,
            "comprehensions": 1000 * 3 / 6,
            "blank lines in functions": 100 * 1 / 6,
            "comments on a line of their own": 100 * 1 / 6,
        }
    )
    assert body_lengths(ast.parse(AIRY)) == {"f:1": 7}


@pytest.mark.parametrize("figure", AT_MOST)
def test_lines_are_not_packed(figure):
    assert measure(FILES.values()).rates()[figure] <= AT_MOST[figure], (
        "per 1,000 code lines; `make house` has the table"
    )


@pytest.mark.parametrize("figure", AT_LEAST)
def test_code_has_air(figure):
    assert measure(FILES.values()).rates()[figure] >= AT_LEAST[figure], "per 100 code lines; `make house` has the table"


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name):
    n_lines = len(FILES[name].read_text().splitlines())
    assert n_lines <= LINES_PER_FILE


@pytest.mark.parametrize("name", FILES)
def test_functions_are_short(name):
    lengths = body_lengths(ast.parse(FILES[name].read_text()))
    too_long = {function: n for function, n in lengths.items() if n > LINES_PER_FUNCTION}
    assert not too_long


# Words that have had several meanings, or that are not English, and what to write instead.
PLAIN_WORDS = {
    r"\bknown\b": "`observed` for cells that are there, `given` for cells held fixed",
    r"\bat most (about )?so many\b": "what the number limits",
    r"\bwhat that is\.": "a sentence",
    r"\bwhere what\b": "positions of ...",
}


@pytest.mark.parametrize("name", FILES)
def test_words_are_plain(name):
    # the words of a name count one by one: `known_cells`
    text = " ".join(FILES[name].read_text().replace("_", " ").split())
    found = []
    for pattern, instead in PLAIN_WORDS.items():
        for match in re.finditer(pattern, text, re.IGNORECASE):
            found.append(f"...{text[max(0, match.start() - 40) : match.end() + 40]}...: write {instead}")
    assert not found


def unannotated(source):
    """Names of the functions whose parameters or result have no type, and of those parameters."""
    tree = ast.parse(source)
    methods = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods |= {item for item in node.body if isinstance(item, FUNCTIONS)}

    found = []
    for node in ast.walk(tree):
        if not isinstance(node, FUNCTIONS):
            continue
        positional = [*node.args.posonlyargs, *node.args.args]
        static = any(getattr(decorator, "id", None) == "staticmethod" for decorator in node.decorator_list)
        if node in methods and not static:
            positional = positional[1:]  # self or cls
        parameters = [*positional, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        missing = [parameter.arg for parameter in parameters if parameter and parameter.annotation is None]
        if node.returns is None:
            missing.append("return")
        if missing:
            found.append(f"{node.name}: {', '.join(missing)}")
    return found


def test_missing_annotations_are_found():
    source = """
class A:
    def method(self, a, *rest, b: int, **more: int) -> None:
        def inner(self) -> None: ...
    @staticmethod
    def static(a) -> int: ...
    @classmethod
    def of_class(cls, a: int): ...
    def annotated(self, a: int) -> None: ...
"""
    assert set(unannotated(source)) == {"method: a, rest", "inner: self", "static: a", "of_class: return"}


@pytest.mark.parametrize("name", FILES)
def test_everything_is_annotated(name):
    missing = unannotated(FILES[name].read_text())
    assert not missing


def test_version_is_written_once():
    folder = FOLDER.parent
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
    places = [path for path in [*FILES.values(), folder / "docs/conf.py"] if skvae.__version__ in path.read_text()]
    assert places == [FILES["version"]]


# ------------------------------------------------------------------------------------------------------ kinds of column


def compared_strings(source):
    """String constants that a source compares something with."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            found |= {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
        elif isinstance(node, ast.MatchValue):
            found |= {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
    return {value for value in found if isinstance(value, str)}


def test_compared_strings_are_found():
    source = """
if kind == "poisson" or kind in ("normal", name):
    label = "bernoulli"
match kind:
    case "categorical": pass
"""
    assert compared_strings(source) == {"poisson", "normal", "categorical"}


@pytest.mark.parametrize("name", FILES)
def test_only_their_own_files_ask_for_a_kind_of_column(name):
    if name.startswith(("table.kinds", "model.likelihoods")):
        return
    asked = compared_strings(FILES[name].read_text()) & set(KINDS)
    assert not asked, "a kind's class answers: ask it"


def test_kinds_of_the_table_and_of_the_model_are_paired():
    # a kind without a density of its own is made of parts of other kinds, or has no part
    assert KINDS.keys() - BLOCKS.keys() == {"constant", "quantile_normal"}
    assert BLOCKS.keys() <= KINDS.keys()
    for name, block in BLOCKS.items():
        assert block.section == KINDS[name].section


@pytest.mark.parametrize("registry", [KINDS, BLOCKS], ids=["table", "model"])
def test_registered_kinds_are_complete_and_documented(registry):
    guide = (FOLDER.parent / "docs/user_guide.md").read_text()
    for name, kind in registry.items():
        assert kind.name == name
        assert not inspect.isabstract(kind), f"{kind.__name__} lacks {sorted(kind.__abstractmethods__)}"
        assert name in guide


@pytest.mark.parametrize("registry", [KINDS, BLOCKS], ids=["table", "model"])
def test_a_kind_that_forgets_a_method_is_refused(registry, monkeypatch):
    base = next(parent for parent in registry["normal"].__mro__ if inspect.isabstract(parent))
    monkeypatch.setitem(registry, "forgetful", None)  # taken out again after the test
    forgetful = type("Forgetful", (base,), {"name": "forgetful", "section": "numbers"})
    assert registry["forgetful"] is forgetful
    with pytest.raises(TypeError, match="abstract"):
        forgetful()
