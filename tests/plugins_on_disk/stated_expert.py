"""A plugin with an expert that needs no training: it is right at one log-SNR and worse the farther from it."""

from typing import Literal

import torch

from moeframe import hookimpl
from moeframe.testing import GaussianExpert

MOEFRAME_API = 1


class StatedExpert(GaussianExpert):
    """The Gaussian velocity plus 0.2 |λ - best_at|; its config states where it comes from."""

    class Config(GaussianExpert.Config):
        type: Literal["stated"] = "stated"
        best_at: float = 0.0
        licence: str = ""
        valid: tuple[float, float] = (-100.0, 100.0)
        sees_neighbours: bool = False

    def __init__(self, config, *, image):
        super().__init__(config, image=image)
        self.one = torch.nn.Parameter(torch.ones(()))

    @property
    def log_snr_range(self):
        return self.config.valid

    def provenance(self):
        return {"source": "a test", "licence": self.config.licence} if self.config.licence else {}

    def forward(self, z, log_snr):
        error = 0.2 * (log_snr - self.config.best_at).abs()
        velocity = super().forward(z, log_snr) * self.one + error.view(-1, 1, 1, 1).to(z)
        return velocity + z.mean(0, keepdim=True) if self.config.sees_neighbours else velocity


@hookimpl
def moeframe_experts():
    return [StatedExpert]
