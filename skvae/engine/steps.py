"""One gradient step on a batch: by autograd for any modules, by hand for the built-in ones.

Both minimise ``mean(weight * (-log p(x | z) + beta KL)) + penalty / 2 * |weights|^2`` by Adam (Kingma & Ba, 2015), and they
agree to rounding: the readable one defines the fast one.
"""

import functools
import warnings

import torch

from skvae.engine.matmul import product
from skvae.model.layers import ACTIVATIONS, MLP, AutoregressiveMLP
from skvae.model.network import INPUT_MAX, LOGVAR_MAX, LOGVAR_MIN

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def make_step(vae, x, penalty, adam_state=None):
    """The fastest step that can train `vae` on rows like `x`."""
    built_in = type(vae.encoder) is MLP and type(vae.decoder) in (MLP, AutoregressiveMLP) and x.shape[1] > 0
    built_in &= not (vae.autoregressive and len(vae.decoder.layers) == 1)
    if built_in and float(x[:, vae.likelihood.layout.first_number :].abs().max()) <= INPUT_MAX:
        return (CapturedStep if vae.device.type == "cuda" else FlatStep)(vae, penalty, adam_state)
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
        x : tensor of shape (n, layout.width)
            Encoded rows.
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
        self.count, self.one = (torch.full((), n, dtype=torch.float32, device=first.device) for n in (0, 1))
        self.views = {name: self._views(shapes, buffer) for name, buffer in self._buffers().items()}
        self.weights, self.weight_grads = self.views["theta"][0], self.views["grad"][0]
        values, grads = self._named("theta"), self._named("grad")
        self.block_own = []  # of each block of columns: values and gradients of its own parameters
        for i, block in enumerate(vae.likelihood.blocks):
            paths = {name: f"likelihood.blocks.{i}.{name}" for name, _ in block.named_parameters()}
            self.block_own.append({name: (values[path], grads[path]) for name, path in paths.items()})
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
        self.projections = [
            functools.partial(own[name][0].clamp_, low, high)
            for block, own in zip(vae.likelihood.blocks, self.block_own, strict=True)
            for name, (low, high) in block.limits.items()
        ]
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
        """Step once: see `AutogradStep.__call__`; `beta` and `learning_rate` may also be tensors of shape ().

        No parameter takes part as such, so that autograd has nothing to record.
        """
        n = len(x)
        if n not in self.workspaces:
            self.workspaces[n] = _Workspace(self, n)
        work = self.workspaces[n]
        scale, total = (work.scale, work.total) if weight is None else (weight / n, weight.sum() / n)
        work.forward(x, noise)
        work.backward_likelihood(scale, total)
        work.backward(scale, beta)
        if self.mask is not None:
            self.grad *= self.mask
        if self.decay is not None:
            self.grad.addcmul_(self.theta, self.decay)
        self.count += self.one
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


def cuda_graph(function, device):
    """A function without arguments that repeats on `device`, in one launch, all that `function` does there."""
    graph = torch.cuda.CUDAGraph()
    # other threads may use the device meanwhile
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay


class CapturedStep(FlatStep):
    """A `FlatStep` for CUDA devices, where the launches of its hundred small kernels would take longer than the kernels.

    The first step on a number of rows runs as it is, for what libraries set up on their first use; the second is captured,
    and repeated from then on, with all that changes copied to where the captured kernels read it.

    Parameters
    ----------
    vae, penalty, adam_state
        See `FlatStep`.
    capture : callable, default=cuda_graph
    """

    def __init__(self, vae, penalty, adam_state=None, capture=cuda_graph):
        super().__init__(vae, penalty, adam_state)
        self.capture, self.repeats = capture, {}

    def __call__(self, x, weight, noise, beta, learning_rate):
        """Step once: see `AutogradStep.__call__`."""
        n = len(x)
        if n not in self.workspaces:
            super().__call__(x, weight, noise, beta, learning_rate)
            return
        if n not in self.repeats:
            self.repeats[n] = self._repeat(x, weight, noise)
        inputs, repeat = self.repeats[n]
        for place, value in zip(inputs, (x, weight, noise, beta, learning_rate), strict=True):
            if place is not None:
                place.copy_(value) if torch.is_tensor(value) else place.fill_(value)
        repeat()

    def _repeat(self, x, weight, noise):
        """Where the inputs are read, and the function that steps once from there."""
        inputs = [None if value is None else torch.empty_like(value) for value in (x, weight, noise)]
        # Adam reads its rate in single precision
        inputs += [x.new_empty(()), torch.empty((), dtype=torch.float32, device=x.device)]
        step = functools.partial(super().__call__, *inputs)
        try:
            return inputs, self.capture(step, x.device)
        except RuntimeError as error:
            message = (
                f"Training goes on without a CUDA graph, and more slowly, since the step could not be captured: {error}"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            return inputs, step


class _Workspace:
    """The buffers of a step on `n` rows, made once with all the views of them, and the passes over them.

    All of them hold the rows side by side: the encoded rows, (width + 1, n), and each layer's activations, (width + 1, n),
    which end in the ones that meet the bias; the decoder's outputs, (n_outputs, n), stand like the cells they are compared
    with.
    """

    def __init__(self, step, n):
        vae, like = step.vae, step.theta
        latent_dim, likelihood, k = vae.latent_dim, vae.likelihood, step.n_encoder
        self.n = n
        self.scale, self.total = like.new_full((n,), 1 / n), like.new_ones(())
        self.x = like.new_ones(likelihood.layout.width + 1, n)  # the last row stays 1: it meets the bias
        self.rows = self.x[:-1]
        self.inputs = self.x[likelihood.layout.first_number :]
        self.head, self.head_grad = like.new_empty(2 * latent_dim, n), like.new_empty(2 * latent_dim, n)
        self.z_mean, self.z_logvar = self.head.split([latent_dim] * 2)
        self.z_mean_grad, self.z_logvar_grad = self.head_grad.split([latent_dim] * 2)
        self.std, self.shift, self.kl_cells, self.kl = (like.new_zeros(latent_dim, n) for _ in range(4))
        # tensors, for plain numbers among the operands cost a conversion in every call
        self.zero, self.half, self.minus_half = (like.new_full((), number) for number in (0, 0.5, -0.5))
        # the decoder reads z, then ones, or, if it is autoregressive, the row, which ends in ones
        below = like.new_ones(latent_dim + (len(self.inputs) if vae.autoregressive else 1), n)
        self.z, self.context = below[:latent_dim], below[latent_dim:] if vae.autoregressive else None
        outputs = like.new_empty(likelihood.n_outputs, n)
        passes = functools.partial(_passes, ACTIVATIONS[vae.encoder.activation])
        self.encode, self.encode_back = passes(
            step.weights[:k], step.weight_grads[:k], self.inputs, self.head, self.head_grad
        )
        self.decode, self.decode_back = passes(
            step.weights[k:], step.weight_grads[k:], below, outputs, outputs, self.z_mean_grad
        )
        self.nll = [like.new_zeros(block.n_columns) for block in likelihood.blocks]
        layout = likelihood.layout
        self.blocks = []
        for place, own, nll in zip(likelihood.places, step.block_own, self.nll, strict=True):
            flags = _flags(layout, place.parts, like.device)
            self.blocks.append((place.block, self.x[place.cells], outputs[place.outputs], flags, own, nll))
        self.raised = [outputs[raised] for raised in likelihood.raised]
        self.offset = self.x[layout.offset]

    def forward(self, x, noise):
        """Fill the decoder's outputs for the rows `x` (n, layout.width) and the `noise` (latent_dim, n)."""
        self.rows.copy_(x.t())
        if self.context is not None:
            self.context.copy_(self.inputs)
        for call in self.encode:
            call()
        self.z_logvar.clamp_(LOGVAR_MIN, LOGVAR_MAX)
        torch.mul(self.z_logvar, self.half, out=self.std).exp_()
        torch.mul(self.std, noise, out=self.shift)
        torch.add(self.z_mean, self.shift, out=self.z)
        for call in self.decode:
            call()

    def backward_likelihood(self, scale, total):
        """Overwrite the decoder's outputs by the gradient of the loss with respect to them."""
        for outputs in self.raised:
            outputs += self.offset
        for block, cells, outputs, flags, own, nll in self.blocks:
            mask = None if flags is None else self.x.index_select(0, flags)
            block.backward_(cells, outputs, mask, scale, total, own, nll)

    def backward(self, scale, beta):
        """Fill the gradients of all weights from that of the decoder's outputs."""
        for call in self.decode_back:
            call()
        # z = z_mean + shift, shift = z_std * noise, and KL = (z_mean^2 + z_std^2 - 1 - z_logvar) / 2, whose derivatives by
        # z_mean and z_logvar, z_mean and (z_std^2 - 1) / 2, come to stand side by side in `head`
        torch.addcmul(self.zero, self.z_mean_grad, self.shift, value=0.5, out=self.z_logvar_grad)
        minus_kl = torch.addcmul(self.z_logvar, self.z_mean, self.z_mean, value=-1, out=self.kl_cells)
        slope = torch.addcmul(self.minus_half, self.std, self.std, value=0.5, out=self.z_logvar)
        self.kl.addcmul_(minus_kl.sub_(slope, alpha=2), scale, value=-1)
        self.head_grad.addcmul_(self.head, scale * beta)
        for call in self.encode_back:
            call()

    def pop_totals(self):
        """Sums of -log p(x | z) and of KL over the rows since the last call, two floats in nats."""
        totals = [self.n * sum(float(nll.sum()) for nll in self.nll), self.n * float(self.kl.sum()) / 2]
        for total in (*self.nll, self.kl):
            total.zero_()
        return totals


def _flags(layout, parts, device):
    """Positions of the flags of `parts`, shape (n_parts,), that of the ones for parts without; None if none has one."""
    positions = [layout.width] * (parts.stop - parts.start)
    for k, i in enumerate(layout.flagged):
        if parts.start <= i < parts.stop:
            positions[i - parts.start] = layout.first_flag + k
    if positions == [layout.width] * len(positions):
        return None
    return torch.tensor(positions, device=device)


def _passes(activation, weights, weight_grads, inputs, outputs, outputs_grad, inputs_grad=None):
    """The passes through the layers of one network, up and down, as two lists of calls without arguments.

    Parameters
    ----------
    activation : Activation
    weights, weight_grads : list of tensor of shape (n_out, n_in + 1)
    inputs : tensor of shape (n_inputs + 1, n)
        With a last row of ones.
    outputs, outputs_grad : tensor of shape (n_outputs, n)
        What the way up fills and the way down starts from; they may be the same.
    inputs_grad : tensor of shape (k, n), default=None
        What the way down fills by the gradient at the first `k` inputs, if it is wanted.
    """
    n = inputs.shape[1]
    acts = [inputs.new_ones(len(w) + 1, n) for w in weights[:-1]]
    outs = [act[:-1] for act in acts]
    # relu and its like may overwrite what they read; others need their input for the derivative
    in_place = activation.derivative_from == "output"
    sums = outs if in_place else [torch.empty_like(out) for out in outs]
    grads = [torch.empty_like(out) for out in outs]
    belows, up, down = [inputs, *acts], [], []
    for w, below, at, out in zip(weights, belows, [*sums, outputs], [*outs, None], strict=True):
        up.append(product(w, below, at))
        if out is not None:
            up.append(functools.partial(activation.forward, at, out=out))
    layers = zip(
        weights, weight_grads, belows, [*grads, outputs_grad], [inputs_grad, *grads], [None, *sums], strict=True
    )
    for w, w_grad, below, grad, grad_below, saved in reversed(list(layers)):
        down.append(product(grad, below.t(), w_grad))
        if grad_below is not None:
            down.append(product(w[:, : len(grad_below)].t(), grad, grad_below))
        if saved is not None:
            down.append(functools.partial(activation.backward, grad_below, saved))
    return up, down
