"""A PyTorch loop as one writes it: rows picked by hand, or (with the argument ``dataloader``) through a DataLoader."""

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset
from torch_vae import PlainVAE
from worker import serve


def batches_by_hand(x, batch):
    """Once through the rows in random order."""
    return (x[rows] for rows in torch.randperm(len(x)).split(batch))


def batches_by_loader(x, batch):
    """Likewise, as most tutorials do it."""
    return (rows for (rows,) in DataLoader(TensorDataset(x), batch_size=batch, shuffle=True))


def prepare(job, x):
    torch.set_num_threads(job["threads"])
    batches = batches_by_loader if "dataloader" in sys.argv else batches_by_hand

    def fit(tick):
        data = torch.from_numpy(x)
        vae = PlainVAE(job)
        optimizer = torch.optim.Adam(vae.parameters(), lr=job["rate"])
        for _ in range(job["epochs"]):
            total = 0.0
            for rows in batches(data, job["batch"]):
                optimizer.zero_grad()
                loss = vae(rows)
                loss.backward()
                optimizer.step()
                total += loss.item()
            tick()

    return fit


serve(prepare, "torch")
