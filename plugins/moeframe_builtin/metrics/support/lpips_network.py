"""The LPIPS network of the package `lpips`, its backbone read from a local file: nothing is downloaded.

The package's wheel holds the linear weights. The backbones are ImageNet classifiers that torchvision publishes, one
file each, whose name ends in the first eight digits of its SHA-256. A file with another hash may be used, but what it
measures is not called LPIPS.
"""

import hashlib
import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from moeframe.errors import UnavailableError
from moeframe.interfaces.component import ImageShape
from moeframe.interfaces.metric import Evaluation, Metric
from moeframe.shapes import Levels
from moeframe_builtin.features.space import shown


@dataclass(frozen=True)
class Backbone:
    """A classifier that LPIPS builds on."""

    name: str
    file: str
    smallest: int
    """Pixels of the shortest side below which its pooling leaves nothing; measured with lpips 0.1.4."""

    @property
    def hash_prefix(self) -> str:
        """The first digits of the published file's SHA-256, which torchvision writes into its name."""
        return Path(self.file).stem.rpartition("-")[2]


BACKBONES = {
    "alex": Backbone("AlexNet", "alexnet-owt-7be5be79.pth", 31),
    "squeeze": Backbone("SqueezeNet 1.1", "squeezenet1_1-b8a52dc0.pth", 17),
    "vgg": Backbone("VGG-16", "vgg16-397923af.pth", 16),
}
_SOURCE = "https://download.pytorch.org/models/"


class LpipsConfig(Metric.Config):
    """The LPIPS network and its backbone file."""

    net: Literal["alex", "vgg", "squeeze"] = Field(
        default="alex", description="backbone; values of two backbones are not comparable"
    )
    weights: Path | None = Field(
        default=None,
        description="backbone weights as torchvision publishes them; torch's own folder of downloads if not given",
    )
    batch_size: int = Field(default=32, ge=1, description="pairs of images at a time")


@dataclass(frozen=True)
class LpipsNetwork:
    """A loaded network: the unit that its distances are given in, and how they are computed."""

    module: nn.Module
    unit: str
    how: dict[str, Any]
    batch_size: int
    device: torch.device
    n_levels: int

    @torch.no_grad()
    def distances(self, first: Levels, second: Levels) -> list[float]:
        """The distance of each pair of images; zero for equal ones."""
        found: list[float] = []
        # a GPU would else round convolutions to the 10 bits of TF32
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            for start in range(0, len(first), self.batch_size):
                chosen = slice(start, start + self.batch_size)
                inputs = (lpips_input(levels[chosen].to(self.device), self.n_levels) for levels in (first, second))
                found += self.module(*inputs).flatten().double().tolist()
        return found


def lpips_input(levels: Levels, n_levels: int) -> Float[Tensor, "batch 3 height width"]:
    """Integer levels as LPIPS wants them: RGB from -1 to 1, both included; grey is repeated.

    >>> lpips_input(torch.tensor([[[[0, 255]]]]), 256)[0, :, 0].tolist()
    [[-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]]
    """
    return (2 * levels.float() / (n_levels - 1) - 1).expand(-1, 3, -1, -1)


def why_unavailable(config: LpipsConfig) -> str | None:
    """The package or the file that is missing and what to do, or None; reads no weights and loads no network."""
    if importlib.util.find_spec("lpips") is None:
        return "lpips not installed; pip install 'moeframe[quality]'"
    path = _weights_path(config)
    if path.is_file():
        return None
    backbone = BACKBONES[config.net]
    if config.weights is not None:
        return f"weights: {path} is not a file; give {backbone.file} from {_SOURCE}{backbone.file}"
    return (
        f"LPIPS needs the {backbone.name} weights {backbone.file}, which are not at {shown(path)}; download "
        f"{_SOURCE}{backbone.file}, put it there or set `weights` to where it is (nothing is downloaded for you)"
    )


def lpips_network(evaluation: Evaluation, config: LpipsConfig) -> LpipsNetwork:
    """The network on the evaluation's device, loaded once for all metrics.

    Raises UnavailableError for images that the backbone cannot take and, with its hash, for a file of something else.
    """
    _require_image(evaluation.image, config.net)
    path = _weights_path(config)
    module, how = evaluation.once(("lpips", config.net, path), lambda: _load(config, path))
    published = how["backbone_published"]
    return LpipsNetwork(
        module=module.to(evaluation.device),
        unit="LPIPS" if published else "LPIPS with unpublished weights",
        how=how,
        batch_size=config.batch_size,
        device=evaluation.device,
        n_levels=evaluation.image.levels,
    )


def _weights_path(config: LpipsConfig) -> Path:
    if config.weights is not None:
        return config.weights.expanduser()
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[config.net].file


def _require_image(image: ImageShape, net: str) -> None:
    if image.channels not in (1, 3):
        raise UnavailableError(f"LPIPS takes grey or RGB images, not {image.channels} channels; leave the metric out")
    side, smallest = min(image.height, image.width), BACKBONES[net].smallest
    if side < smallest:
        fitting = [f"{name} ({other.smallest})" for name, other in BACKBONES.items() if other.smallest <= side]
        raise UnavailableError(
            f"net {net} takes images of at least {smallest} pixels a side, and these have {side}; "
            + (f"set net to {' or '.join(fitting)}" if fitting else "no LPIPS network takes them: leave the metric out")
        )


def _load(config: LpipsConfig, path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """(network, how) with the linear weights of the package and the backbone in `path`."""
    import lpips

    backbone = BACKBONES[config.net]
    linear_path = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{config.net}.pth"
    digest = _sha256(path)
    published = digest.startswith(backbone.hash_prefix)
    if config.weights is None and not published:
        raise UnavailableError(
            f"{path} has SHA-256 {digest}, which does not begin with {backbone.hash_prefix} as the published file's: "
            "delete it and download it again, or name it in `weights` to use it as it is"
        )
    # On meta, since the package draws random weights for the whole classifier only to replace or drop them.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchvision")  # the package selects a network in a deprecated way
        module = lpips.LPIPS(net=config.net, pretrained=False, pnet_rand=True, verbose=False)
    linear = torch.load(linear_path, map_location="cpu", weights_only=True)
    wanted = {name for name in module.state_dict() if name.startswith("net.")}
    given = _read(path, digest, backbone)
    misfits = [name for name in sorted(wanted) if not _fits(module, name, given.get(_published_name(name)))]
    if misfits:
        raise UnavailableError(
            f"{path} (SHA-256 {digest}) does not hold the weights of {backbone.name}: {_published_name(misfits[0])} is "
            f"missing or of another shape; give {backbone.file} from {_SOURCE}{backbone.file}"
        )
    weights = {name: given[_published_name(name)].float() for name in wanted}
    module.load_state_dict({**linear, **weights}, strict=False, assign=True)
    assert not any(tensor.is_meta for tensor in module.state_dict().values()), "a part of LPIPS was not loaded"
    return module.eval(), {
        "network": f"LPIPS 0.1 of the package lpips, net {config.net} ({backbone.name})",
        "backbone_weights": f"the published {backbone.file}"
        if published
        else "backbone weights are not the published ones: these values are not LPIPS",
        "backbone_published": published,
        "backbone_sha256": digest,
        "linear_sha256": _sha256(linear_path),
        "preprocessing": "level / (levels - 1) * 2 - 1, so from -1 to 1; grey repeated to RGB; no resize",
    }


def _read(path: Path, digest: str, backbone: Backbone) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise UnavailableError(
            f"{path} (SHA-256 {digest}) is not a file of weights ({type(error).__name__}); "
            f"give {backbone.file} from {_SOURCE}{backbone.file}"
        ) from error
    return content if isinstance(content, dict) else {}


def _published_name(name: str) -> str:
    """torchvision's name of a weight of the package's network.

    >>> _published_name("net.slice2.3.squeeze.weight")
    'features.3.squeeze.weight'
    """
    return f"features.{name.split('.', 2)[2]}"


def _fits(module: nn.Module, name: str, weight: object) -> bool:
    return isinstance(weight, Tensor) and weight.shape == module.state_dict()[name].shape


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
