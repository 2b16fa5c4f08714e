"""
Missing cells: a VAE among the imputers
=======================================

Cells of a real table are hidden at random, filled by four imputers, and compared with what was there. Then the VAE
does what the others cannot: it says how unsure it is.
"""

# %%
# Hide a fifth of the cells
# -------------------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler

from skvae import VAEEstimator

X = StandardScaler().fit_transform(load_breast_cancer().data[:, :10])
rng = np.random.default_rng(0)
hidden = rng.uniform(size=X.shape) < 0.2
holed = np.where(hidden, np.nan, X)

# %%
# Fill them
# ---------
# ``impute`` gives the mean of each hidden cell given the others of its row.

vae = VAEEstimator(latent_dim=6, max_iter=400, random_state=0).fit(holed)
filled = {
    "mean": SimpleImputer().fit_transform(holed),
    "5 neighbours": KNNImputer().fit_transform(holed),
    "VAE": vae.impute(holed),
}
errors = {}
for name, cells in filled.items():
    errors[name] = np.sqrt(np.mean((cells - X)[hidden] ** 2))
    print(f"{name:13}: root mean squared error {errors[name]:.3f} deviations")

fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
ax.barh(list(errors), list(errors.values()), color=["#999999", "#56B4E9", "#E66100"])
ax.set(xlabel="root mean squared error, deviations", title="Hidden cells")

# %%
# How sure is it?
# ---------------
# ``impute(X, n_draws=20)`` gives twenty completed copies. Their spread is the model's uncertainty, and it should be
# honest: nine tenths of the hidden cells should lie between the 5 % and 95 % quantiles of the draws.

copies = np.stack(vae.impute(holed, n_draws=20, random_state=0))
low, high = np.quantile(copies, [0.05, 0.95], axis=0)
inside = ((low <= X) & (high >= X))[hidden].mean()
print(f"hidden cells between the quantiles: {inside:.0%}, expected about 86% of 20 draws")

fig, ax = plt.subplots(figsize=(5, 4.4), layout="constrained")
row, column = np.nonzero(hidden)
some = rng.choice(len(row), 150, replace=False)
truth, middle = X[row[some], column[some]], np.median(copies, axis=0)[row[some], column[some]]
reach = np.abs(np.stack([low, high])[:, row[some], column[some]] - middle)
ax.errorbar(truth, middle, reach, fmt=".", color="#E66100", ecolor="#99999980", elinewidth=1)
ax.axline((0, 0), slope=1, color="#56B4E9")
ax.set(xlabel="what was hidden", ylabel="what was imputed, 5 % to 95 %", title="150 hidden cells")
plt.show()

# %%
# **What to conclude.** Where columns hang together, a model of all of them fills holes far better than means do. Use
# the means for a single completed table, and several copies where what follows must know how unsure the cells are.
