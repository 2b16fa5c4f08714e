"""
Which mean and deviation? Where z is drawn from
===============================================

*"To generate new rows, should I draw z from the mean and deviation of the sampled z, or from z_mean and z_log_sigma?"*

From neither, and this page shows why. A model of handwritten digits with two latent units is fitted, so that its latent
space can be drawn. Then z is drawn in six ways: from the four densities that
:class:`~skvae.VAEEstimator` offers, and by the two formulas of the question.
"""

# %%
# The model
# ---------
# Half of the rows are left out of training, to score the densities on.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skvae import VAEEstimator
from skvae.model.latent import LATENT_DENSITIES, Mixture

X, digit = load_digits(return_X_y=True)
train, test, train_digit, _ = train_test_split(X, digit, test_size=0.5, random_state=0)
vae = VAEEstimator(latent_dim=2, likelihood="normal", random_state=0).fit(train)
z_mean, z_std = vae.posterior(train)

# %%
# Six ways to draw z
# ------------------
# For the first four, ``sample(n, latent_density=...)`` draws z and decodes it. Here only the z's are of interest, so the
# fitted density itself is asked.

densities = {name: LATENT_DENSITIES[name].fit(z_mean, z_std) for name in LATENT_DENSITIES}


def normal(mean, deviation):
    """The normal with this mean and deviation per unit."""
    return Mixture(np.ones(1), mean[None].astype(float), np.diag(deviation).astype(float)[None])


drawn = z_mean + z_std * np.random.default_rng(0).standard_normal(z_mean.shape)
densities["mean and deviation\nof the sampled z"] = normal(drawn.mean(0), drawn.std(0))
densities["mean of z_mean and of\nexp(z_log_sigma)"] = normal(z_mean.mean(0), z_std.mean(0))

# %%
# What they look like
# -------------------
# Grey: the latent means of the training rows, whose clumps are the digits. Blue: 1,000 draws from each density, and above
# them the mean log density, in nats, that it gives to z's of the rows left out.

test_mean, test_std = vae.posterior(test)
test_z = torch.from_numpy(test_mean + test_std * np.random.default_rng(1).standard_normal(test_mean.shape))

figure, axes = plt.subplots(2, 3, figsize=(10, 7), sharex=True, sharey=True, layout="constrained")
for ax, (name, density) in zip(axes.flat, densities.items(), strict=True):
    z = density.sample(1000, torch.Generator().manual_seed(0)).numpy()
    ax.scatter(*z_mean.T, s=4, color="0.8")
    ax.scatter(*z.T, s=4, color="tab:blue", alpha=0.5)
    ax.set_title(f"{name}\n{density.log_prob(test_z).mean():.2f} nats", fontsize=10)
    ax.set(xlim=(-5, 5), ylim=(-5, 5), aspect="equal")
plt.show()

# %%
# The two formulas fail in two ways. The moments of the sampled z are those of a single normal, which also fills the gaps
# between the clumps, where no row ever was. The mean of the ``exp(z_log_sigma)`` is the width of *one* row's posterior:
# such draws all lie in the middle, and decode to one average digit.
#
# What the rows look like
# -----------------------
# The mixture is the default. It knows where the clumps are, but not the rows in them, as the aggregated posterior does.

names = ["prior", "mixture", "mean of z_mean and of\nexp(z_log_sigma)"]
figure, axes = plt.subplots(len(names), 12, figsize=(10, 3.2))
for row, name in zip(axes, names, strict=True):
    z = densities[name].sample(len(row), torch.Generator().manual_seed(1))
    for ax, image in zip(row, vae.inverse_transform(z.numpy()), strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        ax.set(xticks=[], yticks=[])
    row[0].set_title(name.replace("\n", " "), loc="left", fontsize=9)
plt.show()

# %%
# The same in numbers: how likely are rows that were left out, if z comes from each density? A fitted model has one, that of
# its fit, so there is a fit for each. The seed is the same, and so are the networks.

for name in LATENT_DENSITIES:
    model = clone(vae).set_params(latent_density=name).fit(train)
    print(f"{name:>20}: {model.score(test):8.2f} nats per row")

# %%
# **What to conclude.** Draw z from a density fitted to the latents, which ``sample`` does by default, and then the row
# from what is decoded. With two units and 900 rows the posteriors are narrow, so the aggregated posterior is a set of
# islands around training rows, and rows that were left out fall between them. The mixture bridges the gaps within a
# clump and leaves those between clumps.
