"""Writes EDM's snapshots as NVlabs' code pickles them: persistent objects that carry source code, tensors in storages.

The names and shapes of the tensors are told here again, apart from the network that reads them.
"""

import math
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

DDPMPP = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "label_dim": 0,
    "augment_dim": 9,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "channel_mult_emb": 2,
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.13,
    "embedding_type": "positional",
    "encoder_type": "standard",
    "decoder_type": "standard",
    "channel_mult_noise": 1,
    "resample_filter": [1, 1],
}
NCSNPP = {
    **DDPMPP,
    "augment_dim": 0,
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}


ADM = {
    "img_resolution": 8,
    "in_channels": 3,
    "out_channels": 3,
    "label_dim": 5,
    "augment_dim": 0,
    "model_channels": 64,
    "channel_mult": [1, 2],
    "channel_mult_emb": 2,
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.1,
}


def adm_tensors(arguments: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Every tensor of a DhariwalUNet of two resolutions with one block each, with random values."""
    width, embedding = arguments["model_channels"], arguments["model_channels"] * arguments["channel_mult_emb"]
    large, small = arguments["img_resolution"], arguments["img_resolution"] // 2
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, outputs: int, *inputs: int) -> None:
        shapes[f"{name}.weight"] = (outputs, *inputs)
        shapes[f"{name}.bias"] = (outputs,)

    def block(name: str, inputs: int, outputs: int, *, resampled: bool = False, attention: bool = False) -> None:
        layer(f"{name}.norm0", inputs)
        layer(f"{name}.conv0", outputs, inputs, 3, 3)
        layer(f"{name}.affine", 2 * outputs, embedding)
        layer(f"{name}.norm1", outputs)
        layer(f"{name}.conv1", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.skip", outputs, inputs, 1, 1)
        for part in ("conv0", "skip") if resampled else ():
            shapes[f"{name}.{part}.resample_filter"] = ()
        if attention:
            layer(f"{name}.norm2", outputs)
            layer(f"{name}.qkv", 3 * outputs, outputs, 1, 1)
            layer(f"{name}.proj", outputs, outputs, 1, 1)

    layer("map_layer0", embedding, width)
    layer("map_layer1", embedding, embedding)
    if arguments["label_dim"]:
        shapes["map_label.weight"] = (embedding, arguments["label_dim"])
    layer(f"enc.{large}x{large}_conv", width, arguments["in_channels"], 3, 3)
    block(f"enc.{large}x{large}_block0", width, width)
    block(f"enc.{small}x{small}_down", width, width, resampled=True)
    block(f"enc.{small}x{small}_block0", width, 2 * width, attention=True)
    block(f"dec.{small}x{small}_in0", 2 * width, 2 * width, attention=True)
    block(f"dec.{small}x{small}_in1", 2 * width, 2 * width)
    block(f"dec.{small}x{small}_block0", 4 * width, 2 * width, attention=True)
    block(f"dec.{small}x{small}_block1", 3 * width, 2 * width, attention=True)
    block(f"dec.{large}x{large}_up", 2 * width, 2 * width, resampled=True)
    block(f"dec.{large}x{large}_block0", 3 * width, width)
    block(f"dec.{large}x{large}_block1", 2 * width, width)
    layer("out_norm", width)
    layer("out_conv", arguments["out_channels"], width, 3, 3)
    return _random(shapes, [1, 1], seed)


def song_tensors(arguments: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Every tensor of a SongUNet of two resolutions with one block each, with random values."""
    width, embedding = arguments["model_channels"], arguments["model_channels"] * arguments["channel_mult_emb"]
    noise, colours = width * arguments["channel_mult_noise"], arguments["in_channels"]
    large, small = arguments["img_resolution"], arguments["img_resolution"] // 2
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, outputs: int, *inputs: int) -> None:
        shapes[f"{name}.weight"] = (outputs, *inputs)
        shapes[f"{name}.bias"] = (outputs,)

    def block(name: str, inputs: int, outputs: int, *, resampled: bool = False, attention: bool = False) -> None:
        layer(f"{name}.norm0", inputs)
        layer(f"{name}.conv0", outputs, inputs, 3, 3)
        layer(f"{name}.affine", outputs, embedding)
        layer(f"{name}.norm1", outputs)
        layer(f"{name}.conv1", outputs, outputs, 3, 3)
        if resampled or inputs != outputs:
            layer(f"{name}.skip", outputs, inputs, 1, 1)
        for part in ("conv0", "skip") if resampled else ():
            shapes[f"{name}.{part}.resample_filter"] = ()
        if attention:
            layer(f"{name}.norm2", outputs)
            layer(f"{name}.qkv", 3 * outputs, outputs, 1, 1)
            layer(f"{name}.proj", outputs, outputs, 1, 1)

    if arguments["embedding_type"] == "fourier":
        shapes["map_noise.freqs"] = (noise // 2,)
    if arguments["augment_dim"]:
        shapes["map_augment.weight"] = (noise, arguments["augment_dim"])
    layer("map_layer0", embedding, noise)
    layer("map_layer1", embedding, embedding)
    layer(f"enc.{large}x{large}_conv", width, colours, 3, 3)
    block(f"enc.{large}x{large}_block0", width, width)
    block(f"enc.{small}x{small}_down", width, width, resampled=True)
    if arguments["encoder_type"] == "residual":
        layer(f"enc.{small}x{small}_aux_residual", width, colours, 3, 3)
        shapes[f"enc.{small}x{small}_aux_residual.resample_filter"] = ()
    block(f"enc.{small}x{small}_block0", width, 2 * width, attention=True)
    block(f"dec.{small}x{small}_in0", 2 * width, 2 * width, attention=True)
    block(f"dec.{small}x{small}_in1", 2 * width, 2 * width)
    block(f"dec.{small}x{small}_block0", 4 * width, 2 * width)
    block(f"dec.{small}x{small}_block1", 3 * width, 2 * width, attention=True)
    block(f"dec.{large}x{large}_up", 2 * width, 2 * width, resampled=True)
    block(f"dec.{large}x{large}_block0", 3 * width, width)
    block(f"dec.{large}x{large}_block1", 2 * width, width)
    layer(f"dec.{large}x{large}_aux_norm", width)
    layer(f"dec.{large}x{large}_aux_conv", colours, width, 3, 3)
    if arguments["label_dim"]:
        shapes["map_label.weight"] = (noise, arguments["label_dim"])
    return _random(shapes, arguments["resample_filter"], seed)


def _random(shapes: dict[str, tuple[int, ...]], taps: list[int], seed: int) -> dict[str, Tensor]:
    line = torch.tensor(taps, dtype=torch.float32)
    low_pass = (line[:, None] * line / line.sum() ** 2)[None, None]
    generator = torch.Generator().manual_seed(seed)
    return {
        name: low_pass.clone()
        if name.endswith("resample_filter")
        else torch.randn(shape, generator=generator) / math.sqrt(max(1, math.prod(shape[1:])))
        for name, shape in shapes.items()
    }


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("a name to pickle by; nobody calls it")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class EasyDict(dict):
    """A name to pickle by."""


EasyDict.__module__ = "dnnlib.util"


class Persistent:
    """Pickled as torch_utils.persistence pickles an object: its class's source code, its name and its state."""

    def __init__(self, class_name: str, source: str, **state: Any):
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reconstruct_persistent_obj, (self.meta,), None)


def network(
    tensors: dict[str, Tensor],
    arguments: dict[str, Any],
    *,
    source: str = "",
    unet: str = "SongUNet",
    preconditioning: str = "EDMPrecond",
    **settings: Any,
) -> Persistent:
    """EDM's preconditioned network as it lies under `ema`."""
    model = _module(unet, tensors, source, _init_args=(), _init_kwargs=arguments)
    settings = {"sigma_min": 0, "sigma_max": math.inf, "sigma_data": 0.5, **settings}
    return _persistent(preconditioning, source, {}, {}, {"model": model}, use_fp16=True, **settings)


def _module(class_name: str, tensors: dict[str, Tensor], source: str, **state: Any) -> Persistent:
    """A module with the tensors of these dotted names below it."""
    own = {name: tensor for name, tensor in tensors.items() if "." not in name}
    parameters = {
        name: nn.Parameter(tensor) for name, tensor in own.items() if name not in ("resample_filter", "freqs")
    }
    buffers = {name: tensor for name, tensor in own.items() if name in ("resample_filter", "freqs")}
    children: dict[str, Any] = {"map_noise": Persistent("PositionalEmbedding", source, **nn.Module().__dict__)}
    children = children if class_name in ("SongUNet", "DhariwalUNet") else {}
    for child in dict.fromkeys(name.split(".")[0] for name in tensors if "." in name):
        below = {name[len(child) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{child}.")}
        if child in ("enc", "dec"):
            blocks = dict.fromkeys(name.split(".")[0] for name in below)
            container = nn.ModuleDict()
            for block in blocks:
                parts = {name[len(block) + 1 :]: t for name, t in below.items() if name.startswith(f"{block}.")}
                container._modules[block] = _module("UNetBlock", parts, source)
            children[child] = container
        else:
            children[child] = _module("Conv2d", below, source)
    return _persistent(class_name, source, parameters, buffers, children, **state)


def _persistent(class_name: str, source: str, parameters: Any, buffers: Any, modules: Any, **state: Any) -> Persistent:
    registered = {"_parameters": dict(parameters), "_buffers": dict(buffers), "_modules": dict(modules)}
    return Persistent(class_name, source, **{**nn.Module().__dict__, **registered, **state})


def write_snapshot(path: Path, ema: Any, *, protocol: int = 4) -> Path:
    """network-snapshot-….pkl with what training keeps beside the network."""
    contents = {
        "ema": ema,
        "loss_fn": Persistent("EDMLoss", "", P_mean=-1.2, P_std=1.2, sigma_data=0.5),
        "augment_pipe": None,
        "dataset_kwargs": EasyDict(path="cifar10-32x32.zip", resolution=32),
    }
    persistence, util = ModuleType("torch_utils.persistence"), ModuleType("dnnlib.util")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util.EasyDict = EasyDict
    names = {persistence.__name__: persistence, util.__name__: util}
    names |= {name: ModuleType(name) for name in ("torch_utils", "dnnlib")}
    sys.modules.update(names)
    try:
        path.write_bytes(pickle.dumps(contents, protocol=protocol))
    finally:
        for name in names:
            del sys.modules[name]
    return path


def write_edm(path: Path, arguments: dict[str, Any] = DDPMPP, **settings: Any) -> Path:
    """A tiny network with random weights."""
    if "embedding_type" in arguments:
        return write_snapshot(path, network(song_tensors(arguments), arguments, **settings))
    return write_snapshot(path, network(adm_tensors(arguments), arguments, unet="DhariwalUNet", **settings))
