"""The UNet as an expert with weights of its own."""

from typing import Literal

from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.shapes import Images, LogSnr
from moeframe_builtin.networks.unet import HoldsUNet, UNet, UNetSettings


class UNetExpert(Expert, HoldsUNet):
    """UNet with noise-level modulation and optional attention; predicts noise, velocity, image or EDM's F."""

    class Config(UNetSettings, Expert.Config):
        type: Literal["unet"] = "unet"

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        self.network = UNet(config, image)

    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """Velocity from the network's native prediction."""
        return self.network.velocity(self.network(self.network.native_input(z, log_snr), log_snr), z, log_snr)
