"""A built package in a bare environment: it imports without any extra, fits, saves and loads. Run by `make release-check`."""

import importlib
import importlib.util
import tempfile
from pathlib import Path

import numpy as np

import skvae


def main():
    """Try the package that is installed."""
    assert "site-packages" in skvae.__file__, skvae.__file__
    assert (Path(skvae.__file__).parent / "py.typed").exists()
    for extra in ("pandas", "polars", "matplotlib", "imblearn", "onnx", "dask"):
        assert importlib.util.find_spec(extra) is None, f"{extra} is installed: the environment is not bare"

    X = np.random.default_rng(0).normal(size=(200, 3))
    vae = skvae.VAEEstimator(2, max_iter=5, random_state=0).fit(X)
    with tempfile.TemporaryDirectory() as folder:
        skvae.save(vae, Path(folder) / "model.safetensors")
        loaded = skvae.load(Path(folder) / "model.safetensors")
    assert (loaded.transform(X) == vae.transform(X)).all()
    assert loaded.sample(5, random_state=0).shape == (5, 3)
    for module in ("displays", "distributed", "metrics", "outliers", "stream"):
        importlib.import_module(f"skvae.{module}")
    assert skvae.evaluate(X, vae.sample(100), X[::2])["copies"] == 0
    print(f"skvae {skvae.__version__} works from {Path(skvae.__file__).parent}")


if __name__ == "__main__":
    main()
