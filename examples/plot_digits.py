"""
Digits: traversal, interpolation, and the other half
====================================================

Rows can be pictures. What a latent unit means, what lies between two digits, and how the upper half of one goes on
below.
"""

# %%
# What the units mean
# -------------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skvae import VAEEstimator
from skvae.displays import LatentSpaceDisplay, LatentTraversalDisplay

X, digit = load_digits(return_X_y=True)
train, test, train_digit, test_digit = train_test_split(X, digit, test_size=0.2, random_state=0)
vae = VAEEstimator(latent_dim=8, likelihood="normal", max_iter=200, random_state=0).fit(train)

LatentTraversalDisplay.from_estimator(vae, test[:1], image_shape=(8, 8), kwargs={"cmap": "gray_r"})

# %%
# Where the digits lie
# --------------------
# The two units with the most information, over the contours of the density that new rows are drawn from.

LatentSpaceDisplay.from_estimator(vae, test, test_digit.astype(str))

# %%
# Between two digits
# ------------------


def show(images, title):
    """A row of images."""
    fig, axes = plt.subplots(1, len(images), figsize=(0.8 * len(images), 1.2))
    fig.suptitle(title, fontsize="medium")
    for ax, image in zip(axes, images, strict=True):
        ax.imshow(np.asarray(image, dtype=float).reshape(8, 8), cmap="gray_r")
        ax.axis("off")


one, other = test[test_digit == 3][0], test[test_digit == 8][0]
show(vae.interpolate(one, other, n_steps=10), "from a three to an eight")

# %%
# The other half
# --------------
# The lower half is missing; ``impute`` with ``n_draws`` draws several that go with the upper one.

half = test[:1].copy()
half[0, 32:] = np.nan
completed = vae.impute(half, n_draws=8, random_state=0)
shown = [np.nan_to_num(half[0]), test[0], *[rows[0] for rows in completed]]
show(shown, "what is given, the truth, and eight completions")
plt.show()

# %%
# **What to conclude.** A VAE of any table is a model of whole rows: it can be asked for what lies between rows, and for
# any cells given any others.
