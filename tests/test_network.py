"""The model: initial weights, its terms, pickling, and networks of one's own."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from layouts import LAYOUTS, rows_of
from networks import make
from reference import SlowVAE, in_float64
from torch import nn
from torch.distributions import Normal, kl_divergence

from skvae import VAEEstimator
from skvae.model.auxiliary import BLUR, KEPT, SMALLEST_DEVIATION
from skvae.model.inputs import INPUT_MAX
from skvae.model.layers import ACTIVATIONS, MLP
from skvae.model.network import LOGVAR_MAX, LOGVAR_MIN
from skvae.model.network import kl_divergence as kl

X = np.random.default_rng(3).normal(size=(60, 4)) @ np.random.default_rng(4).normal(size=(4, 4))
THROUGH = {"pickle": lambda m: pickle.loads(pickle.dumps(m)), "deepcopy": copy.deepcopy}


def quick(**params):
    return VAEEstimator(2, **{"hidden_layer_sizes": (6,), "max_iter": 3, "random_state": 0, **params})


# -------------------------------------------------------------------------------------------------------------- weights


def test_layers_have_the_widths_asked_for_and_the_decoder_has_them_reversed():
    vae = make()
    assert [tuple(layer.weight.shape) for layer in vae.encoder.layers] == [(6, 5), (5, 6), (4, 5)]
    assert [tuple(layer.weight.shape) for layer in vae.decoder.layers] == [(5, 2), (6, 5), (5, 6)]
    linear = make(hidden=())
    assert [tuple(layer.weight.shape) for layer in linear.encoder.layers] == [(4, 5)]


def test_initial_weights_follow_the_seed_and_fill_the_range_of_glorot():
    a, b, c = (make(seed=seed, hidden=(300,)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["encoder.layers.0.weight"], c["encoder.layers.0.weight"])
    weight = a["encoder.layers.0.weight"]
    bound = np.sqrt(6 / (300 + 5))
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.1)


def test_no_two_layers_start_from_the_same_draws():
    vae = make(hidden=(4, 4, 4))
    layers = [*vae.encoder.layers, *vae.decoder.layers]
    first = [(layer.weight[0, 0] / layer.weight.abs().max()).item() for layer in layers]
    assert len(set(first)) == len(first)


def test_decoder_starts_at_the_column_means():
    vae = make()
    with torch.no_grad():
        decoded = vae.likelihood.mean(vae.decode(torch.zeros(1, 2)))
    np.testing.assert_allclose(decoded, 0.25, atol=0.05)


# ---------------------------------------------------------------------------------------------------- the model's terms


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_loss_terms_are_those_of_the_twin(activation, decoder):
    vae = in_float64(make(activation=activation, decoder=decoder, kinds="all"))
    x, _ = rows_of(LAYOUTS["all"], 8)
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 2)))
    terms = vae.loss_terms(x, noise)
    assert [term.shape for term in terms] == [(8,), (8, 2)]
    for got, expected in zip(terms, SlowVAE(vae).loss_terms(x, noise), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_kl_is_that_of_torch_distributions():
    rng = np.random.default_rng(0)
    z_mean, z_logvar = (torch.from_numpy(rng.normal(size=(20, 3))) for _ in range(2))
    expected = kl_divergence(Normal(z_mean, torch.exp(z_logvar / 2)), Normal(0.0, 1.0))
    torch.testing.assert_close(kl(z_mean, z_logvar), expected, rtol=1e-10, atol=1e-12)
    assert kl(torch.zeros(1), torch.zeros(1)) == 0


@pytest.mark.parametrize("kinds", ["both", "exposure", "zero inflated exposure"])
@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_forward_tells_each_part_from_the_latent_mean_and_the_row(kinds, decoder):
    vae = in_float64(make(decoder=decoder, kinds=kinds))
    x, _ = rows_of(LAYOUTS[kinds], 6)
    slow = SlowVAE(vae)
    with torch.no_grad():
        outputs = slow.decode(slow.posterior(x).mean, x)
        for raised in vae.likelihood.raised:
            outputs[:, raised] += x[:, slow.n_counts, None]
        torch.testing.assert_close(vae(x), vae.likelihood.mean(outputs), rtol=1e-10, atol=1e-12)


def test_decoding_without_rows_raises_no_count():
    vae = make(kinds="exposure")
    z = torch.rand(3, 2)
    x = rows_of(LAYOUTS["exposure"], 3)[0].float()
    with torch.no_grad():
        raised = vae.decode(z, x) - vae.decode(z)
    n_counts = vae.likelihood.layout.n_counts
    torch.testing.assert_close(raised[:, :n_counts], x[:, vae.likelihood.layout.offset].expand(3, n_counts))
    assert not raised[:, n_counts:].any()


def test_decoding_several_z_per_row_is_decoding_them_one_by_one():
    x = rows_of(LAYOUTS["exposure"], 4)[0].float()
    z = torch.rand(3, 4, 2)
    for decoder in ("factorized", "autoregressive", nn.Linear(2, 8)):
        vae = make(decoder=decoder, kinds="exposure")
        with torch.no_grad():
            together = vae.decode(z, x)
            one_by_one = torch.stack([vae.decode(each, x) for each in z])
        torch.testing.assert_close(together, one_by_one)


def test_device_is_that_of_the_parameters_or_the_cpu():
    assert make().device == torch.device("cpu")
    assert make().to("meta").device == torch.device("meta")

    class Twice(nn.Module):
        def forward(self, x):
            return torch.cat([x, x], dim=1)

    vae = make(encoder=nn.Flatten(), decoder=Twice(), kinds="bernoulli")
    assert not list(vae.parameters())
    assert vae.device == torch.device("cpu")


def test_log_variance_stays_in_range_and_far_cells_are_held():
    vae = make(activation="relu")
    with torch.no_grad():
        vae.encoder.layers[-1].bias[2:] = torch.tensor([1e6, -1e6])
        _, z_logvar = vae.encode(torch.rand(3, 5))
        assert z_logvar[:, 0].tolist() == [LOGVAR_MAX] * 3
        assert z_logvar[:, 1].tolist() == [LOGVAR_MIN] * 3
        far = torch.full((1, 5), 1e30)
        torch.testing.assert_close(vae.encode(far)[0], vae.encode(torch.full((1, 5), INPUT_MAX))[0])


@pytest.mark.parametrize("kinds", LAYOUTS)
def test_networks_of_ones_own_read_levels_as_ones_among_zeros(kinds):
    seen, layout = [], LAYOUTS[kinds]

    vae = make(encoder=plain, kinds=kinds).double()
    vae.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x, _ = rows_of(layout, 6)
    vae.encode(x)
    torch.testing.assert_close(seen[-1], SlowVAE(make(kinds=kinds)).encoder_inputs(x), rtol=0, atol=0)


# ------------------------------------------------------------------------------------------------------------- pickling


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
@pytest.mark.parametrize("kinds", LAYOUTS)
@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH)
def test_network_survives_copying(dtype, decoder, kinds, through):
    vae = make(decoder=decoder, kinds=kinds).to(dtype).eval()
    other = through(vae)
    assert type(other.decoder) is type(vae.decoder)
    x = rows_of(LAYOUTS[kinds], 4)[0].to(dtype)
    z, noise = torch.rand(4, 2, dtype=dtype), torch.rand(4, vae.noise_dim, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(other(x), vae(x))
        assert torch.equal(other.decode(z, x), vae.decode(z, x))
        assert all(torch.equal(a, b) for a, b in zip(other.loss_terms(x, noise), vae.loss_terms(x, noise), strict=True))
    assert not other.training
    assert {name: p.dtype for name, p in other.named_parameters()} == {n: p.dtype for n, p in vae.named_parameters()}
    assert all(p.requires_grad for p in other.parameters())
    assert not any(p.data_ptr() == q.data_ptr() for p, q in zip(vae.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH)
def test_noise_of_an_auxiliary_decoder_stays_above_its_floor_in_a_copy(through):
    other = through(make(decoder="autoregressive", kinds="auxiliary"))
    block = other.auxiliary.likelihood.blocks[0]
    with torch.no_grad():
        block.log_std.fill_(-5.0)
    other.auxiliary.likelihood.project()
    np.testing.assert_allclose(block.log_std.detach().exp(), SMALLEST_DEVIATION, rtol=1e-6)


@pytest.mark.parametrize("decoder", ["factorized", "autoregressive"])
def test_blurred_posterior_is_that_of_the_z_that_the_decoder_reads(decoder):
    x, _ = rows_of(LAYOUTS["auxiliary"], 3)
    vae = make(decoder=decoder, kinds="auxiliary").double()
    with torch.no_grad():
        z_mean, z_logvar = vae.encode(x)
        mean, logvar = vae.encode_blurred(x)
    noise = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in range(3):
        z = z_mean[k] + torch.exp(0.5 * z_logvar[k]) * noise[:, :2]
        blurred = KEPT * z + BLUR * noise[:, 2:]
        np.testing.assert_allclose(mean[k], blurred.mean(0), atol=0.01)
        np.testing.assert_allclose(torch.exp(logvar[k]), blurred.var(0), rtol=0.02)


# ------------------------------------------------------------------------------------------------ networks of one's own


class Wide(nn.Module):
    """A network with dropout and a norm that keeps running moments."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(n_inputs, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, n_outputs)
        )

    def forward(self, x):
        return self.body(x)


def plain(n_inputs, n_outputs):
    return nn.Linear(n_inputs, n_outputs)


@pytest.mark.parametrize(
    "networks",
    [
        {"encoder": Wide},
        {"decoder": Wide},
        {"encoder": Wide, "decoder": plain},
        {"encoder": nn.Linear(4, 4), "decoder": nn.Linear(2, 4)},
    ],
    ids=["encoder", "decoder", "both", "instances"],
)
def test_custom_networks_train_and_give_the_same_bits_again(networks):
    vae, again = quick(**networks).fit(X), quick(**networks).fit(X)
    np.testing.assert_array_equal(vae.transform(X), again.transform(X))
    np.testing.assert_array_equal(vae.transform(X), vae.transform(X))  # no dropout when the model is read
    assert np.isfinite(vae.score(X))
    assert vae.sample(3, random_state=0).shape == (3, 4)
    longer = quick(**networks, early_stopping=False).set_params(max_iter=150, batch_size=10, learning_rate_init=1e-2)
    assert longer.fit(X).score(X) > vae.score(X) + 0.1


@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH)
@pytest.mark.parametrize("training", [False, True])
def test_model_with_custom_networks_survives_copying(through, training):
    vae = make(nn.Linear(5, 4), nn.Linear(2, 5)).train(training)
    other = through(vae)
    x = torch.rand(3, 5)
    assert torch.equal(other(x), vae(x))
    assert other.training == other.encoder.training == other.decoder.network.training == training
    assert not any(p.data_ptr() == q.data_ptr() for p, q in zip(vae.parameters(), other.parameters(), strict=True))


def test_custom_networks_are_told_from_the_built_in_ones():
    assert not make().has_custom_networks
    assert not make(decoder="autoregressive").has_custom_networks
    assert make(encoder=nn.Linear(5, 4)).has_custom_networks
    assert make(decoder=nn.Linear(2, 5)).has_custom_networks


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_module_given_is_copied_not_trained(role):
    module = nn.Linear(4, 4) if role == "encoder" else nn.Linear(2, 4)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    vae = quick(**{role: module}).fit(X)
    network = vae.module_.encoder if role == "encoder" else vae.module_.decoder.network
    assert isinstance(network, nn.Linear)
    assert network is not module
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    assert module.training


@pytest.mark.parametrize("networks", [{"encoder": Wide}, {"decoder": Wide}], ids=str)
def test_factory_weights_follow_the_seed_and_the_global_generator_is_untouched(networks):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = quick(**networks).fit(X)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    np.testing.assert_array_equal(quick(**networks).fit(X).transform(X), one.transform(X))
    assert not np.array_equal(quick(**networks).set_params(random_state=1).fit(X).transform(X), one.transform(X))


def test_dropout_falls_otherwise_in_every_batch():
    seen = []

    class Recorder(nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.linear = nn.Linear(n_inputs, n_outputs)

        def forward(self, x):
            if self.training:
                seen.append(nn.functional.dropout(torch.ones(50)))
            return self.linear(x)

    quick(encoder=Recorder, batch_size=20, early_stopping=False).fit(X)
    assert len(seen) == 9
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_wrong_output_shape_is_an_error_that_names_both_shapes(role):
    n_inputs = 4 if role == "encoder" else 2
    with pytest.raises(ValueError, match=rf"custom {role} must map \(n, {n_inputs}\) to \(n, 4\).*\(2, 7\)"):
        quick(**{role: lambda n_in, n_out: nn.Linear(n_in, 7)}).fit(X)


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_wrong_input_shape_is_an_error_that_names_it(role):
    n_inputs = 4 if role == "encoder" else 2
    with pytest.raises(ValueError, match=rf"custom {role} could not read .*\(2, {n_inputs}\)"):
        quick(**{role: nn.Linear(9, 4)}).fit(X)


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_factory_that_makes_no_module_is_an_error(role):
    with pytest.raises(TypeError, match=rf"{role}=.*torch\.nn\.Module.*returned str"):
        quick(**{role: lambda n_in, n_out: "network"}).fit(X)


def test_class_of_a_module_is_a_factory():
    assert isinstance(quick(encoder=nn.Linear).fit(X).module_.encoder, nn.Linear)


def test_double_precision_modules_are_taken():
    vae = quick(encoder=lambda n_in, n_out: nn.Linear(n_in, n_out, dtype=torch.float64)).fit(X)
    assert np.isfinite(vae.score(X))


def test_module_without_parameters_is_taken():
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.cat([x[:, :2], torch.zeros_like(x[:, :2]) - 2], dim=1)

    vae = quick(encoder=Fixed()).fit(X)
    np.testing.assert_allclose(vae.transform(X), (X - X.mean(0))[:, :2] / X.std(0)[:2], atol=1e-6)


def test_layers_frozen_by_their_maker_stay_as_they_are():
    module = nn.Linear(4, 4)
    module.weight.requires_grad_(False)
    vae = quick(encoder=module).fit(X)
    assert torch.equal(vae.module_.encoder.weight, module.weight)
    assert not torch.equal(vae.module_.encoder.bias, module.bias)


def test_built_in_network_is_a_module_one_can_run():
    vae = quick().fit(X)
    assert isinstance(vae.module_.encoder, MLP)
    encoded = torch.from_numpy((X - X.mean(0)) / X.std(0)).float()
    with torch.no_grad():
        z_mean, _ = vae.module_.encode(encoded)
    np.testing.assert_allclose(z_mean, vae.transform(X), atol=1e-5)
