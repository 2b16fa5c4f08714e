"""
Networks of your own
====================

The encoder and the decoder may be any modules of PyTorch. Here both are convolutional; the rest of the estimator
stays as it is.
"""

# %%
# Two factories
# -------------
# A factory is called with the number of inputs and of outputs: the encoder reads an encoded row, and gives mean and
# log-variance of each latent unit; the decoder reads z. An estimator with factories can be cloned and searched, as
# every other one.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skvae import VAEEstimator
from skvae.displays import LossCurveDisplay


def encoder(n_in, n_out):
    """Strided convolutions of an image of 8 x 8."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(32 * 4, n_out),
    )


def decoder(n_in, n_out):
    """The way back."""
    return nn.Sequential(
        nn.Linear(n_in, 32 * 4),
        nn.SiLU(),
        nn.Unflatten(1, (32, 2, 2)),
        nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
        nn.Flatten(),
    )


# pixels of some corners are constant, and columns that are get no input: a little noise makes them vary
X = load_digits().data
X = X + np.random.default_rng(0).uniform(size=X.shape)
train, test = train_test_split(X, test_size=0.3, random_state=0)
settings = {"latent_dim": 8, "likelihood": "normal", "max_iter": 40, "random_state": 0}
own = VAEEstimator(encoder=encoder, decoder=decoder, learning_rate_init=3e-3, **settings).fit(train)
built_in = VAEEstimator(**settings).fit(train)

# %%
# Did it work?
# ------------

for name, vae in (("convolutional", own), ("built-in", built_in)):
    print(f"{name:13}: {vae.n_parameters_:6d} parameters, held-out score {vae.score(test):.1f} nats per row")

LossCurveDisplay.from_estimator(own)

# %%
# New digits

fig, axes = plt.subplots(1, 12, figsize=(9, 1.1))
for ax, image in zip(axes, own.sample(12, random_state=0), strict=True):
    ax.imshow(np.asarray(image).reshape(8, 8), cmap="gray_r")
    ax.axis("off")
plt.show()

# %%
# **What to conclude.** Start with the built-in networks, whose steps are written by hand and take a fraction of the
# time. Write your own where the rows have a structure that those cannot see.
