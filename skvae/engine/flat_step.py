"""The gradient step for the built-in networks, written out by hand over one flat buffer."""

import functools
from collections.abc import Callable

import torch

from skvae.engine import adam
from skvae.engine.adam import AdamState
from skvae.engine.workspace import Workspace
from skvae.model.layers import layers_of
from skvae.model.network import VAE


class FlatParameters:
    """Positions of all parameters of a VAE in a flat tensor.

    The weight matrices of the encoder come first, then those of the decoder, each with the bias as a last column, and then the
    likelihood's own parameters.

    Parameters
    ----------
    vae : VAE
        With built-in networks.
    """

    def __init__(self, vae: VAE) -> None:
        encoder_layers = layers_of(vae.encoder)
        decoder_layers = vae.decoder.layers
        if encoder_layers is None or decoder_layers is None:
            raise TypeError(
                "A step by hand needs built-in networks, but the encoder or the decoder is of another class."
            )

        self.n_encoder = len(encoder_layers)
        self.layers = [*encoder_layers, *decoder_layers]
        self.shapes = [(layer.out_features, layer.in_features + 1) for layer in self.layers]
        self.names = {p: name for name, p in vae.named_parameters()}
        self.own = list(vae.likelihood.parameters())

    def zeros(self) -> torch.Tensor:
        """A flat tensor of zeros that has a place for each parameter."""
        n = sum(self._sizes())
        first = self.layers[0].weight
        return torch.zeros(n, dtype=first.dtype, device=first.device)

    def _sizes(self) -> list[int]:
        sizes = [n_out * n_in for n_out, n_in in self.shapes]
        sizes += [p.numel() for p in self.own]
        return sizes

    def matrices(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Views of a flat tensor, of shape (n_out, n_in + 1), layer by layer."""
        places = flat.split(self._sizes())
        return [place.view(shape) for place, shape in zip(places, self.shapes, strict=False)]

    def named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of a flat tensor by the names of the module's parameters, each in the shape of the parameter."""
        views = {}
        for layer, matrix in zip(self.layers, self.matrices(flat), strict=True):
            views[self.names[layer.weight]] = matrix[:, :-1]
            views[self.names[layer.bias]] = matrix[:, -1]

        own_places = flat.split(self._sizes())[len(self.layers) :]
        for p, place in zip(self.own, own_places, strict=True):
            views[self.names[p]] = place.view(p.shape)
        return views


class FlatStep:
    """The step of `AutogradStep` for the built-in networks, by hand.

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

    Attributes
    ----------
    by_autograd : bool
        False: nothing is recorded, and no module is called.
    """

    by_autograd = False

    def __init__(self, vae: VAE, penalty: float, adam_state: AdamState | None = None) -> None:
        self.vae = vae
        self.parameters = FlatParameters(vae)
        self.theta = self.parameters.zeros()
        self.grad = self.parameters.zeros()
        self.exp_avg = self.parameters.zeros()
        self.exp_avg_sq = self.parameters.zeros()

        # the number of updates; a tensor is added to it, for a plain number would be converted in every call
        self.count = torch.zeros((), dtype=torch.float32, device=self.theta.device)
        self.one = torch.ones((), dtype=torch.float32, device=self.theta.device)
        if adam_state:
            self._load(adam_state)

        self.weights = self.parameters.matrices(self.theta)
        self.weight_grads = self.parameters.matrices(self.grad)
        self.block_own = self._own_of_blocks()
        self.projections = self._projections()
        self._bind()

        self.decay = self._decay(penalty)
        self.mask = self._mask()
        self.workspaces: dict[int, Workspace] = {}

    def _load(self, adam_state: AdamState) -> None:
        for key, flat in (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
            for name, view in self.parameters.named(flat).items():
                view.copy_(torch.from_numpy(adam_state[name][key]))
        any_state = next(iter(adam_state.values()))
        self.count.fill_(float(any_state["step"]))

    def _own_of_blocks(self) -> list[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
        """Values and gradients of each block's own parameters, by the name that the block has for them."""
        values = self.parameters.named(self.theta)
        grads = self.parameters.named(self.grad)
        own_of_blocks = []

        for block in self.vae.likelihood.blocks:
            own = {}
            for name, p in block.named_parameters():
                path = self.parameters.names[p]
                own[name] = (values[path], grads[path])
            own_of_blocks.append(own)

        return own_of_blocks

    def _projections(self) -> list[Callable[[], object]]:
        """What puts the blocks' own parameters back into their limits after an update."""
        calls: list[Callable[[], object]] = []
        for block, own in zip(self.vae.likelihood.blocks, self.block_own, strict=True):
            for name, (low, high) in block.limits.items():
                value, _ = own[name]
                calls.append(functools.partial(value.clamp_, low, high))
        return calls

    @torch.no_grad()
    def _bind(self) -> None:
        """Copy the module's parameters into the flat tensor and let them be views of it."""
        views = self.parameters.named(self.theta)
        for name, p in self.vae.named_parameters():
            p.data = views[name].copy_(p)

    def _decay(self, penalty: float) -> torch.Tensor | None:
        """The penalty where there is a weight and 0 where there is a bias, flat; None without a penalty."""
        if not penalty:
            return None
        decay = self.parameters.zeros()
        for matrix in self.parameters.matrices(decay):
            matrix[:, :-1] = penalty
        return decay

    def _mask(self) -> torch.Tensor | None:
        """1 where a parameter is free and 0 where the decoder's weights are cut, flat; None if all are free."""
        masks = self.vae.decoder.weight_masks()
        if all(mask is None for mask in masks):
            return None

        flat = self.parameters.zeros().fill_(1)
        matrices = self.parameters.matrices(flat)[self.parameters.n_encoder :]
        for matrix, mask in zip(matrices, masks, strict=True):
            if mask is not None:
                matrix[:, :-1] = mask
        return flat

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
            self.workspaces[n] = self._workspace(n)
        work = self.workspaces[n]

        # each row's share of the loss, and their sum
        scale = work.scale
        total = work.total
        if weight is not None:
            scale = weight / n
            total = weight.sum() / n

        work.forward(x, noise)
        work.backward_likelihood(scale, total)
        work.backward(scale, beta)

        if self.mask is not None:
            self.grad *= self.mask
        if self.decay is not None:
            self.grad.addcmul_(self.theta, self.decay)
        self.count += self.one
        adam.update(self.theta, self.grad, self.exp_avg, self.exp_avg_sq, self.count, learning_rate)
        for project in self.projections:
            project()

    def _workspace(self, n: int) -> Workspace:
        return Workspace(self.vae, self.weights, self.weight_grads, self.block_own, n)

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

        states = {}
        for name in exp_avg:
            states[name] = {
                "step": step.copy(),
                "exp_avg": exp_avg[name].cpu().numpy().copy(),
                "exp_avg_sq": exp_avg_sq[name].cpu().numpy().copy(),
            }
        return states

    def release(self) -> None:
        """Give the module parameters of its own again, so that no view keeps the whole tensor alive."""
        for p in self.vae.parameters():
            p.data = p.data.clone(memory_format=torch.contiguous_format)
