"""pythae: its VAE with the benchmark's layers, trained by its pipeline (squared error, that is, unit noise)."""

import tempfile

import torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch_vae import mlp
from worker import layer_sizes, serve


class Encoder(BaseEncoder):
    def __init__(self, sizes):
        super().__init__()
        self.layers = mlp(sizes)

    def forward(self, x):
        z_mean, z_logvar = self.layers(x).chunk(2, dim=1)
        return ModelOutput(embedding=z_mean, log_covariance=z_logvar)


class Decoder(BaseDecoder):
    def __init__(self, sizes):
        super().__init__()
        self.layers = mlp(sizes)

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z))


class Tick(TrainingCallback):
    """Reports the end of each epoch."""

    def __init__(self, tick):
        self.tick = tick

    def on_epoch_end(self, training_config, **kwargs):
        self.tick()


def prepare(job, x):
    torch.set_num_threads(job["threads"])
    encoder_sizes, decoder_sizes = layer_sizes(job)

    def fit(tick):
        with tempfile.TemporaryDirectory() as folder:
            settings = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=job["epochs"],
                per_device_train_batch_size=job["batch"],
                learning_rate=job["rate"],
                no_cuda=True,
            )
            config = VAEConfig(input_dim=(job["columns"],), latent_dim=job["latent"], reconstruction_loss="mse")
            model = VAE(config, encoder=Encoder(encoder_sizes), decoder=Decoder(decoder_sizes))
            TrainingPipeline(model=model, training_config=settings)(train_data=x, callbacks=[Tick(tick)])

    return fit


serve(prepare, "pythae")
