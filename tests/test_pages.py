"""The code on pages of the docs runs as it stands, one page in one process, and so does the example of a server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from models import quick

ROOT = Path(__file__).parents[1]

needs_graphs = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="this torch writes other graphs"
)


@pytest.mark.parametrize("page", [pytest.param("persistence.md", marks=needs_graphs), "scale.md"])
def test_the_code_of_a_page_runs(page, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) >= 2
    # not a file, which processes of the page's would run again
    command = [sys.executable, "-c", "\n".join(blocks)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@needs_graphs
def test_a_graph_is_served_over_http(tmp_path, monkeypatch):
    testclient = pytest.importorskip("fastapi.testclient")
    from skvae.export import to_onnx

    X = pd.DataFrame({"x": np.linspace(0, 1, 90), "town": np.where(np.arange(90) % 4 > 0, "Ulm", "Bonn")}).astype(
        {"town": object}
    )
    X.loc[::7, "x"] = np.nan
    X.loc[::9, "town"] = None
    vae = quick().fit(X)
    to_onnx(vae, tmp_path / "transform.onnx")
    monkeypatch.setenv("MODEL", os.fspath(tmp_path / "transform.onnx"))
    monkeypatch.syspath_prepend(ROOT / "examples" / "serving")
    import app

    client = testclient.TestClient(app.app)
    answer = client.post("/rows", json={"x": [0.5, None, 0.1], "town": ["Ulm", "Bonn", None]})
    assert answer.status_code == 200
    expected = vae.transform(pd.DataFrame({"x": [0.5, np.nan, 0.1], "town": ["Ulm", "Bonn", None]}))
    np.testing.assert_allclose(answer.json()["z_mean"], expected, rtol=1e-9, atol=1e-9)

    # a column that is left out is missing; one that is not there is refused; a level never seen has no answer
    assert client.post("/rows", json={"x": [0.5]}).status_code == 200
    assert client.post("/rows", json={"y": [0.5]}).status_code == 422
    assert client.post("/rows", json={"x": [0.5], "town": ["Rome"]}).json() == {"z_mean": [[None, None]]}
