"""
========================
New rows of a real table
========================

A *variational autoencoder* (VAE) learns how the cells of a row hang together. It assumes that behind each row there is
a short list of hidden numbers, z, and trains two networks: the *encoder* tells from a row what its z was likely to be,
and the *decoder* tells from z what the row is likely to be. Once trained, it does three things:

* ``transform`` gives the z of a row: a few features instead of many;
* ``sample`` draws a z, then a row: new data that look like the old;
* ``score`` says how likely rows are: a number that can be compared with other models, and maximised by a grid search.

This script does all three on the breast cancer table of scikit-learn: 569 tumours, ten measurements, a diagnosis. At
the end some cells become text, others are blanked, and ``impute`` and ``sample(given=...)`` fill in the rest.
"""

# %%
# The data
# --------
# A plain data frame. A third of the rows is put aside; nothing below is fitted on them.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.callback import ProgressBar
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import FactorAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from skvae import VAEEstimator
from skvae.displays import LossCurveDisplay

table = load_breast_cancer(as_frame=True).frame
table = table.iloc[:, :10].rename(columns=lambda name: name.removeprefix("mean ")).assign(benign=table["target"])
train, test = train_test_split(table, test_size=0.3, stratify=table["benign"], random_state=0)
X_train, X_test = train.drop(columns="benign"), test.drop(columns="benign")
print(f"{len(train)} rows to learn from, {len(test)} to test on, {X_train.shape[1]} measurements and a diagnosis\n")

# %%
# How many hidden numbers? Ask the held-out rows
# ----------------------------------------------
# ``VAEEstimator`` is a scikit-learn estimator, so it goes into a pipeline and a grid search like any other. Its score
# is the log-likelihood of rows in nats (natural logarithms; higher is better), and cross-validation takes it on rows
# that were not fitted. Everything is left at its default but the number of latent units and of hidden layers: on 400
# rows a smaller network may do better, and the folds can tell.

vae = VAEEstimator(random_state=0)
folds = KFold(3, shuffle=True, random_state=0)


def nats(model, rows):
    """Mean log-likelihood of a row: what ``VAEEstimator.score`` returns, but ``KernelDensity.score`` does not."""
    return model.score_samples(rows).mean()


def tune(model, **grid):
    """A grid search over a scaler and the model, by held-out log-likelihood."""
    pipeline = Pipeline([("scale", StandardScaler()), ("model", model)])
    grid = {f"model__{name}": values for name, values in grid.items()}
    return GridSearchCV(pipeline, grid, scoring=nats, cv=folds)


search = tune(vae, latent_dim=[4, 8], hidden_layer_sizes=[(128, 128), (128,)])
try:
    search.set_callbacks(ProgressBar(max_propagation_depth=0))
except ImportError:  # the bars are drawn by rich, which is optional
    search.set_params(verbose=2)
search.fit(X_train)

chosen = {name.removeprefix("model__"): value for name, value in search.best_params_.items()}
print("\nHow likely are rows that were not fitted? In nats (natural logarithms): higher is better,")
print("and one nat more means that a row is 2.7 times as likely, on average.")
print("\nlatent_dim   hidden layers   nats per held-out row (cross-validation)")
for params, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
    print(f"{params['model__latent_dim']:>10}   {params['model__hidden_layer_sizes']!s:>13}   {score:6.2f}")

# %%
# Is that any good? The same test for other densities
# ---------------------------------------------------
# Three classical models of scikit-learn are tuned by the same folds and scored on the same test rows, in the same
# units, so the numbers compare. One nat more means that a row is, on average, 2.7 times as likely under the model.

rivals = {
    "VAEEstimator": search,
    "GaussianMixture": tune(
        GaussianMixture(random_state=0), n_components=[1, 2, 3, 4, 5, 6, 8], reg_covar=[1e-6, 1e-4, 1e-3, 1e-2]
    ),
    "FactorAnalysis": tune(FactorAnalysis(random_state=0), n_components=range(1, 9)),
    "KernelDensity": tune(KernelDensity(), bandwidth=np.logspace(-1, 0.3, 14)),
}
with threadpool_limits(1):  # matrices this small are faster on one thread
    for name in ["GaussianMixture", "FactorAnalysis", "KernelDensity"]:
        rivals[name].fit(X_train)

print("\nlog-likelihood, nats per row   cross-validation    test   chosen")
for name, rival in rivals.items():
    best = (
        f"{k.removeprefix('model__')}={v if isinstance(v, tuple) else f'{v:.3g}'}"
        for k, v in rival.best_params_.items()
    )
    print(f"{name:<28}   {rival.best_score_:16.2f}  {nats(rival.best_estimator_, X_test):6.2f}   {', '.join(best)}")
print("The VAE and the mixture are level here; a difference of half a nat is what another split would change.")

# %%
# The Gaussian mixture is the rival to beat on a few hundred rows of measurements. Here the two are level: it is ahead
# in cross-validation, the VAE on the test rows, and both gaps are smaller than what another split would change. With
# all 30 columns of this table, many of which nearly repeat each other, the mixture is far ahead: its covariance matrices
# are made for such columns. Nobody can tell beforehand which model fits a table best; the held-out score can. What the
# mixture does not give is features, and rows of numbers, text and holes, as below.
#
# New rows
# --------
# For new rows the diagnosis joins as one more column. It holds two values, so it is modelled as a coin whose bias
# depends on z, not as a number with Gaussian noise. No scaler this time: the estimator standardises columns by itself.
# ``sample`` draws z from a density fitted to the latent space, decodes it, and draws the row from what was decoded. The
# rows come as a frame, in original units, with the names and dtypes of the training frame.

generator = VAEEstimator(**chosen, random_state=0).fit(train)
new_rows = generator.sample(100, random_state=0)

shown = ["radius", "texture", "area", "smoothness", "concavity", "benign"]
print("\n100 new rows, the first five of them:")
print(new_rows[shown].head().round(3).to_string(index=False))
print("\nFive real ones:")
print(test[shown].head().round(3).to_string(index=False))

print("\n               mean               standard deviation")
print("               real  100 new      real  100 new")
for name in shown:
    real, new = test[name], new_rows[name]
    print(f"{name:<12}{real.mean():7.3g}  {new.mean():7.3g}   {real.std():7.3g}  {new.std():7.3g}")

# %%
# Can a classifier learn from rows that never existed?
# ----------------------------------------------------
# If the new rows carry what the real ones do, a classifier trained on nothing but them should do well on real patients.

classifier = make_pipeline(StandardScaler(), LogisticRegression())


def auc(rows):
    """Area under the ROC curve on real test rows, of the classifier trained on `rows`."""
    classifier.fit(rows.drop(columns="benign"), rows["benign"])
    return roc_auc_score(test["benign"], classifier.predict_proba(X_test)[:, 1])


print("\nlogistic regression trained on     AUC on real test rows")
print(f"{f'{len(train)} real rows':<35}{auc(train):21.3f}")
print(f"{'100 real rows':<35}{auc(train.sample(100, random_state=0)):21.3f}")
print(f"{'100 new rows':<35}{auc(new_rows):21.3f}")
print(f"{f'{len(train)} new rows':<35}{auc(generator.sample(len(train), random_state=1)):21.3f}")

# %%
# Text, holes and conditions
# --------------------------
# Tables are seldom all numbers, and seldom full. Here the diagnosis becomes text, the concavity one of three words, and
# every sixth cell is blanked. Such a frame is fitted as it is. ``impute`` fills what is missing given what is there: a
# number by its conditional mean, a category by its most probable level.


def with_text(rows):
    """The rows with two columns of text."""
    concavity = pd.cut(rows["concavity"], [-1, 0.04, 0.1, 1], labels=["low", "medium", "high"]).astype(str)
    diagnosis = rows["benign"].map({0: "malignant", 1: "benign"})
    return rows.drop(columns="benign").assign(concavity=concavity, diagnosis=diagnosis)


def with_holes(rows, seed):
    """The rows with a sixth of their cells missing."""
    return rows.mask(np.random.default_rng(seed).uniform(size=rows.shape) < 1 / 6)


mixed, truth = with_text(train), with_text(test)
holes = with_holes(truth, seed=1)
model = VAEEstimator(**chosen, random_state=0).fit(with_holes(mixed, seed=0))
filled = model.impute(holes)

numbers = mixed.select_dtypes("number").columns
missing, spread = holes.isna(), mixed[numbers].std()


def error(guess):
    """Root mean squared error of the guessed missing numbers, in standard deviations of their columns."""
    off = ((guess - truth[numbers]) / spread).to_numpy()[missing[numbers].to_numpy()]
    return np.sqrt((off**2).mean())


print(f"\n{missing.to_numpy().sum()} blank cells of the test rows, filled")
print(
    f"numbers, error in deviations: {error(filled[numbers]):.2f} (by the column's mean: {error(mixed[numbers].mean()):.2f})"
)
for name in ["concavity", "diagnosis"]:
    cells, usual = truth[name][missing[name]], mixed[name].mode()[0]
    right = (filled[name][missing[name]] == cells).mean()
    print(f"{name}, right: {right:.0%} (by the most frequent level: {(cells == usual).mean():.0%})")

# %%
# ``given`` fixes cells of new rows; the others are drawn to go with them.

print("\nNew rows with given={'diagnosis': 'malignant', 'concavity': 'low'}:")
given = model.sample(3, given={"diagnosis": "malignant", "concavity": "low"}, random_state=0)
print(given[["radius", "texture", "area", "concavity", "diagnosis"]].round(3).to_string(index=False))

# %%
# A picture
# ---------
# Left: where the pipeline's encoder puts the test rows, seen along the two latent units it uses most. It was never
# shown a diagnosis. Middle: the fit of the generator. Right: single columns, real against new. The two groups in the
# radius are smoothed over and a few concavities are negative: on 400 rows numbers have Gaussian noise. From 1000 rows
# on the default takes each number by its own empirical distribution, and a mixture of normals around it.

encoder = search.best_estimator_
latents = encoder.transform(X_test)
first, second = np.argsort(encoder["model"].kl_per_unit_)[::-1][:2]
many_rows = generator.sample(5000, random_state=2)

figure = plt.figure(figsize=(14, 5), layout="constrained")
figure.suptitle("A variational autoencoder of 398 tumours, and 5,000 rows that never existed")
grid = figure.add_gridspec(2, 6)
LossCurveDisplay.from_estimator(generator, ax=figure.add_subplot(grid[:, 2:4]), parts=False, learning_rate=False)
ax = figure.add_subplot(grid[:, :2])
for label, colour, marker in [("malignant", "#c8553d", "^"), ("benign", "#3b7ea1", "o")]:
    rows = latents[(test["benign"] == (label == "benign")).to_numpy()]
    ax.scatter(rows[:, first], rows[:, second], s=22, c=colour, marker=marker, alpha=0.75, lw=0, label=label)
ax.set(
    xlabel=f"latent mean of unit {first}", ylabel=f"latent mean of unit {second}", title="Test rows in the latent space"
)
ax.legend(frameon=False)

for cell, name in zip(np.ndindex(2, 2), ["radius", "texture", "smoothness", "concavity"], strict=True):
    ax = figure.add_subplot(grid[cell[0], 4 + cell[1]])
    bins = np.linspace(min(table[name].min(), many_rows[name].min()), table[name].max(), 30)
    ax.hist(table[name], bins, density=True, color="#b8bfc6", label="real")
    ax.hist(many_rows[name], bins, density=True, histtype="step", color="#3b7ea1", lw=1.8, label="new")
    ax.set(title=name, yticks=[])
    ax.spines[["left", "top", "right"]].set_visible(False)
    if cell == (0, 0):
        ax.legend(frameon=False)
figure.savefig("quickstart.png", dpi=150)
print("\nThe picture is in quickstart.png. What next?")
print("  your own table:      vae = skvae.VAEEstimator().fit(frame); vae.sample(1000)")
print("  are the rows good?   skvae.evaluate(train, new_rows, test)")
print("  see what it learnt:  from skvae.displays import LatentSpaceDisplay, MarginalsDisplay, ...")
print("  more examples:       the scripts in examples/, and the pages in docs/")
