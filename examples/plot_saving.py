"""
Keep a model, and answer without torch
======================================

A fitted model goes into one file that executes nothing when it is loaded. For a server or a phone, a graph of ONNX
holds the model with the encoding of its columns, and needs neither torch nor Python.
"""

# %%
# One file
# --------

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine

import skvae

X = load_wine(as_frame=True).data.iloc[:, :5]
vae = skvae.VAEEstimator(latent_dim=2, random_state=0).fit(X)

folder = Path(tempfile.mkdtemp())
skvae.save(vae, folder / "wine.safetensors")
loaded = skvae.load(folder / "wine.safetensors")
print((loaded.transform(X) == vae.transform(X)).all(), (folder / "wine.safetensors").stat().st_size // 1024, "KiB")

# %%
# Both draw the same rows

fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
for model, marker in ((vae, "o"), (loaded, "x")):
    rows = model.sample(60, random_state=0)
    ax.scatter(rows["alcohol"], rows["ash"], marker=marker, alpha=0.7)
ax.set(xlabel="alcohol", ylabel="ash", title="sixty new wines, before and after")
plt.show()

# %%
# Without torch
# -------------
# ``pip install "skvae[onnx]"`` writes the graph, and ``onnxruntime`` runs it: columns go in by name, and the numbers
# are those of the estimator. The page on persistence shows a server around it.

try:
    import onnxruntime

    from skvae.export import to_onnx

    to_onnx(vae, folder / "transform.onnx")
    graph = onnxruntime.InferenceSession(folder / "transform.onnx")
    row = {name: np.array([[value]]) for name, value in X.iloc[0].items()}
    (z_mean,) = graph.run(None, row)
    print("onnxruntime:", z_mean[0], " estimator:", vae.transform(X.head(1))[0])
except ImportError as error:
    print("not tried here:", error)

# %%
# **What to conclude.** Use `skvae.save` for models that you keep or share, graphs for those that you ship, and pickle
# for neither.
