"""Small tables, small models and failures of a fit, for the tests of what a fit leaves behind."""

import numpy as np
import pandas as pd
import polars as pl
import torch

from skvae import VAEEstimator


def table(n=60, seed=0):
    """A frame of `n` rows: two numbers, a text, a column of one value, and some missing cells."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "height": hidden + 0.3 * rng.normal(size=n),
            "weight": 100 * hidden**2 + rng.normal(size=n),
            "city": np.where(hidden + rng.normal(size=n) > 0, "Oslo", "Rome"),
            "planet": 3.0,
        }
    )
    frame.loc[::7, "height"] = np.nan
    return frame


def another_table(n=50):
    """A frame with other columns, of which every leftover of another fit would be seen."""
    rng = np.random.default_rng(9)
    return pd.DataFrame(rng.normal(size=(n, 6)), columns=list("uvwxyz")).assign(w=rng.integers(0, 2, n))


def quick(**params):
    """A model that is fitted in milliseconds."""
    small = {"latent_dim": 2, "hidden_layer_sizes": (6,), "batch_size": 16, "max_iter": 3, "random_state": 0}
    return VAEEstimator(**{**small, **params})


def answers(vae, X):
    """All that a fitted model says of itself and of rows, in objects that compare."""
    z = torch.linspace(-1, 1, 2 * vae.module_.latent_dim).view(2, -1)
    said = {
        "z_mean, z_std": vae.posterior(X),
        "transform": vae.transform(X),
        "reconstruct": vae.reconstruct(X),
        "sample": vae.sample(7, random_state=0),
        "score_samples": vae.score_samples(X),
        "impute": vae.impute(X[:10]),
        "interpolate": vae.interpolate(X[:1], X[1:2], n_steps=3),
        "latent density": [vae.latent_density_.name, vae.latent_density_.log_prob(z).numpy()],
        "weights": [p.detach().numpy().copy() for p in vae.module_.parameters()],
        "names": list(vae.get_feature_names_out()),
    }
    for name, value in vars(vae).items():
        if name.endswith("_"):
            said[name] = value
    return {name: as_plain(value) for name, value in said.items()}


def as_plain(value):
    """Frames and arrays as lists of the bytes of their columns; other things as they are."""
    if isinstance(value, pd.DataFrame):
        return [list(value.columns), list(value.dtypes.astype(str)), [as_plain(value[name]) for name in value]]
    if isinstance(value, pl.DataFrame):
        return [value.columns, [str(dtype) for dtype in value.dtypes], [column.to_list() for column in value]]
    if isinstance(value, pd.Series):
        return as_plain(value.to_numpy())
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype == object else [str(value.dtype), value.shape, value.tobytes()]
    if isinstance(value, list | tuple):
        return [as_plain(part) for part in value]
    return value


class Callback:
    """Calls `act` in the hook named, the `count`-th time that it is called."""

    def __init__(self, hook, act, count=1):
        self.hook = hook
        self.act = act
        self.count = count

    def _called(self, hook, estimator):
        if hook == self.hook:
            self.count -= 1
            if self.count == 0:
                self.act(estimator)

    def setup(self, estimator, context):
        self._called("setup", estimator)

    def teardown(self, estimator, context):
        self._called("teardown", estimator)

    def on_fit_task_begin(self, estimator, context, **kwargs):
        self._called(f"{context.task_name} begins", estimator)

    def on_fit_task_end(self, estimator, context, **kwargs):
        self._called(f"{context.task_name} ends", estimator)


class Quiet:
    """A callback that does nothing, for others to add to."""

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass


class Raising:
    """Raises an exception when it is called for the `count`-th time; before that, it calls `function`."""

    def __init__(self, exception, function=None, count=1):
        self.exception = exception
        self.function = function
        self.count = count

    def __call__(self, *args, **kwargs):
        self.count -= 1
        if self.count <= 0:
            raise self.exception
        return self.function(*args, **kwargs)
