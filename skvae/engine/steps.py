"""One gradient step on a batch: by autograd for any modules, by hand for the built-in ones.

Both minimise ``mean(weight * (-log p(x | z) + beta KL)) + penalty / 2 * |weights|^2`` by Adam, and they agree to rounding: the
readable one defines the fast one.
"""

from __future__ import annotations

import torch

from skvae.engine.adam import BETA1, BETA2, EPS, AdamState
from skvae.engine.captured_step import CapturedStep
from skvae.engine.flat_step import FlatStep
from skvae.engine.muon import Matrix, Muon, columns, without_idle_moments
from skvae.engine.ranks import Alone, Ranks
from skvae.model.inputs import INPUT_MAX
from skvae.model.layers import mlp_of
from skvae.model.network import VAE


def make_step(
    vae: VAE,
    x: torch.Tensor,
    penalty: float,
    adam_state: AdamState | None = None,
    ranks: Alone | Ranks | None = None,
) -> AutogradStep | FlatStep:
    """The fastest step that can train `vae` on rows like `x`, tensor of shape (n, layout.width)."""
    ranks = ranks or Alone()

    # what far cells of one rank ask for, all do
    if not _is_hand_written(vae) or ranks.any(not _is_near(vae, x)):
        return AutogradStep(vae, penalty, adam_state, ranks)

    # the launches of so many small kernels would take longer than the kernels
    if vae.device.type == "cuda" and ranks.is_alone:
        return CapturedStep(vae, penalty, adam_state)

    return FlatStep(vae, penalty, adam_state, ranks)


def _is_hand_written(vae: VAE) -> bool:
    """Whether the gradients of both networks are written out by hand."""
    layers = vae.decoder.layers
    if mlp_of(vae.encoder) is None or layers is None:
        return False

    # a single layer that reads the row, too, is left to autograd
    return vae.decoder.n_row_inputs == 0 or len(layers) > 1


def _is_near(vae: VAE, x: torch.Tensor) -> bool:
    """Whether there are cells to read, all within the limit that `VAE.inputs` holds them in and the step by hand does not."""
    layout = vae.likelihood.layout
    if layout.n_inputs == 0:
        return False

    # a level is no further than 1
    for section in (slice(layout.first_number, layout.first_level), layout.extra_numbers):
        cells = x[:, section]
        if cells.numel() and not float(cells.abs().max()) <= INPUT_MAX:
            return False

    return True


class AutogradStep:
    """One gradient step on any `VAE`, by autograd and `torch.optim.Adam`.

    Parameters
    ----------
    vae : VAE
        Trained in place.
    penalty : float
        L2 penalty on the weight matrices, per row.
    adam_state : dict, default=None
        What `adam_state` returned earlier, to go on from there.
    ranks : Alone or Ranks, default=None
        The processes that step together, each on its batch.

    Attributes
    ----------
    by_autograd : bool
        True: gradients must be recorded, and modules are to be in training mode.
    """

    by_autograd = True

    def __init__(
        self, vae: VAE, penalty: float, adam_state: AdamState | None = None, ranks: Alone | Ranks | None = None
    ) -> None:
        self.vae = vae
        self.penalty = penalty
        self.ranks = ranks or Alone()
        self.optimizer = torch.optim.Adam(
            vae.parameters(), betas=(BETA1, BETA2), eps=EPS, fused=vae.device.type in ("cpu", "cuda")
        )
        self.muon_grads: dict[torch.Tensor, torch.Tensor] = {}
        self.muon = self._muon()
        if adam_state:
            self._load(adam_state)

        # sums over many rows; MPS devices have no float64
        self.totals = torch.zeros(2, device=vae.device)
        if vae.device.type != "mps":
            self.totals = self.totals.double()

    def _muon(self) -> Muon:
        """Muon, for the weights that are its own."""
        names: dict[torch.Tensor, str] = {p: name for name, p in self.vae.named_parameters()}
        masks = _masks(self.vae)
        matrices = []

        for p, n_columns in columns(self.vae).items():
            grad = torch.zeros_like(p)
            mask = masks.get(p)
            if mask is not None:
                mask = mask[:, :n_columns]
            self.muon_grads[p] = grad
            matrices.append(Matrix(names[p], p.data[:, :n_columns], grad[:, :n_columns], mask))

        return Muon(matrices)

    def _load(self, adam_state: AdamState) -> None:
        for name, p in self.vae.named_parameters():
            # a parameter that never had a gradient has no state
            if name in adam_state:
                state = self.optimizer.state[p]
                state["step"] = torch.tensor(adam_state[name]["step"], device=p.device)
                for key in ("exp_avg", "exp_avg_sq"):
                    # Adam has no moments of what is all Muon's
                    state[key] = torch.zeros_like(p)
                    if key in adam_state[name]:
                        state[key] = torch.tensor(adam_state[name][key], device=p.device)

        self.muon.load(adam_state)

    def __call__(
        self, x: torch.Tensor, weight: torch.Tensor | None, noise: torch.Tensor, beta: float, learning_rate: float
    ) -> None:
        """Step once.

        Parameters
        ----------
        x : tensor of shape (n, layout.width)
            Encoded rows.
        weight : tensor of shape (n,) or None
        noise : tensor of shape (noise_dim, n)
            Standard normal.
        beta : float
            Weight of the KL term.
        learning_rate : float
        """
        nll, kl = self.vae.loss_terms(x, noise.t())  # (n,), (n, latent_dim)
        if weight is not None:
            nll = nll * weight
            kl = kl * weight[:, None]
        nll_sum = nll.sum()
        kl_sum = kl.sum()

        self._zero_grad()
        loss = (nll_sum + beta * kl_sum) / len(x)
        loss.backward()
        if not self.ranks.is_alone:
            self._average_grads()
        self._add_penalty()
        self.muon.update(self.ranks.n_rows(len(x)), learning_rate)

        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.vae.likelihood.project()
        if self.vae.auxiliary is not None:
            self.vae.auxiliary.likelihood.project()

        # left on the device: to read a number would wait for all that runs there
        self.totals += torch.stack([nll_sum, kl_sum]).detach()

    def _zero_grad(self) -> None:
        self.optimizer.zero_grad()

        # Muon reads its gradients where they always are
        for p, grad in self.muon_grads.items():
            p.grad = grad.zero_()

    def _average_grads(self) -> None:
        """Replace every gradient by its mean over the ranks."""
        grads = []
        for p in self.vae.parameters():
            # one that has none here may have one on another rank
            if p.requires_grad and p.grad is None:
                p.grad = torch.zeros_like(p)
            if p.grad is not None:
                grads.append(p.grad)

        flat = torch.cat([grad.reshape(-1) for grad in grads])
        self.ranks.average(flat)
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view(grad.shape))

    def _add_penalty(self) -> None:
        """Add the gradient of the penalty on the weight matrices."""
        for p in self.vae.parameters():
            if p.ndim >= 2 and p.grad is not None:
                p.grad.add_(p.detach(), alpha=self.penalty)

    def pop_totals(self) -> list[float]:
        """Sums of -log p(x | z) and of KL over the rows since the last call, two floats in nats."""
        totals = self.totals.tolist()
        self.totals.zero_()

        return totals

    def adam_state(self) -> AdamState:
        """Step count and moments of each parameter, by name, as numpy arrays of their own."""
        states: AdamState = {}

        for name, p in self.vae.named_parameters():
            if p in self.optimizer.state:
                states[name] = {}
                for key, value in self.optimizer.state[p].items():
                    states[name][key] = value.cpu().numpy().copy()
        for name, state in self.muon.state().items():
            if name in states:
                states[name].update(state)

        return without_idle_moments(states)

    def release(self) -> None:
        """Nothing to give back."""


def _masks(vae: VAE) -> dict[torch.Tensor, torch.Tensor | None]:
    """Masks of the decoder's weights, by weight."""
    layers = vae.decoder.layers or ()
    masks: dict[torch.Tensor, torch.Tensor | None] = {}

    for layer, mask in zip(layers, vae.decoder.weight_masks(), strict=True):
        masks[layer.weight] = mask

    return masks
