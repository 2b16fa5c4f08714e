"""How the package is built: imports point down, importing changes nothing, everything public is documented."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import skvae

FOLDER = Path(skvae.__file__).parent
# by module name without the root: "columns.tables"; the root itself is "__init__"
FILES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(FOLDER.rglob("*.py"))
}
MODULES = sorted(m.name for m in pkgutil.walk_packages(skvae.__path__, "skvae."))

# what each file may import of the package; files not named here only use what an estimator fitted
MAY_IMPORT = {
    "threads": set(),
    "randomness": {"threads"},
    "interpolation": set(),
    "table": set(),
    "model": {"randomness", "threads"},
    "engine": {"model", "randomness", "threads"},
    "inference": {"model", "threads"},
    "base": {"engine", "inference", "model", "table", "threads"},
    "estimator": {"base", "engine", "inference", "interpolation", "model", "table"},
    "neighbours": set(),
    "pipelines": {"estimator", "table"},
    "oversampling": {"estimator", "neighbours", "table"},
    "__init__": {"estimator", "persistence", "pipelines"},
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


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name):
    area = name.split(".")[0]
    own = {module.split(".")[1] for module in imports(FILES[name]) if module.startswith("skvae.")}
    if FILES[name].parent != FOLDER:  # files of one folder may use each other, without a circle
        own -= {area}
    assert own <= MAY_IMPORT.get(area, {"estimator", *MAY_IMPORT["estimator"]})


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
def test_model_and_training_know_no_scikit_learn(name):
    assert not [module for module in imports(FILES[name]) if module.split(".")[0] in {"sklearn", "pandas", "polars"}]


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
