"""
Rare classes: new rows beside SMOTE's
=====================================

A class of few rows is filled up before a classifier is trained. SMOTE draws lines between neighbours of that class;
`VAEOverSampler` learns the whole table and draws rows of the class from what it learnt.
"""

# %%
# One digit in fifty
# ------------------
# Is this an eight? Of the eights, one in five is kept.

import matplotlib.pyplot as plt
import numpy as np
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skvae import VAEEstimator
from skvae.oversampling import VAEOverSampler

X, digit = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
kept = (digit != 8) | (rng.uniform(size=len(digit)) < 0.2)
X, y = X[kept], (digit[kept] == 8).astype(int)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, test_size=0.5, random_state=0)
print(f"{y_train.sum()} eights among {len(y_train)} training rows")

# %%
# Four ways to train
# ------------------

samplers = {
    "as it is": "passthrough",
    "copies": RandomOverSampler(random_state=0),
    "SMOTE": SMOTE(random_state=0),
    "VAE": VAEOverSampler(vae=VAEEstimator(latent_dim=8, max_iter=60), random_state=0),
}
scores = {}
for name, sampler in samplers.items():
    model = make_pipeline(sampler, StandardScaler(), LogisticRegression(max_iter=1000)).fit(X_train, y_train)
    scores[name] = average_precision_score(y_test, model.predict_proba(X_test)[:, 1])
    print(f"{name:9}: average precision {scores[name]:.3f}")

fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
ax.barh(list(scores), list(scores.values()), color=["#999999", "#56B4E9", "#009E73", "#E66100"])
ax.set(xlabel="average precision on real test rows", xlim=(0, 1))

# %%
# Look at the new rows
# --------------------

sampler = samplers["VAE"]
X_new, y_new = sampler.fit_resample(X_train, y_train)
eights = X_new[len(X_train) :][:12]
fig, axes = plt.subplots(1, 12, figsize=(9, 1.1))
for ax, image in zip(axes, eights, strict=True):
    ax.imshow(image.reshape(8, 8), cmap="gray_r")
    ax.axis("off")
plt.show()

# %%
# **What to conclude.** Measure with a score that minds the rare class, on real rows, with the sampler inside the
# pipeline. Here the classifier is best as it is, and among the samplers the VAE is as good as any: try it first without
# one.
