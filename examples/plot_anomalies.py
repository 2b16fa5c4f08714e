"""
Anomalies, cell by cell
=======================

A detector that says *which* rows are odd leaves the work to you. A density of all columns can also say *why*: which
cell is a surprise, given the others of its row.
"""

# %%
# A table with mistakes
# ---------------------
# Five cells of the wine table are moved to values that other wines have, so that no cell is odd by itself.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_wine

from skvae import VAEEstimator
from skvae.displays import AnomalyDisplay

X = load_wine(as_frame=True).data
rng = np.random.default_rng(3)
broken = X.copy()
rows = rng.choice(len(X), 5, replace=False)
columns = rng.choice(X.shape[1], 5, replace=False)
for i, j in zip(rows, columns, strict=True):
    low, high = X.iloc[:, j].quantile([0.02, 0.98])
    broken.iloc[i, j] = low if X.iloc[i, j] > X.iloc[:, j].median() else high

# %%
# Which rows, and why
# -------------------
# ``score_samples`` ranks the rows, ``score_cells`` their cells: minus the log density of each cell given the others, in
# nats. The display takes the least likely rows.

vae = VAEEstimator(latent_dim=4, random_state=0).fit(broken)
AnomalyDisplay.from_estimator(vae, broken, n_rows=12)
plt.show()

# %%
# Are the mistakes found?

surprise = vae.score_cells(broken)
rank = (-surprise).ravel().argsort().argsort().reshape(surprise.shape)
for i, j in zip(rows, columns, strict=True):
    print(
        f"row {i:3d}, {X.columns[j]:30}: surprise {surprise[i, j]:5.1f} nats, rank {rank[i, j] + 1} of {rank.size} cells"
    )

# %%
# **What to conclude.** Start from the cells at the top, not from the rows. A cell of 8 nats is one that the model
# expects once in three thousand. For a threshold on rows and scikit-learn's outlier interface, see
# `skvae.outliers.VAEOutlierDetector`.
