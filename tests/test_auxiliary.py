"""An auxiliary decoder beside an autoregressive one: z tells rows apart, and gives them back."""

import numpy as np
import pandas as pd
import pytest
from fits import quick
from sklearn.metrics import accuracy_score, r2_score
from torch import nn

from skvae import VAEEstimator
from skvae.table import Table


def mixed(n=1500, seed=0):
    """Two factors behind six columns: numbers on several scales, one of them with a spike, levels, a number with holes."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    frame = pd.DataFrame(
        {
            "linear": 3 * a + 0.1 * rng.normal(size=n),
            "heavy": np.exp(1.5 * b + 0.05 * rng.normal(size=n)),
            "spiky": np.where(a > 0.3, 0.0, 100 * b),
            "level": pd.Categorical(np.array(list("xyz"))[np.digitize(b, [-0.5, 0.5])]),
            "holes": 1e4 + a - b,
            "code": (a > 0).astype(int),
        }
    )
    frame.loc[rng.uniform(size=n) < 0.2, "holes"] = np.nan
    return frame


@pytest.fixture(scope="module")
def fitted():
    return VAEEstimator(latent_dim=3, decoder="autoregressive", max_iter=80, random_state=0).fit(mixed())


def test_rows_come_back_from_their_latent_means(fitted):
    test = mixed(seed=1)
    back = fitted.reconstruct(test)
    assert list(back.dtypes) == list(test.dtypes)
    for column in ("linear", "spiky"):
        assert r2_score(test[column], back[column]) > 0.85
    observed = test["holes"].notna()
    assert r2_score(test["holes"][observed], back["holes"][observed]) > 0.85
    assert accuracy_score(test["level"], back["level"]) > 0.85
    assert accuracy_score(test["code"], back["code"]) > 0.85
    # what the decoder for drawing would do without is there: more than what three idle units have
    assert fitted.kl_per_unit_.sum() > 3


def test_latent_points_are_decoded_by_the_auxiliary_decoder_wherever_nothing_is_drawn(fitted):
    test = mixed(seed=1)[:5]
    z = fitted.transform(test)
    decoded = fitted.inverse_transform(z)
    pd.testing.assert_frame_equal(decoded, fitted.reconstruct(test))
    ends = fitted.interpolate(test[:1], test[1:2], 2)
    pd.testing.assert_frame_equal(ends, decoded[:2])
    pd.testing.assert_frame_equal(fitted.traverse(0, X=test[:1], n_steps=3, extent=(z[0, 0], 9.0))[:1], decoded[:1])


def test_draws_have_levels_where_values_repeat_and_means_need_not(fitted):
    drawn = fitted.sample(500, random_state=0)
    means = fitted.sample(500, noise=False, random_state=0)
    assert (drawn["spiky"] == 0).mean() == pytest.approx((mixed()["spiky"] == 0).mean(), abs=0.08)
    assert (means["spiky"] == 0).mean() < 0.01


def test_latent_density_is_that_of_the_blurred_latents(fitted):
    z_mean, z_std = fitted.posterior(mixed())
    latents = fitted._fitted.latents
    np.testing.assert_allclose(latents.z_mean, np.sqrt(0.65) * z_mean, atol=1e-5)
    np.testing.assert_allclose(latents.z_std, np.sqrt(0.65 * z_std**2 + 0.35), rtol=1e-4)


@pytest.mark.parametrize("decoder", ["factorized", nn.Linear], ids=["factorized", "custom"])
def test_there_is_none_beside_a_factorized_decoder(decoder):
    vae = quick(decoder=decoder).fit(mixed(200))
    assert vae.module_.auxiliary is None
    assert vae._fitted.table.auxiliary is None


def test_table_for_it_standardises_numbers_by_weight():
    frame = mixed()
    weight = np.random.default_rng(0).uniform(0, 2, len(frame))
    weight[:50] = 0
    table, values = Table.fit(
        frame, likelihood={"quantile_normal": ["linear"], "normal": ["heavy"]}, sample_weight=weight
    )
    table = table.with_auxiliary(values[50:], weight[50:])
    kinds = [column.kind.name for column in table.auxiliary.columns]
    assert kinds == ["normal", "normal", "normal", "categorical", "normal", "bernoulli"]
    rows = table.encode(frame)
    second = rows.x[:, table.layout.stop :]
    np.testing.assert_array_equal(second, table.auxiliary.encode(frame).x)
    np.testing.assert_allclose(rows.auxiliary_log_jacobian, table.auxiliary.encode(frame).log_jacobian)
    mean = np.average(frame["linear"], weights=weight)
    deviation = np.sqrt(np.average((frame["linear"] - mean) ** 2, weights=weight))
    first = table.auxiliary.layout.first_number
    np.testing.assert_allclose(second[:, first], (frame["linear"] - mean) / deviation, rtol=1e-6)


def test_table_with_it_survives_as_plain_data():
    table, values = Table.fit(mixed())
    table = table.with_auxiliary(values)
    other = Table.from_state(*table.state())
    assert other.layout == table.layout
    np.testing.assert_array_equal(other.encode(mixed(seed=3)).x, table.encode(mixed(seed=3)).x)
