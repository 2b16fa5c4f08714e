"""
How many latent units?
======================

Two questions, two answers: how much of a row should come back from its latent point, and how likely should held-out
rows be? This page asks both on handwritten digits.
"""

# %%
# Ask held-out rows what comes back
# ---------------------------------
# `reconstruction_score` is a scorer for scikit-learn's searches: the mean over the columns of the share of their
# variance that comes back from z. More units always help a little; one takes the smallest number that helps no more.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skvae import VAEEstimator
from skvae.displays import ActiveUnitsDisplay, ReconstructionDisplay
from skvae.metrics import reconstruction_score

X, digit = load_digits(return_X_y=True)
train, test = train_test_split(X, test_size=0.3, random_state=0)

sizes = [2, 4, 8, 16]
models = []
for size in sizes:
    models.append(VAEEstimator(latent_dim=size, likelihood="normal", max_iter=150, random_state=0).fit(train))

back = [reconstruction_score(vae, test) for vae in models]
likelihood = [vae.score(test) for vae in models]

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(sizes, back, "o-", color="#56B4E9")
left.set(xlabel="latent_dim", ylabel="reconstruction_score, held out", title="What comes back")
right.plot(sizes, likelihood, "o-", color="#E66100")
right.set(xlabel="latent_dim", ylabel="nats per row, held out", title="How likely rows are")

# %%
# See it
# ------
# Above, what ten digits are; below, what comes back of them from two numbers and from sixteen.

for vae in (models[0], models[-1]):
    ReconstructionDisplay.from_estimator(vae, test, image_shape=(8, 8), kwargs={"cmap": "gray_r"})

# %%
# Which units are in use?
# -----------------------
# A unit that carries no information costs nothing and says nothing: its KL term is near 0.

ActiveUnitsDisplay.from_estimator(models[-1])
plt.show()

# %%
# **What to conclude.** Take the number at which the left curve bends; where features or reconstructions are what you
# are after, rather more. The likelihood tells when more units no longer help the density. Here:

for size, share, nats in zip(sizes, back, likelihood, strict=True):
    print(f"latent_dim={size:2d}: {share:.2f} of the variance comes back, {nats:.1f} nats per row")
print("best by likelihood:", sizes[int(np.argmax(likelihood))])
