"""JAX: the whole epoch compiled, ``jit`` around ``scan`` over its batches; Adam written out."""

import functools
import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from worker import layer_sizes, serve


def initial(sizes, rng):
    """Pairs (weight, bias)."""
    return [
        (rng.uniform(-1, 1, (n_in, n_out)).astype("f4") * math.sqrt(6 / (n_in + n_out)), np.zeros(n_out, "f4"))
        for n_in, n_out in pairwise(sizes)
    ]


def mlp(layers, x):
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def loss(params, x, noise):
    z_mean, z_logvar = jnp.split(mlp(params["encoder"], x), 2, axis=1)
    mean = mlp(params["decoder"], z_mean + jnp.exp(0.5 * z_logvar) * noise)
    log_std = params["log_std"]
    nll = (0.5 * ((x - mean) * jnp.exp(-log_std)) ** 2 + log_std + 0.5 * math.log(2 * math.pi)).sum(1)
    kl = 0.5 * (z_mean**2 + jnp.exp(z_logvar) - 1 - z_logvar).sum(1)
    return (nll + kl).mean()


def adam_step(rate, state, batch):
    params, m, v, t = state
    value, grads = jax.value_and_grad(loss)(params, *batch)
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    size = rate * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    params = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) + 1e-8), params, m, v)
    return (params, m, v, t), value


@functools.partial(jax.jit, static_argnames=("batch", "rate"), donate_argnums=0)
def epoch(state, x, order, noise, batch, rate):
    x = x[order].reshape(-1, batch, x.shape[1])
    return jax.lax.scan(functools.partial(adam_step, rate), state, (x, noise.reshape(*x.shape[:2], -1)))


def prepare(job, x):
    encoder_sizes, decoder_sizes = layer_sizes(job)

    def fit(tick):
        rng = np.random.default_rng(0)
        params = {"encoder": initial(encoder_sizes, rng), "decoder": initial(decoder_sizes, rng)}
        params["log_std"] = np.zeros(job["columns"], "f4")
        params = jax.tree.map(jnp.array, params)
        zeros = functools.partial(jax.tree.map, jnp.zeros_like, params)
        state, data = (params, zeros(), zeros(), jnp.zeros((), jnp.int32)), jnp.array(x)
        for _ in range(job["epochs"]):
            noise = rng.standard_normal((len(x), job["latent"]), dtype=np.float32)
            state, values = epoch(state, data, rng.permutation(len(x)), noise, job["batch"], job["rate"])
            float(values.mean())
            tick()

    return fit


serve(prepare, "jax")
