"""The network of the training benchmark as a plain PyTorch module, for all contestants that take one."""

import math
from itertools import pairwise

import torch
from torch import nn
from worker import layer_sizes


def mlp(sizes):
    """Linear layers with ReLU between them."""
    layers = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]


class PlainVAE(nn.Module):
    """Encoder, decoder and a learnt noise deviation per column; calling it gives the mean loss of a batch, in nats."""

    def __init__(self, job):
        super().__init__()
        encoder_sizes, decoder_sizes = layer_sizes(job)
        self.encoder, self.decoder = mlp(encoder_sizes), mlp(decoder_sizes)
        self.log_std = nn.Parameter(torch.zeros(job["columns"]))

    def forward(self, x):
        z_mean, z_logvar = self.encoder(x).chunk(2, dim=1)
        z = z_mean + torch.exp(0.5 * z_logvar) * torch.randn_like(z_mean)
        residual = (x - self.decoder(z)) * torch.exp(-self.log_std)
        nll = (0.5 * residual**2 + self.log_std + 0.5 * math.log(2 * math.pi)).sum(1)
        kl = 0.5 * (z_mean**2 + z_logvar.exp() - 1 - z_logvar).sum(1)
        return (nll + kl).mean()
