"""One gradient step on a batch: by autograd for any modules, by hand for the built-in ones.

Both minimise ``mean(weight * (-log p(x | z) + beta KL)) + penalty / 2 * |weights|^2`` by Adam (Kingma & Ba, 2015), and they
agree to rounding: the readable one defines the fast one.
"""

import torch

from skvae.layers import ACTIVATIONS, MLP, AutoregressiveMLP
from skvae.network import INPUT_MAX, LOGVAR_MAX, LOGVAR_MIN

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def make_step(vae, x, penalty, adam_state=None):
    """The fastest step that can train `vae` on rows like `x`."""
    built_in = type(vae.encoder) is MLP and type(vae.decoder) in (MLP, AutoregressiveMLP) and x.shape[1] > 1
    built_in &= not (vae.autoregressive and len(vae.decoder.layers) == 1)
    if built_in and float(x[:, vae.likelihood.layout.first_number :].abs().max()) <= INPUT_MAX:
        return FlatStep(vae, penalty, adam_state)
    return AutogradStep(vae, penalty, adam_state)


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
    """

    def __init__(self, vae, penalty, adam_state=None):
        self.vae = vae
        groups = [
            {"params": [p for p in vae.parameters() if p.ndim >= 2], "weight_decay": penalty},
            {"params": [p for p in vae.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.Adam(
            [g for g in groups if g["params"]], betas=(BETA1, BETA2), eps=EPS, fused=vae.device.type in ("cpu", "cuda")
        )
        for name, p in vae.named_parameters():
            if adam_state and name in adam_state:
                self.optimizer.state[p] = {k: torch.tensor(v, device=p.device) for k, v in adam_state[name].items()}
        self.totals = torch.zeros(2, dtype=torch.float64 if vae.device.type != "mps" else None, device=vae.device)

    def __call__(self, x, weight, noise, beta, learning_rate):
        """Step once.

        Parameters
        ----------
        x : tensor of shape (n, layout.width + 1)
            Encoded rows, with a last column of ones.
        weight : tensor of shape (n,) or None
        noise : tensor of shape (latent_dim, n)
        beta, learning_rate : float
        """
        nll, kl = self.vae.elbo_terms(x, noise.t())
        if weight is not None:
            nll, kl = nll * weight, kl * weight
        nll, kl = nll.sum(), kl.sum()
        self.optimizer.zero_grad()
        ((nll + beta * kl) / len(x)).backward()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.vae.likelihood.project()
        self.totals += torch.stack([nll.detach(), kl.detach()])

    def pop_totals(self):
        """Sums of -log p(x | z) and of KL over the rows since the last call, two floats in nats."""
        totals = self.totals.tolist()
        self.totals.zero_()
        return totals

    def adam_state(self):
        """Step count and moments of each parameter, by name, as numpy arrays of their own."""
        state = self.optimizer.state
        return {
            name: {key: value.cpu().numpy().copy() for key, value in state[p].items()}
            for name, p in self.vae.named_parameters()
            if p in state
        }

    def release(self):
        """Nothing to give back."""


class FlatStep:
    """The same step for the built-in networks, written out by hand over one flat buffer.

    All weights are views of one tensor, and so are their gradients and moments, so that one fused call does Adam. The
    bias is a last column of each weight matrix, met by a row of ones below each layer's activations, which are stored
    feature by row: (width + 1, n). Nothing is allocated, and nothing is read back from the device, in a step.

    Parameters
    ----------
    vae : VAE
        With MLPs. Its parameters become views of the flat buffer, until `release`.
    penalty : float
        L2 penalty on the weight matrices, per row.
    adam_state : dict, default=None
        What `adam_state` returned earlier, to go on from there.
    """

    def __init__(self, vae, penalty, adam_state=None):
        self.vae, self.penalty = vae, penalty
        layers = [*vae.encoder.layers, *vae.decoder.layers]
        self.n_encoder = len(vae.encoder.layers)
        first = layers[0].weight
        shapes = [(layer.out_features, layer.in_features + 1) for layer in layers]
        self.own = [(name, p) for name, p in vae.likelihood.named_parameters(prefix="likelihood")]
        n = sum(a * b for a, b in shapes) + sum(p.numel() for _, p in self.own)
        self.theta, self.grad, self.m, self.v = (
            torch.zeros(n, dtype=first.dtype, device=first.device) for _ in range(4)
        )
        self.count = torch.zeros((), dtype=torch.float32, device=first.device)
        self.views = {name: self._views(shapes, buffer) for name, buffer in self._buffers().items()}
        self.weights, self.weight_grads = self.views["theta"][0], self.views["grad"][0]
        by_name = {name: view for (name, _), view in zip(self.own, self.views["grad"][1], strict=True)}
        self.own_grads = [
            {name: by_name[f"likelihood.blocks.{i}.{name}"] for name, _ in block.named_parameters()}
            for i, block in enumerate(vae.likelihood.blocks)
        ]
        if adam_state:
            self._load(adam_state)
        self._bind()
        self.decay = None
        if penalty:
            self.decay = torch.zeros_like(self.theta)
            for w in self._views(shapes, self.decay)[0]:
                w[:, :-1] = penalty
        self.mask = None
        if vae.autoregressive:
            self.mask = torch.ones_like(self.theta)
            masks = self._views(shapes, self.mask)[0][self.n_encoder :]
            for view, layer in zip(masks, vae.decoder.layers, strict=True):
                view[:, :-1] = layer.mask
        self.projections = [b.project for b in vae.likelihood.blocks if next(b.parameters(), None) is not None]
        self.workspaces = {}

    def _buffers(self):
        return {"theta": self.theta, "grad": self.grad, "exp_avg": self.m, "exp_avg_sq": self.v}

    def _views(self, shapes, buffer):
        """The weight matrices, (out, in + 1), and the likelihood's own parameters as views of a flat buffer."""
        sizes = [a * b for a, b in shapes] + [p.numel() for _, p in self.own]
        parts = buffer.split(sizes)
        weights = [part.view(shape) for part, shape in zip(parts, shapes, strict=False)]
        return weights, [part.view(p.shape) for part, (_, p) in zip(parts[len(shapes) :], self.own, strict=True)]

    def _named(self, buffer_name):
        """Views of a flat buffer by the names of the module's parameters."""
        weights, own = self.views[buffer_name]
        named = {name: view for (name, _), view in zip(self.own, own, strict=True)}
        for i, w in enumerate(weights):
            part, k = ("encoder", i) if i < self.n_encoder else ("decoder", i - self.n_encoder)
            named[f"{part}.layers.{k}.weight"], named[f"{part}.layers.{k}.bias"] = w[:, :-1], w[:, -1]
        return named

    @torch.no_grad()
    def _bind(self):
        """Copy the module's parameters into the buffer and let them be views of it."""
        views = self._named("theta")
        for name, p in self.vae.named_parameters():
            p.data = views[name].copy_(p)

    def _load(self, adam_state):
        for key in ("exp_avg", "exp_avg_sq"):
            for name, view in self._named(key).items():
                view.copy_(torch.from_numpy(adam_state[name][key]))
        self.count.fill_(float(next(iter(adam_state.values()))["step"]))

    def adam_state(self):
        """Step count and moments of each parameter, by name, as numpy arrays of their own."""
        m, v, step = self._named("exp_avg"), self._named("exp_avg_sq"), self.count.cpu().numpy()
        return {
            name: {
                "step": step.copy(),
                "exp_avg": m[name].cpu().numpy().copy(),
                "exp_avg_sq": v[name].cpu().numpy().copy(),
            }
            for name in m
        }

    def release(self):
        """Give the module parameters of its own again, so that no view keeps the whole buffer alive."""
        for p in self.vae.parameters():
            p.data = p.data.clone(memory_format=torch.contiguous_format)

    def __call__(self, x, weight, noise, beta, learning_rate):
        """Step once: see `AutogradStep.__call__`. No parameter takes part as such, so that autograd has nothing to record."""
        n = len(x)
        if n not in self.workspaces:
            self.workspaces[n] = _Workspace(self, n)
        work = self.workspaces[n]
        scale, total = (work.scale, work.total) if weight is None else (weight / n, weight.sum() / n)
        inputs = x[:, work.first_input :] if work.first_input else x
        work.forward(inputs, noise)
        work.backward_likelihood(x, scale, total)
        work.backward(inputs, scale, beta)
        if self.mask is not None:
            self.grad *= self.mask
        if self.decay is not None:
            self.grad.addcmul_(self.theta, self.decay)
        self.count += 1
        torch._fused_adam_(
            [self.theta],
            [self.grad],
            [self.m],
            [self.v],
            [],
            [self.count],
            lr=learning_rate,
            beta1=BETA1,
            beta2=BETA2,
            weight_decay=0.0,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )
        for project in self.projections:
            project()

    def pop_totals(self):
        """Sums of -log p(x | z) and of KL over the rows since the last call, two floats in nats."""
        pairs = [work.pop_totals() for work in self.workspaces.values()]
        return [sum(nll for nll, _ in pairs), sum(kl for _, kl in pairs)]


class _Workspace:
    """The buffers of a step on `n` rows, made once with all the views of them, and the passes over them.

    A layer's activations, (width + 1, n), end in the row of ones that meets the bias; the decoder's outputs are row by
    column, (n, n_outputs), like the cells they are compared with.
    """

    def __init__(self, step, n):
        vae, like = step.vae, step.theta
        latent_dim = vae.latent_dim
        self.n, self.activation = n, ACTIVATIONS[vae.encoder.activation]
        self.scale, self.total = like.new_full((n,), 1 / n), like.new_ones(())
        self.head, self.head_grad = like.new_empty(2 * latent_dim, n), like.new_empty(2 * latent_dim, n)
        self.z_mean, self.z_logvar = self.head.split(latent_dim)
        self.z_mean_grad, self.z_logvar_grad = self.head_grad.split(latent_dim)
        self.z = like.new_ones(latent_dim + 1, n)
        self.z_rows = self.z[:-1]
        self.std, self.shift, self.kl_cells = (like.new_empty(latent_dim, n) for _ in range(3))
        self.outputs = like.new_empty(n, vae.likelihood.n_outputs)
        k = step.n_encoder
        self.encoder = _Layers(vae.encoder, step.weights[:k], step.weight_grads[:k], n, None)
        weights, weight_grads = step.weights[k:], step.weight_grads[k:]
        self.context = None
        if vae.autoregressive:  # the first layer's weights: what meets z, and what meets the row (and the bias)
            self.context, weights = weights[0][:, latent_dim:], [weights[0][:, :latent_dim], *weights[1:]]
            self.context_grad, weight_grads = (
                weight_grads[0][:, latent_dim:],
                [weight_grads[0][:, :latent_dim], *weight_grads[1:]],
            )
        self.decoder = _Layers(vae.decoder, weights, weight_grads, n, self.z_mean_grad, bias=self.context is None)
        self.last_weights_t, self.outputs_t, self.z_t = weights[-1].t(), self.outputs.t(), self.z.t()
        layout = vae.likelihood.layout
        self.first_input, self.offset = layout.first_number, layout.offset
        self.count_outputs = None if layout.exposure is None else self.outputs[:, : layout.n_counts]
        self.kl = like.new_zeros(latent_dim, n)
        self.nll = [like.new_zeros(block.n_columns) for block in vae.likelihood.blocks]
        parts = vae.likelihood.places(self.outputs)
        self.blocks = [(*part, grads, nll) for part, grads, nll in zip(parts, step.own_grads, self.nll, strict=True)]

    def forward(self, inputs, noise):
        """Fill `outputs` for what the network reads of the rows (n, n_inputs + 1) and the `noise` (latent_dim, n)."""
        inputs_t = inputs.t()
        below = self.encoder.forward(self.activation, inputs_t)
        torch.mm(self.encoder.weights[-1], below, out=self.head)
        self.z_logvar.clamp_(LOGVAR_MIN, LOGVAR_MAX)
        torch.mul(self.z_logvar, 0.5, out=self.std).exp_()
        torch.mul(self.std, noise, out=self.shift)
        torch.add(self.z_mean, self.shift, out=self.z_rows)
        if self.context is None:
            below = self.decoder.forward(self.activation, self.z)
        else:
            below = self.decoder.forward(self.activation, self.z_rows, self.context, inputs_t)
        torch.mm(below.t(), self.last_weights_t, out=self.outputs)

    def backward_likelihood(self, x, scale, total):
        """Overwrite `outputs` by the gradient of the loss with respect to them."""
        if self.count_outputs is not None:
            self.count_outputs += x[:, self.offset]
        for block, outputs, cells, known, grads, nll in self.blocks:
            mask = None if known is None else x.index_select(1, known)
            nll += block.backward_(x[:, cells], outputs, mask, scale, total, grads)

    def backward(self, inputs, scale, beta):
        """Fill the gradients of all weights from that of the decoder's outputs."""
        if self.context is None:
            self.decoder.backward(self.activation, self.outputs_t, self.z_t)
        else:
            below = self.decoder.backward(self.activation, self.outputs_t, self.z_rows.t())
            torch.mm(below, inputs, out=self.context_grad)
        # z = z_mean + z_std * noise, and KL = (z_mean^2 + z_std^2 - 1 - z_logvar) / 2
        torch.mul(self.z_mean_grad, self.shift, out=self.z_logvar_grad)
        variance = torch.mul(self.std, self.std, out=self.std).sub_(1)  # less one, that is
        kl = torch.sub(variance, self.z_logvar, out=self.kl_cells).addcmul_(self.z_mean, self.z_mean)
        self.kl.addcmul_(kl, scale)
        self.z_logvar_grad.addcmul_(variance, scale, value=beta).mul_(0.5)
        self.z_mean_grad.addcmul_(self.z_mean, scale, value=beta)
        self.encoder.backward(self.activation, self.head_grad, inputs)

    def pop_totals(self):
        """Sums of -log p(x | z) and of KL over the rows since the last call, two floats in nats."""
        totals = [self.n * sum(float(nll.sum()) for nll in self.nll), self.n * float(self.kl.sum()) / 2]
        for total in (*self.nll, self.kl):
            total.zero_()
        return totals


class _Layers:
    """The layers of one network: weights, activations and gradients for `n` rows, and the passes through them."""

    def __init__(self, mlp, weights, weight_grads, n, input_grad, bias=True):
        like, widths = weights[0], mlp.sizes[1:-1]
        self.weights = weights
        acts = [like.new_ones(width + 1, n) for width in widths]
        # relu and its like may overwrite what they read; others need their input for the derivative
        in_place = ACTIVATIONS[mlp.activation].derivative_from == "output"
        pre = [act[:-1] if in_place else like.new_empty(len(act) - 1, n) for act in acts]
        self.up = [(w, p, act[:-1], act) for w, p, act in zip(weights, pre, acts, strict=False)]
        # from the last layer to the first: its gradient, its inputs transposed, its weights without the bias, transposed,
        # the gradient below it, and what the derivative of the activation below it is told from
        grads = [input_grad, *(like.new_empty(width, n) for width in widths)]
        inputs_t = [None, *(act.t() for act in acts)]
        back = [w[:, :-1].t() if bias or i else w.t() for i, w in enumerate(weights)]
        self.down = list(zip(weight_grads, inputs_t, back, grads, [None, *pre], strict=True))[::-1]

    def forward(self, activation, below, context=None, context_inputs=None):
        """Activations of the last hidden layer, with their row of ones; `below` (n_inputs + 1, n) if there is none.

        The weights `context` carry `context_inputs` (n_context, n) to the first layer, beside `below`.
        """
        for weight, pre, act, with_ones in self.up:
            torch.mm(weight, below, out=pre)
            if context is not None:
                pre.addmm_(context, context_inputs)
                context = None
            activation.forward(pre, out=act)
            below = with_ones
        return below

    def backward(self, activation, grad, inputs_t):
        """Fill the weight gradients, and that of the inputs if it is wanted, from the outputs' `grad` (n_outputs, n).

        Returns the gradient at the first layer's sums.
        """
        for weight_grad, below_t, back, grad_below, saved in self.down:
            first = grad
            torch.mm(grad, inputs_t if below_t is None else below_t, out=weight_grad)
            if grad_below is not None:
                grad = torch.mm(back, grad, out=grad_below)
            if saved is not None:
                activation.backward(grad, saved)
        return first
