"""skorch: a NeuralNet around the plain PyTorch module, with its own training loop and callbacks."""

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch_vae import PlainVAE
from worker import serve


class Tick(Callback):
    """Reports the end of each epoch."""

    def __init__(self, tick):
        self.tick = tick

    def on_epoch_end(self, net, **kwargs):
        self.tick()


class Net(NeuralNet):
    """The module returns its loss."""

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        return y_pred


def prepare(job, x):
    torch.set_num_threads(job["threads"])

    def fit(tick):
        Net(
            PlainVAE,
            criterion=torch.nn.Identity,
            module__job=job,
            optimizer=torch.optim.Adam,
            lr=job["rate"],
            batch_size=job["batch"],
            max_epochs=job["epochs"],
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
            callbacks=[Tick(tick)],
        ).fit(x, None)

    return fit


serve(prepare, "skorch")
