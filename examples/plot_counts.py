"""
Counts, and how long they were counted
======================================

Claims per policy, accidents per stretch of road, cells per field: counts in proportion to a time or a size, the
*exposure*. A count of 2 in a month is not one of 2 in a year.
"""

# %%
# A portfolio
# -----------
# Simulated, so that the truth is at hand: two kinds of drivers, and policies of one to twelve months.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skvae import VAEEstimator
from skvae.displays import MarginalsDisplay


def policies(n, seed):
    """Rows of a portfolio."""
    rng = np.random.default_rng(seed)
    is_young = rng.uniform(size=n) < 0.3
    months = rng.integers(1, 13, n).astype(float)
    per_month = np.where(is_young, 0.15, 0.03)
    return pd.DataFrame(
        {
            "age": np.where(is_young, rng.integers(18, 26, n), rng.integers(26, 80, n)),
            "town": np.where(rng.uniform(size=n) < 0.5 + 0.2 * is_young, "city", "country"),
            "months": months,
            "claims": rng.poisson(per_month * months),
        }
    )


X, unseen = policies(4000, 0), policies(4000, 1)

# %%
# With and without the exposure
# -----------------------------

with_months = VAEEstimator(latent_dim=3, likelihood={"poisson": ["claims"]}, exposure="months", random_state=0).fit(X)
print("kinds:", with_months.likelihood_)
MarginalsDisplay.from_estimator(with_months, X)

# %%
# Rates of the new rows
# ---------------------
# Claims per month by age: those of the simulation are .15 below 26 and .03 above.

new = with_months.sample(20_000, random_state=0)
rates = {}
for name, rows in (("unseen rows", unseen), ("new rows", new)):
    young = rows["age"] < 26
    rates[name] = [rows[part]["claims"].sum() / rows[part]["months"].sum() for part in (young, ~young)]
    print(f"{name:12}: {rates[name][0]:.3f} claims per month below 26, {rates[name][1]:.3f} above")

fig, ax = plt.subplots(figsize=(5.5, 3), layout="constrained")
places = np.arange(2)
ax.bar(places - 0.2, rates["unseen rows"], 0.4, color="#56B4E9", label="unseen rows")
ax.bar(places + 0.2, rates["new rows"], 0.4, color="#E66100", label="new rows")
ax.set_xticks(places, ["below 26", "26 and above"])
ax.set(ylabel="claims per month")
ax.legend()
plt.show()

# %%
# **What to conclude.** Name the exposure, and the model learns rates: rows of any length can be given, drawn and
# scored.
