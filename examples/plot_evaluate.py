"""
Are the new rows good?
======================

`skvae.evaluate` compares synthetic rows with the rows that they were learnt from, and says beside each figure what
real rows get: that is as good as it gets. Three generators are asked: a VAE, one that copies, and one that ignores
how columns hang together.
"""

# %%
# Three generators
# ----------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

import skvae
from skvae.displays import MarginalsDisplay, PairsDisplay

table = load_breast_cancer(as_frame=True).frame.iloc[:, [0, 1, 4, 5, 6, 7, 30]]
table["target"] = table["target"].map({0: "malignant", 1: "benign"})
train, test = train_test_split(table, test_size=0.4, random_state=0)

vae = skvae.VAEEstimator(random_state=0).fit(train)
new = vae.sample(len(train), random_state=0)
copies = train.sample(len(train), replace=True, random_state=0)
rng = np.random.default_rng(0)
shuffled = train.apply(lambda column: rng.permutation(column.to_numpy()))

# %%
# The figures
# -----------

evaluation = skvae.evaluate(train, new, test, target="target")
print(evaluation)

# %%
# Drawn: each figure beside that of real rows, and the columns that differ most.

evaluation.plot()

# %%
# The copier has perfect columns, and is found out by ``nearer`` and ``copies``. The shuffler has perfect columns, too,
# and is found out by ``trend``, ``utility`` and ``detection``.

others = {"VAE": evaluation}
others["copies"] = skvae.evaluate(train, copies, test, target="target")
others["shuffled"] = skvae.evaluate(train, shuffled, test, target="target")
for figure in ("shape", "trend", "utility", "detection (boosted)", "nearer", "copies"):
    print(f"{figure:20}", "  ".join(f"{name} {own[figure]:.2f}" for name, own in others.items()))

# %%
# See it
# ------

MarginalsDisplay.from_tables(train, new)
PairsDisplay.from_tables(train, new)
plt.show()

# %%
# **What to conclude.** Look at several figures at once: each of them can be had by cheating. And look at the pictures:
# they say what to mend.
