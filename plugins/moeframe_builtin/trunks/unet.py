"""The UNet as a trunk: its first layers run once per step, its later layers are shared, and adapted by each expert."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field, SerializeAsAny
from torch import Tensor, nn
from torch.func import functional_call

from moeframe.errors import InputError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.trunk import AdapterExpert, Trunk, TrunkFeatures
from moeframe.shapes import Images, LogSnr
from moeframe_builtin.networks.unet import Block, HoldsUNet, UNet, UNetSettings

EARLY = ("embed", "stem")


class UNetTrunk(Trunk):
    """UNet whose contracting layers are run once per step; upcycled from a pretrained expert where `base` names one."""

    PARTS: ClassVar[Mapping[str, str]] = {"base": "experts"}

    class Config(UNetSettings, Trunk.Config):
        type: Literal["unet"] = "unet"
        base: SerializeAsAny[Expert.Config] | None = Field(
            default=None,
            description="an expert that is a UNet, such as {type: run, path: ..., expert: 0}: its network becomes the "
            "trunk, and the settings of a network given here are not used",
        )
        depth: int | None = Field(
            default=None, ge=0, description="contracting layers in the trunk; all of them if not given"
        )
        frozen: bool = Field(default=False, description="train adapters and gate alone")

        def for_seed(self, seed: int) -> "UNetTrunk.Config":
            """The base for the seed."""
            return self if self.base is None else self.model_copy(update={"base": self.base.for_seed(seed)})

    config: Config

    def __init__(self, config: Config, *, image: ImageShape):
        super().__init__(config, image=image)
        self._origin: Mapping[str, str] = {}
        self.network = UNet(config, image) if config.base is None else self._upcycled(config.base, image)
        layers = len(self.network.contract)
        if config.depth is not None and config.depth > layers:
            raise InputError(f"trunk.depth: {config.depth} of {layers} contracting layers; give {layers} or fewer")
        self.depth = layers if config.depth is None else config.depth
        late = [f"contract.{i}." for i in range(self.depth, layers)] + ["middle.", "expand.", "head."]
        self._late = [
            name
            for name, parameter in self.network.named_parameters()
            if parameter.ndim > 1 and name.startswith(tuple(late))
        ]

    def _upcycled(self, base: Expert.Config, image: ImageShape) -> UNet:
        component = base.component
        assert issubclass(component, Expert)
        if issubclass(component, AdapterExpert):
            raise InputError(
                f"trunk.base: '{base.type}' changes a trunk and cannot be one; name an expert of type unet"
            )
        expert = component(base.for_copy(0), image=image)
        core = expert.core()
        if not isinstance(core, HoldsUNet):
            raise InputError(
                f"trunk.base: an expert of type '{core.name()}' is not a UNet of moeframe, whose layers this trunk "
                "shares; name an expert of type unet in an earlier run, {type: run, path: ..., expert: 0}"
            )
        self._origin = expert.provenance()
        return core.network

    @property
    def frozen(self) -> bool:
        """As the config says."""
        return self.config.frozen

    @property
    def summary_width(self) -> int:
        """Channels after the last layer of the trunk."""
        widths = [self.network.config.channels]
        for layer in self.network.contract[: self.depth]:
            widths.append(layer.outputs if isinstance(layer, Block) else widths[-1])
        return widths[-1]

    @property
    def adaptable(self) -> Mapping[str, Tensor]:
        """The convolutions and linear layers after the trunk."""
        return {name: self.network.get_parameter(name) for name in self._late}

    @property
    def block_widths(self) -> Sequence[int]:
        """Of the residual blocks after the trunk."""
        late = [*self.network.contract[self.depth :], self.network.middle, *self.network.expand]
        return [layer.outputs for layer in late if isinstance(layer, Block)]

    def standalone_config(self) -> Config:
        """The settings of the network in place of its base."""
        own = {name: getattr(self.network.config, name) for name in UNetSettings.model_fields}
        return self.config.model_copy(update={**own, "base": None})

    def provenance(self) -> Mapping[str, str]:
        """Of the base."""
        return self._origin

    def forward(self, z: Images, log_snr: LogSnr) -> TrunkFeatures:
        """The maps after the trunk, those of its skip connections and the embedding; a gate reads the spatial mean."""
        hidden, skips, embedding = self.network.begin(self.network.native_input(z, log_snr), log_snr, self.depth)
        return TrunkFeatures((embedding, *skips), hidden.mean((2, 3)))

    def finish(self, features: TrunkFeatures, adapter: AdapterExpert, z: Images, log_snr: LogSnr) -> Images:
        """The later layers, with the adapter's weights in place of its own."""
        embedding, *skips = features.tensors
        weights = self.adaptable
        changed = {name: adapter.changed(name, weight) for name, weight in weights.items()}
        used = {f"network.{name}": tensor for name, tensor in changed.items() if tensor is not weights[name]}
        arguments = (skips[-1], skips, embedding, adapter.after_block)
        # torch would recompute a layer after functional_call has put the trunk's own weights back
        output = functional_call(_Later(self.network, recompute=not used), used, arguments)
        return self.network.velocity(output, z, log_snr)


class _Later(nn.Module):
    """`UNet.finish` as a module's forward, for functional_call."""

    def __init__(self, network: UNet, *, recompute: bool):
        super().__init__()
        self.network, self.recompute = network, recompute

    def forward(self, *arguments: object) -> Images:
        output: Images = self.network.finish(*arguments, recompute=self.recompute)  # type: ignore[arg-type]
        return output
