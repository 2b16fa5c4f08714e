"""
More rows for a classifier, honestly evaluated
==============================================

Does it help to train on synthetic rows as well? Only real rows can tell, and only such as the generator has not seen.
Inside a pipeline of imbalanced-learn, `VAEAugmenter` is fitted anew in every fold, so that nothing leaks.
"""

# %%
# A hundred rows, and none to spare
# ---------------------------------

import matplotlib.pyplot as plt
import numpy as np
from imblearn.pipeline import make_pipeline
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.tree import DecisionTreeClassifier

from skvae import VAEEstimator
from skvae.oversampling import VAEAugmenter

X, y = load_breast_cancer(return_X_y=True)
X = X[:, :10]
folds = StratifiedShuffleSplit(8, train_size=100, random_state=0)
tree = DecisionTreeClassifier(min_samples_leaf=3, random_state=0)

# %%
# With and without
# ----------------
# The same folds and the same classifier; the augmenter acts in ``fit`` alone, and the held-out rows are real.

alone = cross_val_score(tree, X, y, cv=folds, scoring="roc_auc")
augmenter = VAEAugmenter(vae=VAEEstimator(latent_dim=4, max_iter=150), random_state=0)
with_more = cross_val_score(make_pipeline(augmenter, tree), X, y, cv=folds, scoring="roc_auc")

difference = with_more - alone
print(f"AUC alone {alone.mean():.3f}, with synthetic rows {with_more.mean():.3f}")
print(f"difference {difference.mean():+.3f}, standard error {difference.std(ddof=1) / np.sqrt(len(difference)):.3f}")

fig, ax = plt.subplots(figsize=(4.8, 4.4), layout="constrained")
ax.scatter(alone, with_more, color="#E66100")
ax.axline((0.9, 0.9), slope=1, color="#56B4E9")
ax.set(xlabel="AUC, real rows alone", ylabel="AUC, with synthetic rows", title="Eight folds")
plt.show()

# %%
# **What to conclude.** Compare fold by fold, and look at the standard error before you believe in a gain. Here there is
# none: a hundred rows are too few to learn a generator that tells the tree more than they do. Try it on your table; this
# is how to find out.
