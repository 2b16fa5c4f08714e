"""The same numbers on an accelerator as on the CPU; skipped where there is none."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from skvae import VAEEstimator

DEVICES = [
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
    pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")),
]


def rows(n=300):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 2))
    X = z @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(n, 5))
    X[:, 4] = X[:, 4] > 0
    X[rng.random(X.shape) < 0.05] = np.nan
    return X.astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_training_and_inference_equal_those_of_the_cpu_to_rounding(device, decoder):
    X = rows()
    params = {"decoder": decoder, "hidden_layer_sizes": (16, 16), "latent_dim": 2, "max_iter": 20, "random_state": 0}
    here, there = VAEEstimator(**params).fit(X), VAEEstimator(device=device, **params).fit(X)
    assert there.module_.device.type == device
    np.testing.assert_allclose(there.loss_curve_, here.loss_curve_, rtol=1e-3)
    np.testing.assert_allclose(there.transform(X), here.transform(X), atol=1e-2)
    np.testing.assert_allclose(there.score_samples(X), here.score_samples(X), atol=5e-2)
    assert there.sample(10, random_state=0).shape == (10, 5)
    assert not np.isnan(there.impute(X[:5])).any()


@pytest.mark.parametrize("device", DEVICES)
def test_copies_stay_on_their_device(device):
    network = VAEEstimator(2, device=device, max_iter=1, random_state=0).fit(rows()).module_
    assert copy.deepcopy(network).device == network.device


@pytest.mark.parametrize("device", DEVICES)
def test_pickle_made_on_a_device_loads_on_the_cpu(device, tmp_path):
    X = rows()
    vae = VAEEstimator(2, device=device, max_iter=2, random_state=0).fit(X)
    path = tmp_path / "vae.pkl"
    path.write_bytes(pickle.dumps(vae))
    code = f"import pickle; print(pickle.load(open({str(path)!r}, 'rb')).module_.device)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.stdout.strip() == "cpu"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_device_that_is_not_there_is_named(device):
    if getattr(torch, device).is_available() if device == "cuda" else torch.backends.mps.is_available():
        pytest.skip(f"{device} is there")
    with pytest.raises(ValueError, match=f"device='{device}'.*Use device='cpu'"):
        VAEEstimator(2, device=device, max_iter=1).fit(rows())
