"""The gradient step for the built-in networks, written out by hand over one flat tensor."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from skvae.engine import adam
from skvae.engine.adam import AdamState
from skvae.engine.comparison import Own
from skvae.engine.first_layers import Perceptron
from skvae.engine.muon import Matrix, Muon, columns, without_idle_moments
from skvae.engine.ranks import Alone, Ranks
from skvae.engine.stairs import Stairs
from skvae.engine.workspace import Networks, Workspace
from skvae.model.inputs import is_gathered
from skvae.model.layers import ACTIVATIONS, MLP, mlp_of
from skvae.model.likelihoods import Likelihood
from skvae.model.network import VAE


class FlatParameters:
    """Positions of all parameters of a VAE in a flat tensor.

    The weight matrices of the encoder come first, then those of the decoder and of an auxiliary one, each with the bias as a
    last column, and then the likelihoods' own parameters. First layers that gather the weights of levels are stored input by
    input, so that these weights stand side by side, and end in zeros, which are gathered where a cell is missing.

    Parameters
    ----------
    vae : VAE
        With built-in networks.
    """

    def __init__(self, vae: VAE) -> None:
        encoder = mlp_of(vae.encoder)
        decoder = mlp_of(vae.decoder.network)
        if encoder is None or decoder is None:
            raise TypeError(
                "A step by hand needs built-in networks, but the encoder or the decoder is of another class."
            )

        self.encoder = encoder
        self.decoder = decoder
        self.auxiliary: MLP | None = None
        self.layers = [*encoder.layers, *decoder.layers]
        self.own = list(vae.likelihood.parameters())
        if vae.auxiliary is not None:
            self.auxiliary = vae.auxiliary.network
            self.layers += self.auxiliary.layers
            self.own += vae.auxiliary.likelihood.parameters()
        self.names: dict[torch.Tensor, str] = {p: name for name, p in vae.named_parameters()}

        # whether the first layer of each network gathers, which one that reads z alone does not
        layout = vae.likelihood.layout
        gathered = is_gathered(layout, encoder.layers[0].weight.device)
        self.gathered = {encoder.layers[0]: gathered, decoder.layers[0]: gathered and vae.decoder.n_row_inputs > 0}
        self.n_levels = layout.n_all_levels

        self.sizes = []
        for layer in self.layers:
            # with the bias, and with zeros
            n_in = layer.in_features + 1 + self.gathered.get(layer, False)
            self.sizes.append(layer.out_features * n_in)
        for p in self.own:
            self.sizes.append(p.numel())

    def zeros(self) -> torch.Tensor:
        """A flat tensor of zeros that has a place for each parameter."""
        first = self.layers[0].weight

        return torch.zeros(sum(self.sizes), dtype=first.dtype, device=first.device)

    def matrices(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Views of a flat tensor, of shape (n_out, n_in + 1), layer by layer."""
        matrices = []

        # the likelihood's own parameters stand behind the last matrix
        for layer, place in zip(self.layers, flat.split(self.sizes), strict=False):
            if self.gathered.get(layer, False):
                matrices.append(place.view(-1, layer.out_features)[:-1].t())
            else:
                matrices.append(place.view(layer.out_features, layer.in_features + 1))

        return matrices

    def table(self, flat: torch.Tensor, layer: torch.nn.Linear) -> torch.Tensor | None:
        """View of a flat tensor, of shape (n_levels + 2, n_out): weights of the levels, bias and zeros of a first layer.

        None if the layer does not gather.
        """
        if not self.gathered.get(layer, False):
            return None

        place = flat.split(self.sizes)[self.layers.index(layer)]

        return place.view(-1, layer.out_features)[-self.n_levels - 2 :]

    def named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of a flat tensor by the names of the module's parameters, each in the shape of the parameter."""
        views = {}

        for layer, matrix in zip(self.layers, self.matrices(flat), strict=True):
            views[self.names[layer.weight]] = matrix[:, :-1]
            views[self.names[layer.bias]] = matrix[:, -1]

        places = flat.split(self.sizes)[len(self.layers) :]
        for p, place in zip(self.own, places, strict=True):
            views[self.names[p]] = place.view(p.shape)

        return views


class FlatStep:
    """What `AutogradStep` does, for the built-in networks and by hand.

    All weights are views of one tensor, and so are their gradients and moments, so that one fused call does Adam. The bias is
    a last column of each weight matrix, met by a row of ones below each layer's activations, which are stored feature by row:
    (width + 1, n). Nothing is allocated, and nothing is read back from the device, in a step.

    Parameters
    ----------
    vae : VAE
        With built-in networks. Its parameters become views of the flat tensor, until `release`.
    penalty : float
        L2 penalty on the weight matrices, per row.
    adam_state : dict, default=None
        What `adam_state` returned earlier, to go on from there.
    ranks : Alone or Ranks, default=None
        The processes that step together, each on its batch.

    Attributes
    ----------
    by_autograd : bool
        False: nothing is recorded, and no module is called.
    muon_always : bool
        Whether Muon steps after every gradient.
    """

    by_autograd = False
    muon_always = False

    def __init__(
        self, vae: VAE, penalty: float, adam_state: AdamState | None = None, ranks: Alone | Ranks | None = None
    ) -> None:
        self.vae = vae
        self.ranks = ranks or Alone()
        self.parameters = FlatParameters(vae)

        # all of shape (number of parameters,)
        self.theta = self.parameters.zeros()
        self.grad = self.parameters.zeros()
        self.exp_avg = self.parameters.zeros()
        self.exp_avg_sq = self.parameters.zeros()
        self.decay = self._decay(penalty)
        self.mask = self._mask()

        # a tensor is added to the number of updates, for a plain number would be converted in every call
        self.count = torch.zeros((), dtype=torch.float32, device=self.theta.device)
        self.one = torch.ones((), dtype=torch.float32, device=self.theta.device)
        self.muon = self._muon()
        if adam_state:
            self._load(adam_state)

        self.networks = self._networks()
        self.projections = self._projections()
        self.workspaces: dict[int, Workspace] = {}
        self._bind()

    def _decay(self, penalty: float) -> torch.Tensor | None:
        """The penalty where there is a weight and 0 where there is a bias, flat; None without a penalty."""
        if not penalty:
            return None

        decay = self.parameters.zeros()
        for matrix in self.parameters.matrices(decay):
            matrix[:, :-1] = penalty

        return decay

    def _mask(self) -> torch.Tensor | None:
        """1 where a parameter is free and 0 where a weight of the decoder is cut, flat; None if all are free."""
        masks = self.vae.decoder.weight_masks()
        flat = self.parameters.zeros().fill_(1)
        first = len(self.parameters.encoder.layers)
        matrices = self.parameters.matrices(flat)[first : first + len(masks)]
        is_cut = False

        for matrix, mask in zip(matrices, masks, strict=True):
            # a bias is never cut
            if mask is not None:
                matrix[:, :-1] = mask
                is_cut = True

        return flat if is_cut else None

    def _muon(self) -> Muon:
        """Muon, for the weights that are its own."""
        weights = self.parameters.named(self.theta)
        grads = self.parameters.named(self.grad)
        masks = {} if self.mask is None else self.parameters.named(self.mask)
        matrices = []

        for p, n_columns in columns(self.vae).items():
            name = self.parameters.names[p]
            mask = None
            if name in masks and not masks[name].all():
                mask = masks[name][:, :n_columns]
            matrices.append(Matrix(name, weights[name][:, :n_columns], grads[name][:, :n_columns], mask))

        return Muon(matrices, always=self.muon_always)

    def _load(self, adam_state: AdamState) -> None:
        exp_avg = self.parameters.named(self.exp_avg)
        exp_avg_sq = self.parameters.named(self.exp_avg_sq)

        for name in exp_avg:
            # Adam has no moments of what is all Muon's
            if "exp_avg" in adam_state[name]:
                exp_avg[name].copy_(torch.from_numpy(adam_state[name]["exp_avg"]))
                exp_avg_sq[name].copy_(torch.from_numpy(adam_state[name]["exp_avg_sq"]))

        self.muon.load(adam_state)

        # every parameter has had as many updates
        self.count.fill_(float(adam_state[name]["step"]))

    def _networks(self) -> Networks:
        """Weights and own parameters, and their gradients."""
        n = len(self.parameters.encoder.layers)
        m = n + len(self.parameters.decoder.layers)
        encoder = self._perceptron(self.parameters.encoder, slice(0, n))
        decoder = self._perceptron(self.parameters.decoder, slice(n, m))

        # on a device with thousands of cores, one large product is quicker than several small ones
        if self.theta.device.type == "cpu":
            decoder = decoder._replace(stairs=Stairs.of(self.vae.decoder.weight_masks()[-1]))

        own = self._own(self.vae.likelihood)
        if self.vae.auxiliary is None or self.parameters.auxiliary is None:
            return Networks(encoder, decoder, own)

        auxiliary = self._perceptron(self.parameters.auxiliary, slice(m, None))
        return Networks(encoder, decoder, own, auxiliary, self._own(self.vae.auxiliary.likelihood))

    def _perceptron(self, network: MLP, layers: slice) -> Perceptron:
        """A network, whose layers are some of all."""
        first = network.layers[0]

        return Perceptron(
            ACTIVATIONS[network.activation],
            self.parameters.matrices(self.theta)[layers],
            self.parameters.matrices(self.grad)[layers],
            self.parameters.table(self.theta, first),
            self.parameters.table(self.grad, first),
        )

    def _own(self, likelihood: Likelihood) -> list[Own]:
        """Values and gradients of the own parameters of each block of a likelihood, by the name it has for them."""
        values = self.parameters.named(self.theta)
        grads = self.parameters.named(self.grad)
        own_of_blocks: list[Own] = []

        for place in likelihood.places:
            own = {}
            for name, p in place.block.named_parameters():
                path = self.parameters.names[p]
                own[name] = (values[path], grads[path])
            own_of_blocks.append(own)

        return own_of_blocks

    def _projections(self) -> list[Callable[[], object]]:
        """Calls that put the blocks' own parameters back into their limits after an update."""
        places = list(self.vae.likelihood.places)
        if self.vae.auxiliary is not None:
            places += self.vae.auxiliary.likelihood.places
        calls: list[Callable[[], object]] = []

        for place, own in zip(places, (*self.networks.own, *self.networks.auxiliary_own), strict=True):
            for name, (low, high) in place.block.limits.items():
                value, _ = own[name]
                calls.append(functools.partial(value.clamp_, low, high))

        return calls

    @torch.no_grad()
    def _bind(self) -> None:
        """Copy the module's parameters into the flat tensor and let them be views of it."""
        views = self.parameters.named(self.theta)

        for name, p in self.vae.named_parameters():
            p.data = views[name].copy_(p)

    def __call__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        noise: torch.Tensor,
        beta: float | torch.Tensor,
        learning_rate: float | torch.Tensor,
    ) -> None:
        """Step once: see `AutogradStep.__call__`; `beta` and `learning_rate` may also be tensors of shape ().

        No parameter takes part as such, so that autograd has nothing to record.
        """
        n = len(x)
        if n not in self.workspaces:
            self.workspaces[n] = Workspace(self.vae, self.networks, n)
        work = self.workspaces[n]

        # the share of each row in the loss, and their sum
        scale = work.scale
        total = work.total
        if weight is not None:
            scale = weight / n
            total = weight.sum() / n

        work.forward(x, noise)
        work.backward_likelihood(scale, total)
        work.backward(scale, beta)
        self.ranks.average(self.grad)

        if self.mask is not None:
            self.grad *= self.mask
        if self.decay is not None:
            self.grad.addcmul_(self.theta, self.decay)
        self.muon.update(self.ranks.n_rows(n), learning_rate)
        self.count += self.one
        adam.update(self.theta, self.grad, self.exp_avg, self.exp_avg_sq, self.count, learning_rate)

        for project in self.projections:
            project()

    def pop_totals(self) -> list[float]:
        """Sums of -log p(x | z) and of KL over the rows since the last call, two floats in nats."""
        nll = 0.0
        kl = 0.0

        for work in self.workspaces.values():
            work_nll, work_kl = work.pop_totals()
            nll += work_nll
            kl += work_kl

        return [nll, kl]

    def adam_state(self) -> AdamState:
        """Step count and moments of each parameter, by name, as numpy arrays of their own."""
        exp_avg = self.parameters.named(self.exp_avg)
        exp_avg_sq = self.parameters.named(self.exp_avg_sq)
        step = self.count.cpu().numpy()
        states: AdamState = {}

        # copies, for these tensors go on changing
        for name in exp_avg:
            states[name] = {
                "step": step.copy(),
                "exp_avg": exp_avg[name].cpu().numpy().copy(),
                "exp_avg_sq": exp_avg_sq[name].cpu().numpy().copy(),
            }
        for name, state in self.muon.state().items():
            states[name].update(state)

        return without_idle_moments(states)

    def release(self) -> None:
        """Give the module parameters of its own again, so that no view keeps the whole tensor alive."""
        for p in self.vae.parameters():
            p.data = p.data.clone(memory_format=torch.contiguous_format)
