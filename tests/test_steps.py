"""The hand-written step, the step by autograd and the slow twin are the same step."""

import itertools

import numpy as np
import pytest
import torch
from reference import SlowStep, SlowVAE, in_float64

from skvae.network import ACTIVATIONS, INPUT_MAX, LOGVAR_MAX, build_vae
from skvae.steps import AutogradStep, FlatStep, make_step

KINDS = {
    "normal": {"normal": 5},
    "bernoulli": {"bernoulli": 4},
    "both": {"normal": 3, "bernoulli": 2},
    "one column": {"normal": 1},
}
BATCHES = [7, 7, 3, 1, 7, 3]  # several sizes, each met again, a single row among them


def network(counts, hidden=(6, 5), activation="tanh", latent_dim=2, seed=0):
    """A small network in float64 whose every parameter differs from its initial zero."""
    means = np.full(sum(counts.values()), 0.4)
    vae = in_float64(
        build_vae(
            counts,
            means,
            latent_dim=latent_dim,
            hidden_layer_sizes=hidden,
            activation=activation,
            encoder=None,
            decoder="factorized",
            seed=seed,
        )
    )
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return vae


def batches(counts, sizes, latent_dim=2, weighted=False, seed=3):
    """Pairs of rows, weights and noise."""
    rng = np.random.default_rng(seed)
    for n in sizes:
        columns = []
        for kind, n_columns in counts.items():
            shape = (n, n_columns)
            columns.append(rng.normal(size=shape) if kind == "normal" else rng.integers(0, 2, shape).astype(float))
        weight = torch.from_numpy(rng.uniform(0.1, 2, n)) if weighted else None
        yield torch.from_numpy(np.hstack(columns)), weight, torch.from_numpy(rng.normal(size=(n, latent_dim)))


def with_ones(x):
    return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)


def assert_same_weights(vae, expected, **tolerance):
    got = {name: p.detach().numpy() for name, p in vae.named_parameters()}
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, err_msg=name, **tolerance)


def assert_agrees_with_twin(step_class, vae, counts, *, weighted, penalty, beta=0.7):
    slow = SlowVAE(vae)
    twin, step = SlowStep(slow, penalty), step_class(vae, penalty)
    latent_dim = vae.latent_dim
    for i, (x, weight, noise) in enumerate(batches(counts, BATCHES, latent_dim, weighted)):
        rate = 1e-2 / (i + 1)
        step(with_ones(x), weight, noise.t().contiguous(), beta, rate)
        twin(x, weight, noise, beta, rate)
    np.testing.assert_allclose(step.pop_totals(), twin.totals, rtol=1e-10)
    assert step.pop_totals() == [0.0, 0.0]
    step.release()
    assert_same_weights(vae, slow.arrays(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("step_class", [FlatStep, AutogradStep])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(6,), (6, 5)], ids=str)
def test_every_activation_agrees_with_the_twin(step_class, activation, hidden):
    counts = KINDS["both"]
    vae = network(counts, hidden, activation)
    assert_agrees_with_twin(step_class, vae, counts, weighted=True, penalty=0.0)


@pytest.mark.parametrize("step_class", [FlatStep, AutogradStep])
@pytest.mark.parametrize(
    ("kinds", "hidden", "weighted", "penalty"),
    list(itertools.product(KINDS, [(), (4,), (5, 4, 3)], [False, True], [0.0, 0.3])),
    ids=str,
)
def test_every_depth_kind_weight_and_penalty_agrees_with_the_twin(step_class, kinds, hidden, weighted, penalty):
    vae = network(KINDS[kinds], hidden, "silu", latent_dim=3)
    assert_agrees_with_twin(step_class, vae, KINDS[kinds], weighted=weighted, penalty=penalty)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_every_beta_agrees_with_the_twin(beta):
    vae = network(KINDS["both"], (4,), "elu", latent_dim=1)
    assert_agrees_with_twin(FlatStep, vae, KINDS["both"], weighted=False, penalty=0.0, beta=beta)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_agrees_with_finite_differences(activation):
    counts = KINDS["both"]
    vae = network(counts, (4,), activation)
    ((x, weight, noise),) = batches(counts, [5], weighted=True)
    slow_loss = SlowStep(SlowVAE(vae)).loss

    def loss():
        nll, kl = vae.elbo_terms(x, noise)
        return float((weight * (nll + 0.7 * kl)).mean().detach())

    assert loss() == pytest.approx(slow_loss(x, weight, noise, 0.7).item(), rel=1e-12)
    numeric = {}
    for name, p in vae.named_parameters():
        flat, numeric[name] = p.data.view(-1), np.empty(p.numel())
        for i in range(p.numel()):
            value, h = float(flat[i]), 1e-6
            flat[i] = value + h
            above = loss()
            flat[i] = value - h
            numeric[name][i] = (above - loss()) / (2 * h)
            flat[i] = value
    for step_class in (FlatStep, AutogradStep):
        step = step_class(vae, 0.0)
        step(with_ones(x), weight, noise.t().contiguous(), 0.7, 0.0)
        # after the first step of Adam, the first moment is a tenth of the gradient
        for name, state in step.adam_state().items():
            np.testing.assert_allclose(
                state["exp_avg"].ravel() / 0.1, numeric[name], rtol=1e-5, atol=1e-7, err_msg=f"{step_class} {name}"
            )
        step.release()


@pytest.mark.parametrize("step_class", [FlatStep, AutogradStep])
def test_every_parameter_gets_a_gradient(step_class):
    vae = network(KINDS["both"])
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    step = step_class(vae, 0.0)
    ((x, weight, noise),) = batches(KINDS["both"], [20])
    step(with_ones(x), weight, noise.t().contiguous(), 1.0, 1e-3)
    step.release()
    assert all((p != before[name]).all() for name, p in vae.named_parameters())


def test_both_steps_agree_where_the_posterior_deviation_is_held_in_range():
    counts, states = KINDS["both"], []
    for step_class in (FlatStep, AutogradStep):
        vae = network(counts)
        with torch.no_grad():
            vae.encoder.layers[-1].bias[2:] = torch.tensor([LOGVAR_MAX + 3, -30.0])
        step = step_class(vae, 0.0)
        for x, weight, noise in batches(counts, BATCHES):
            step(with_ones(x), weight, noise.t().contiguous(), 1.0, 1e-2)
        step.release()
        states.append({name: p.detach().numpy() for name, p in vae.named_parameters()})
    for name, array in states[0].items():
        np.testing.assert_allclose(array, states[1][name], rtol=1e-8, atol=1e-10, err_msg=name)
    assert states[0]["encoder.layers.2.bias"][2] < LOGVAR_MAX + 3  # the way back into the range is not cut off


@pytest.mark.parametrize("step_class", [FlatStep, AutogradStep])
def test_noise_deviation_stays_above_its_floor(step_class):
    vae = network({"normal": 3})
    step = step_class(vae, 0.0)
    x = torch.zeros(4, 3, dtype=torch.float64)
    for _ in range(20):
        step(with_ones(x), None, torch.zeros(2, 4, dtype=torch.float64), 1.0, 1.0)
    step.release()
    log_std = vae.likelihood.blocks[0].log_std.detach().numpy()
    assert (log_std >= np.log(1e-3) - 1e-9).all()


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.product([FlatStep, AutogradStep], repeat=2)), ids=lambda c: c.__name__
)
def test_adam_state_goes_on_from_either_step(first, second):
    counts = KINDS["both"]
    data = list(batches(counts, BATCHES, weighted=True))

    def run(vae, step_class, part, state):
        step = step_class(vae, 0.1, state)
        for x, weight, noise in part:
            step(with_ones(x), weight, noise.t().contiguous(), 1.0, 1e-2)
        state = step.adam_state()
        step.release()
        return state

    vae, through = network(counts), network(counts)
    state = run(vae, first, data[:3], None)
    state = run(vae, second, data[3:], state)
    expected = run(through, AutogradStep, data, None)
    assert_same_weights(vae, {n: p.detach().numpy() for n, p in through.named_parameters()}, rtol=1e-9, atol=1e-12)
    assert state.keys() == expected.keys() == dict(vae.named_parameters()).keys()
    for name in state:
        assert float(state[name]["step"]) == len(data)
        for key in ("exp_avg", "exp_avg_sq"):
            np.testing.assert_allclose(state[name][key], expected[name][key], rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("step_class", [FlatStep, AutogradStep])
def test_adam_state_is_a_copy(step_class):
    vae = network(KINDS["both"])
    step = step_class(vae, 0.0)
    data = list(batches(KINDS["both"], [4, 4]))
    step(with_ones(data[0][0]), None, data[0][2].t().contiguous(), 1.0, 1e-2)
    state = step.adam_state()
    kept = {name: {key: value.copy() for key, value in s.items()} for name, s in state.items()}
    step(with_ones(data[1][0]), None, data[1][2].t().contiguous(), 1.0, 1e-2)
    for name, s in state.items():
        for key, value in s.items():
            assert isinstance(value, np.ndarray)
            np.testing.assert_array_equal(value, kept[name][key])


def test_released_parameters_share_no_storage():
    vae = network(KINDS["both"])
    step = FlatStep(vae, 0.0)
    step.release()
    storages = [p.untyped_storage() for p in vae.parameters()]
    assert len({s.data_ptr() for s in storages}) == len(storages)
    assert all(s.nbytes() == p.numel() * 8 for s, p in zip(storages, vae.parameters(), strict=True))


def test_custom_modules_and_far_rows_are_trained_by_autograd():
    vae = network({"normal": 2})
    x = torch.zeros(3, 2, dtype=torch.float64)
    assert isinstance(make_step(vae, x, 0.0), FlatStep)
    assert isinstance(make_step(vae, x + 2 * INPUT_MAX, 0.0), AutogradStep)
    vae.decoder = torch.nn.Linear(2, 2, dtype=torch.float64)
    assert isinstance(make_step(vae, x, 0.0), AutogradStep)
