"""The hand-written step, the step by autograd and the slow twin are the same step."""

import functools
import itertools
import warnings

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, auxiliary_means_of, means_of, rows_of
from reference import SlowStep, SlowVAE, in_float64

from skvae.engine.captured_step import CapturedStep
from skvae.engine.flat_step import FlatStep
from skvae.engine.steps import AutogradStep, make_step
from skvae.model.decoders import DECODERS, FactorizedDecoder
from skvae.model.inputs import INPUT_MAX
from skvae.model.layers import ACTIVATIONS, MLP
from skvae.model.network import LOGVAR_MAX, build_vae
from skvae.table.layout import Layout

STEPS = {
    "flat": FlatStep,
    "autograd": AutogradStep,
    # where there is no device, what would be captured is called again: it reads its inputs where a graph would
    "captured": functools.partial(CapturedStep, capture=lambda function, device: function),
}
BATCHES = [7, 7, 3, 1, 7, 3]  # several sizes, each met again, a single row among them


def network(layout, hidden=(6, 5), activation="tanh", latent_dim=2, seed=0, decoder="factorized"):
    """A small network in float64 whose every parameter differs from its initial zero."""
    vae = in_float64(
        build_vae(
            layout,
            means_of(layout, 0.4),
            latent_dim=latent_dim,
            hidden_layer_sizes=hidden,
            activation=activation,
            encoder=None,
            decoder=decoder,
            seed=seed,
            auxiliary_mean=auxiliary_means_of(layout, 0.4),
        )
    )
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
        for layer, mask in zip(vae.decoder.layers, vae.decoder.weight_masks(), strict=True):
            if mask is not None:
                layer.weight.mul_(mask)
    return vae


def batches(layout, sizes, latent_dim=2, weighted=False, seed=3):
    """Triples of encoded rows, weights and noise."""
    rng = np.random.default_rng(seed)
    for i, n in enumerate(sizes):
        weight = torch.from_numpy(rng.uniform(0.1, 2, n)) if weighted else None
        noise_dim = latent_dim if layout.auxiliary is None else 2 * latent_dim
        yield rows_of(layout, n, seed + i)[0], weight, torch.from_numpy(rng.normal(size=(n, noise_dim)))


def assert_same_weights(vae, expected, **tolerance):
    got = {name: p.detach().numpy() for name, p in vae.named_parameters()}
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(got[name], array, err_msg=name, **tolerance)


def assert_agrees_with_twin(step_class, vae, *, weighted, penalty, beta=0.7):
    slow = SlowVAE(vae)
    step = step_class(vae, penalty)
    twin = SlowStep(slow, penalty, getattr(step, "muon_always", False))
    latent_dim = vae.latent_dim
    for i, (x, weight, noise) in enumerate(batches(vae.likelihood.layout, BATCHES, latent_dim, weighted)):
        rate = 2.0 ** -(7 + i)  # exact in single precision, in which a captured step reads it
        step(x, weight, noise.t().contiguous(), beta, rate)
        twin(x, weight, noise, beta, rate)
    np.testing.assert_allclose(step.pop_totals(), twin.totals, rtol=1e-10)
    assert step.pop_totals() == [0.0, 0.0]
    step.release()
    assert_same_weights(vae, slow.arrays(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("step_class", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("hidden", [(6,), (6, 5)], ids=str)
def test_every_activation_agrees_with_the_twin(step_class, activation, decoder, hidden):
    vae = network(LAYOUTS["all"], hidden, activation, decoder=decoder)
    assert_agrees_with_twin(step_class, vae, weighted=True, penalty=0.0)


@pytest.mark.parametrize("step_class", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize(("weighted", "penalty"), [(False, 0.0), (True, 0.3)], ids=["plain", "weighted"])
def test_every_kind_agrees_with_the_twin(step_class, decoder, kinds, weighted, penalty):
    vae = network(LAYOUTS[kinds], (5, 4), "silu", latent_dim=3, decoder=decoder)
    assert_agrees_with_twin(step_class, vae, weighted=weighted, penalty=penalty)


@pytest.mark.parametrize("step_class", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize(
    ("decoder", "hidden", "weighted", "penalty"),
    list(itertools.product(DECODERS, [(), (4,), (12, 4, 3)], [False, True], [0.0, 0.3])),
    ids=str,
)
def test_every_depth_weight_and_penalty_agrees_with_the_twin(step_class, decoder, hidden, weighted, penalty):
    vae = network(LAYOUTS["all"], hidden, "silu", latent_dim=3, decoder=decoder)
    assert_agrees_with_twin(step_class, vae, weighted=weighted, penalty=penalty)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_every_beta_agrees_with_the_twin(beta, decoder):
    vae = network(LAYOUTS["all"], (4,), "elu", latent_dim=1, decoder=decoder)
    assert_agrees_with_twin(FlatStep, vae, weighted=False, penalty=0.0, beta=beta)


@pytest.mark.parametrize(
    ("activation", "decoder"), [*((name, "factorized") for name in ACTIVATIONS), ("silu", "autoregressive")]
)
def test_gradient_agrees_with_finite_differences(activation, decoder):
    layout = LAYOUTS["all"]
    vae = network(layout, (4,), activation, decoder=decoder)
    ((x, weight, noise),) = batches(layout, [5], weighted=True)
    slow_loss = SlowStep(SlowVAE(vae)).loss

    def loss():
        nll, kl = vae.loss_terms(x, noise)
        return float((weight * (nll + 0.7 * kl.sum(1))).mean().detach())

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
        step(x, weight, noise.t().contiguous(), 0.7, 0.0)
        # after the first step, Adam's first moment is a tenth of the gradient, and Muon's momentum a twentieth
        for name, state in step.adam_state().items():
            gradient = state["exp_avg"] / 0.1 if "exp_avg" in state else np.zeros_like(state["momentum"])
            if "momentum" in state:
                momentum = state["momentum"] / 0.05
                assert (gradient[:, : momentum.shape[1]] == 0).all()
                gradient[:, : momentum.shape[1]] = momentum
            np.testing.assert_allclose(
                gradient.ravel(), numeric[name], rtol=1e-5, atol=1e-6, err_msg=f"{step_class} {name}"
            )
        step.release()


@pytest.mark.parametrize("step_class", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_parameter_gets_a_gradient_and_masked_weights_stay_zero(step_class, decoder):
    vae = network(LAYOUTS["all"], decoder=decoder)
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    step = step_class(vae, 0.1)
    for x, weight, noise in batches(LAYOUTS["all"], [20, 20]):
        step(x, weight, noise.t().contiguous(), 1.0, 1e-3)
    step.release()
    masks = {f"decoder.network.layers.{i}.weight": m for i, m in enumerate(SlowVAE(vae).masks or ())}
    for name, p in vae.named_parameters():
        free = masks[name].bool() if name in masks else torch.ones_like(p, dtype=torch.bool)
        assert (p != before[name])[free].all(), name
        assert (p[~free] == 0).all(), name


@pytest.mark.parametrize("decoder", DECODERS)
def test_both_steps_agree_where_the_posterior_deviation_is_held_in_range(decoder):
    layout, states = LAYOUTS["all"], []
    for step_class in (FlatStep, AutogradStep):
        vae = network(layout, decoder=decoder)
        with torch.no_grad():
            vae.encoder.layers[-1].bias[2:] = torch.tensor([LOGVAR_MAX + 3, -30.0])
        step = step_class(vae, 0.0)
        for x, weight, noise in batches(layout, BATCHES):
            step(x, weight, noise.t().contiguous(), 1.0, 1e-2)
        step.release()
        states.append({name: p.detach().numpy() for name, p in vae.named_parameters()})
    for name, array in states[0].items():
        np.testing.assert_allclose(array, states[1][name], rtol=1e-8, atol=1e-10, err_msg=name)
    assert states[0]["encoder.layers.2.bias"][2] < LOGVAR_MAX + 3  # the way back into the range is not cut off


@pytest.mark.parametrize("step_class", STEPS.values(), ids=STEPS)
def test_noise_deviation_stays_above_its_floor(step_class):
    vae = network(LAYOUTS["normal"])
    step = step_class(vae, 0.0)
    x = torch.zeros(4, 5, dtype=torch.float64)
    for _ in range(20):
        step(x, None, torch.zeros(2, 4, dtype=torch.float64), 1.0, 1.0)
    step.release()
    log_std = vae.likelihood.blocks[0].log_std.detach().numpy()
    assert (log_std >= np.log(1e-3) - 1e-9).all()


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.product([FlatStep, AutogradStep], repeat=2)), ids=lambda c: c.__name__
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_adam_state_goes_on_from_either_step(first, second, decoder):
    layout = LAYOUTS["all"]
    data = list(batches(layout, BATCHES, weighted=True))

    def run(vae, step_class, part, state):
        step = step_class(vae, 0.1, state)
        for x, weight, noise in part:
            step(x, weight, noise.t().contiguous(), 1.0, 1e-2)
        state = step.adam_state()
        step.release()
        return state

    vae, through = network(layout, decoder=decoder), network(layout, decoder=decoder)
    state = run(vae, first, data[:3], None)
    state = run(vae, second, data[3:], state)
    expected = run(through, AutogradStep, data, None)
    assert_same_weights(vae, {n: p.detach().numpy() for n, p in through.named_parameters()}, rtol=1e-9, atol=1e-12)
    assert state.keys() == expected.keys() == dict(vae.named_parameters()).keys()
    for name in state:
        assert float(state[name]["step"]) == len(data)
        assert state[name].keys() == expected[name].keys() >= {"step"}
        assert {"exp_avg", "exp_avg_sq"} <= state[name].keys() or "momentum" in state[name]
        for key in state[name].keys() - {"step"}:
            np.testing.assert_allclose(state[name][key], expected[name][key], rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("step_class", STEPS.values(), ids=STEPS)
def test_adam_state_is_a_copy(step_class):
    vae = network(LAYOUTS["both"])
    step = step_class(vae, 0.0)
    data = list(batches(LAYOUTS["both"], [4, 4]))
    step(data[0][0], None, data[0][2].t().contiguous(), 1.0, 1e-2)
    state = step.adam_state()
    kept = {name: {key: value.copy() for key, value in s.items()} for name, s in state.items()}
    step(data[1][0], None, data[1][2].t().contiguous(), 1.0, 1e-2)
    for name, s in state.items():
        for key, value in s.items():
            assert isinstance(value, np.ndarray)
            np.testing.assert_array_equal(value, kept[name][key])


def test_released_parameters_share_no_storage():
    vae = network(LAYOUTS["both"])
    step = FlatStep(vae, 0.0)
    step.release()
    storages = [p.untyped_storage() for p in vae.parameters()]
    assert len({s.data_ptr() for s in storages}) == len(storages)
    assert all(s.nbytes() == p.numel() * 8 for s, p in zip(storages, vae.parameters(), strict=True))


@pytest.mark.parametrize("decoder", DECODERS)
def test_both_steps_agree_where_outputs_are_held_in_range(decoder):
    layout, states = LAYOUTS["all"], []
    for step_class in (FlatStep, AutogradStep):
        vae = network(layout, decoder=decoder)
        with torch.no_grad():
            bias = vae.decoder.layers[-1].bias
            bias[3 if decoder == "factorized" else 4] -= 12  # a mean, a mixture's logit
            bias[-7:] += torch.tensor([45.0, -60, 0, 41, 0, 50, -41])
            bias[0] = -41.0
            for _, p in vae.likelihood.named_parameters():
                p[0] = -6.9
        step = step_class(vae, 0.0)
        for x, weight, noise in batches(layout, BATCHES):
            step(x, weight, noise.t().contiguous(), 1.0, 1e-2)
        step.release()
        states.append({name: p.detach().numpy() for name, p in vae.named_parameters()})
    for name, array in states[0].items():
        np.testing.assert_allclose(array, states[1][name], rtol=1e-7, atol=1e-9, err_msg=name)


def test_custom_modules_linear_orders_and_far_rows_are_trained_by_autograd():
    layout = LAYOUTS["normal"]
    vae = network(layout)
    x = torch.zeros(3, 6, dtype=torch.float64)
    assert isinstance(make_step(vae, x, 0.0), FlatStep)
    assert isinstance(make_step(vae, x + 2 * INPUT_MAX, 0.0), AutogradStep)
    assert isinstance(make_step(network(layout, decoder="autoregressive"), x, 0.0), FlatStep)
    assert isinstance(make_step(network(layout, (), decoder="autoregressive"), x, 0.0), AutogradStep)
    vae.decoder = FactorizedDecoder(torch.nn.Linear(2, 5, dtype=torch.float64), range(5))
    assert isinstance(make_step(vae, x, 0.0), AutogradStep)
    with pytest.raises(TypeError, match="built-in networks"):
        FlatStep(vae, 0.0)


@pytest.mark.parametrize("step_class", [FlatStep, AutogradStep])
def test_networks_may_have_activations_of_their_own(step_class):
    vae = network(LAYOUTS["normal"], (4,), "tanh")
    other = MLP((2, 4, 5), "softplus", torch.Generator().manual_seed(3)).double()
    vae.decoder = FactorizedDecoder(other, range(5))
    ((x, _, noise),) = batches(LAYOUTS["normal"], [6])
    nll, kl = vae.loss_terms(x, noise)
    step = step_class(vae, 0.0)
    step(x, None, noise.t().contiguous(), 1.0, 1e-3)
    np.testing.assert_allclose(step.pop_totals(), [nll.sum().item(), kl.sum().item()], rtol=1e-10)


def test_tables_without_a_cell_to_read_are_trained_by_autograd():
    vae = network(Layout(kinds=()))
    assert isinstance(make_step(vae, torch.zeros(3, 0, dtype=torch.float64), 0.0), AutogradStep)


def test_a_step_says_whether_gradients_are_to_be_recorded():
    assert AutogradStep.by_autograd
    assert not FlatStep.by_autograd
    assert not CapturedStep.by_autograd


def test_counts_however_large_are_trained_by_hand():
    vae = network(LAYOUTS["counts"])
    x, _ = rows_of(LAYOUTS["counts"], 3)
    x[:, :4] = 1e9  # the network reads their logarithms
    assert isinstance(make_step(vae, x, 0.0), FlatStep)


def test_step_that_cannot_be_captured_goes_on_without_and_says_so():
    def refuse(function, device):
        raise RuntimeError("operation not permitted when stream is capturing")

    layout, weights = LAYOUTS["all"], []
    for step_class in (STEPS["captured"], functools.partial(CapturedStep, capture=refuse)):
        vae = network(layout)
        step = step_class(vae, 0.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for x, weight, noise in batches(layout, [4, 4, 4]):
                step(x, weight, noise.t().contiguous(), 1.0, 2.0**-7)
        weights.append({name: p.detach().numpy() for name, p in vae.named_parameters()})
    assert [str(w.message).split(":")[1] for w in caught] == [" operation not permitted when stream is capturing"]
    assert_same_weights(vae, weights[0], rtol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_cuda_graph_repeats_the_step(decoder, kinds, weighted):
    layout, weights = LAYOUTS[kinds], []
    for step_class in (FlatStep, CapturedStep):
        vae = network(layout, decoder=decoder).to("cuda")
        with torch.no_grad():
            step = step_class(vae, 0.1)
            for i, (x, weight, noise) in enumerate(batches(layout, BATCHES, weighted=weighted)):
                weight = None if weight is None else weight.to("cuda")
                step(x.to("cuda"), weight, noise.t().contiguous().to("cuda"), i / 5, 2.0 ** -(7 + i))
            totals = step.pop_totals()
            step.release()
        weights.append({name: p.detach().cpu().numpy() for name, p in vae.named_parameters()} | {"totals": totals})
    for name, array in weights[0].items():
        np.testing.assert_allclose(weights[1][name], array, rtol=1e-10, atol=1e-12, err_msg=name)
