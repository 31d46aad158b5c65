"""Writes checkpoints of google-research/vdm as flax packs them; names, shapes and axes are told here again."""

import math
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

WIDTH, BLOCKS = 64, 2


def score_tree(
    *, channels: int = 3, attention: bool = False, fourier: bool = True, width: int = WIDTH, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """The parameters of a ScoreUNet with 2 blocks each way, with random values."""
    random = np.random.default_rng(seed)

    def values(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / math.sqrt(max(1, math.prod(shape[:-1])))).astype(np.float32)

    def dense(inputs: int, outputs: int) -> dict[str, Any]:
        return {"kernel": values(inputs, outputs), "bias": values(outputs)}

    def conv(inputs: int, outputs: int) -> dict[str, Any]:
        return {"kernel": values(3, 3, inputs, outputs), "bias": values(outputs)}

    def norm(size: int) -> dict[str, Any]:
        return {"scale": values(size), "bias": values(size)}

    def block(inputs: int) -> dict[str, Any]:
        tree = {
            "GroupNorm_0": norm(inputs),
            "conv1": conv(inputs, width),
            "cond_proj": {"kernel": values(4 * width, width)},
            "GroupNorm_1": norm(width),
            "conv2": conv(width, width),
        }
        return tree if inputs == width else {**tree, "nin_shortcut": dense(inputs, width)}

    def attn() -> dict[str, Any]:
        return {"GroupNorm_0": norm(width), **{name: dense(width, width) for name in ("q", "k", "v", "proj_out")}}

    tree = {
        "dense0": dense(width + 1, 4 * width),
        "dense1": dense(4 * width, 4 * width),
        "conv_in": conv(5 * channels if fourier else channels, width),
        "mid.block_1": block(width),
        "mid.attn_1": attn(),
        "mid.block_2": block(width),
        "GroupNorm_0": norm(width),
        "conv_out": conv(width, channels),
    }
    for way, inputs, count in (("down", width, BLOCKS), ("up", 2 * width, BLOCKS + 1)):
        for i in range(count):
            tree[f"{way}.block_{i}"] = block(inputs)
            if attention:
                tree[f"{way}.attn_{i}"] = attn()
    return tree


SCALAR_SCHEDULE = {"w": np.array([-18.0], np.float32), "b": np.array([-13.0], np.float32)}


def neural_schedule(seed: int = 0) -> dict[str, dict[str, Any]]:
    """The parameters of the monotone network γ(t)."""
    random = np.random.default_rng(seed)
    return {
        "l1": {"kernel": np.array([[17.0]], np.float32), "bias": np.array([-12.5], np.float32)},
        "l2": {"kernel": random.standard_normal((1, 1024)), "bias": random.standard_normal(1024)},
        "l3": {"kernel": random.standard_normal((1024, 1))},
    }


def _packed_array(array: np.ndarray) -> bytes:
    return msgpack.packb((array.shape, array.dtype.name, array.tobytes("C")), use_bin_type=True)


def _extension(value: Any) -> msgpack.ExtType:
    if isinstance(value, np.ndarray):
        return msgpack.ExtType(1, _packed_array(value))
    if isinstance(value, np.generic):
        return msgpack.ExtType(3, _packed_array(np.asarray(value)))
    if isinstance(value, complex):
        return msgpack.ExtType(2, msgpack.packb((value.real, value.imag)))
    raise TypeError(type(value))


def _chunked(tree: Any, largest: int) -> Any:
    """Arrays of more than `largest` values in flat chunks, as flax cuts those above a gigabyte."""
    if isinstance(tree, dict):
        return {name: _chunked(branch, largest) for name, branch in tree.items()}
    if not isinstance(tree, np.ndarray) or tree.size <= largest:
        return tree
    pieces = [tree.reshape(-1)[i : i + largest] for i in range(0, tree.size, largest)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): size for i, size in enumerate(tree.shape)},
        "chunks": {str(i): piece for i, piece in enumerate(pieces)},
    }


def write_state(path: Path, ema_params: Any, *, largest: int = 2**28) -> Path:
    """A training state; of its parameters and its optimizer's a token is enough."""
    state = {
        "step": 7,
        "params": {"score_model": {"dense0": {"bias": np.zeros(2, np.float32)}}},
        "ema_params": _chunked(ema_params, largest),
        "opt_state": {"0": {"count": np.int32(7)}, "1": {}},
    }
    path.write_bytes(msgpack.packb(state, default=_extension, strict_types=True))
    return path


def write_vdm(path: Path, *, gamma: Any = SCALAR_SCHEDULE, largest: int = 2**28, **settings: Any) -> Path:
    """A tiny network with random weights; a `gamma` of None is the fixed schedule, which has no parameters."""
    schedule = {} if gamma is None else {"gamma": gamma}
    return write_state(path, {"score_model": score_tree(**settings), **schedule}, largest=largest)
