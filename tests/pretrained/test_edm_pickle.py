"""Pickles of EDM: nothing in them runs, and what is missing or broken is named."""

import collections
import math
import os
import pickle
import sys

import pytest
import torch
from edm_experts import expert, problem
from official_edm import DDPMPP, network, song_tensors, write_edm, write_snapshot

from moeframe.interfaces.component import ImageShape

ALTERED = "; it belongs to another network or was altered; download it again"


# what could run code

EVENTS: list[str] = []
LISTENING: list[bool] = []
TELLING = ("exec", "compile", "import", "pickle.find_class", "os.", "subprocess.", "object.__", "marshal.", "ctypes.")


def listen(event, arguments):
    if LISTENING and event.startswith(TELLING):
        EVENTS.append(f"{event} {arguments[0] if arguments else ''}")


@pytest.fixture(scope="module")
def audited():
    """An audit hook stays for the life of the process; it is added once and listens when told."""
    sys.addaudithook(listen)


def test_the_audit_hears_what_pickle_itself_would_do(audited, tmp_path):
    LISTENING.append(True)
    try:
        with pytest.raises(ModuleNotFoundError):
            pickle.loads(write_edm(tmp_path / "edm.pkl").read_bytes())
    finally:
        LISTENING.clear()
    assert "pickle.find_class torch_utils.persistence" in EVENTS


def test_nothing_in_the_pickle_runs_and_no_module_of_its_is_imported(audited, tmp_path):
    trace = tmp_path / "trace"
    path = write_edm(tmp_path / "edm.pkl", source=f"open({str(trace)!r}, 'w').close()")
    assert str(trace).encode() in path.read_bytes()
    expert(path)  # what torch itself imports late, it has then imported
    EVENTS.clear()
    LISTENING.append(True)
    try:
        expert(path)
    finally:
        LISTENING.clear()
    assert EVENTS == []
    assert not trace.exists()
    assert not {"torch_utils", "dnnlib"} & {name.split(".")[0] for name in sys.modules}


class Call:
    """Pickled, it calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", ["ema", "attribute", "tensor"])
def test_a_call_of_os_system_is_refused_and_not_made(tmp_path, place):
    trace = tmp_path / "trace"
    call, snapshot = Call(os.system, f"touch {trace}"), network(song_tensors(DDPMPP), DDPMPP)
    if place == "attribute":
        snapshot.meta["state"]["sigma_data"] = call
    if place == "tensor":
        snapshot.meta["state"]["_parameters"] = {"weight": call}
    path = write_snapshot(tmp_path / "evil.pkl", call if place == "ema" else snapshot)
    assert problem(path) == (
        f"{path} is refused: its pickle uses {os.name}.system, which no EDM network needs and which could run "
        "code; do not trust its source, and download it again from the official one"
    )
    assert not trace.exists()


def legacy_storage(value) -> bytes:
    """What torch.storage._load_from_bytes is given, with a value of one's choice for the storage."""
    return b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {}, value, []))


def asks_storage(raw: bytes) -> bytes:
    return b"ctorch.storage\n_load_from_bytes\n(" + b"B" + len(raw).to_bytes(4, "little") + raw + b"tR."


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"ctorch.nn.modules.module\nos.system\n.", "torch.nn.modules.module.os.system"),
        (b"ctorch.nn.modules.utils.os\nsystem\n.", "torch.nn.modules.utils.os.system"),
        (b"\x80\x04\x8c\x07dnnlib.\x8c\x04util\x93.", "dnnlib..util"),
        (b"ctorch_utils.persistence\n_src_to_module\n.", "torch_utils.persistence._src_to_module"),
        (b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n(}tR.", "an object that is described by no class"),
        (b"ctorch._utils\n_rebuild_parameter\n}(V__call__\nK\x01ub.", "a change of torch._utils._rebuild_parameter"),
        (b"ctorch._utils\n_rebuild_parameter\n(K\x01tR.", "a parameter that is not a tensor"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01tK\x01K\x01K\x01tR.", "is truncated or not a pickle"),
        (
            asks_storage(legacy_storage(Call(os.system, "true"))),
            "a storage that torch's reading of weights alone refuses",
        ),
        (asks_storage(b"nonsense"), "a storage that torch's reading of weights alone refuses or cannot read"),
        (asks_storage(legacy_storage({})), "a storage that is a dict"),
    ],
)
def test_every_name_but_those_of_a_network_is_refused(tmp_path, content, named):
    path = tmp_path / "evil.pkl"
    path.write_bytes(content)
    message = problem(path)
    assert message.startswith(str(path))
    assert named in message


def test_a_class_of_torch_cannot_be_changed_by_the_pickle(tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"ctorch.nn.modules.conv\nConv2d\n}(V__call__\nK\x01ub.")
    assert "is truncated or not a pickle of EDM (TypeError" in problem(path)
    assert torch.nn.Conv2d.__call__ is torch.nn.Module.__call__


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path):
    storage = pickle.dumps(torch.zeros(4), protocol=3)
    huge = storage.replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85", 1)
    assert huge != storage
    path = tmp_path / "evil.pkl"
    path.write_bytes(huge)
    assert "its pickle uses a tensor larger than its storage, which" in problem(path)


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
    path = write_edm(tmp_path / "edm.pkl")
    path.write_bytes(path.read_bytes()[:kept])
    message = problem(path)
    assert message.startswith(f"{path} is ")
    assert message.endswith("download it again") or "a storage that torch's reading of weights alone" in message


def test_a_missing_file_and_one_without_a_network_are_named(tmp_path):
    path = tmp_path / "edm.pkl"
    assert problem(path) == (f"{path} cannot be read (No such file or directory); set path to EDM's network-….pkl")
    for contents in ([1], {"ema": 1}, {"G_ema": collections.OrderedDict()}):
        path.write_bytes(pickle.dumps(contents))
        assert problem(path) == f"{path} is not a snapshot of EDM: it holds no network under 'ema'"


def with_tensors(path, change):
    tensors = song_tensors(DDPMPP)
    change(tensors)
    return write_snapshot(path, network(tensors, DDPMPP))


def test_missing_tensors_are_listed(tmp_path):
    def forget(tensors):
        for name in [name for name in tensors if name.startswith("dec.8x8_up")]:
            del tensors[name]

    path = with_tensors(tmp_path / "edm.pkl", forget)
    parts = ("affine.bias", "affine.weight", "conv0.bias", "conv0.resample_filter", "conv0.weight")
    names = ", ".join(f"dec.8x8_up.{part}" for part in parts)
    assert problem(path) == f"{path}: does not fit the network; tensors missing: {names} and 9 more{ALTERED}"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("enc.8x8_more.weight", torch.zeros(2), "does not fit the network; tensors unexpected: enc.8x8_more.weight"),
        (
            "map_layer0.bias",
            torch.zeros(3),
            "does not fit the network; tensors of another shape: map_layer0.bias [3] for [16]",
        ),
        ("map_layer0.bias", torch.full((16,), math.nan), "tensors with infinite or NaN values: map_layer0.bias"),
        ("map_layer0.bias", torch.full((16,), -math.inf), "tensors with infinite or NaN values: map_layer0.bias"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, name, value, complaint):
    path = with_tensors(tmp_path / "edm.pkl", lambda tensors: tensors.update({name: value}))
    assert problem(path) == f"{path}: {complaint}{ALTERED}"


@pytest.mark.parametrize("image", [ImageShape(1, 8, 8, 256), ImageShape(3, 16, 16, 256), ImageShape(3, 8, 16, 256)])
def test_images_of_another_shape_are_refused(tmp_path, image):
    path = write_edm(tmp_path / "edm.pkl")
    assert problem(path, image) == (
        f"{path} is a network for images of 3 channels and 8x8 pixels, not of the data's "
        f"{image.channels} channels and {image.height}x{image.width}"
    )


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"preconditioning": "VPPrecond"},
            "holds a network preconditioned by VPPrecond; moeframe reads only EDMPrecond",
        ),
        (
            {"unet": "Precond2UNet"},
            "holds a network of class Precond2UNet; moeframe has SongUNet and DhariwalUNet alone",
        ),
        ({"sigma_data": "half"}, "is not a network of EDM (ValidationError"),
    ],
)
def test_networks_of_another_kind_are_refused_by_name(tmp_path, settings, complaint):
    path = write_edm(tmp_path / "edm.pkl", **settings)
    assert problem(path).startswith(f"{path} {complaint}")


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        (
            {"encoder_type": "skip"},
            "holds a SongUNet that moeframe cannot build: encoder_type: Input should be 'standard' or 'residual'",
        ),
        ({"heads": 4}, "holds a SongUNet that moeframe cannot build: heads: Extra inputs are not permitted"),
        (
            {"model_channels": 10**9},
            "holds a SongUNet that moeframe cannot build: model_channels: Input should be less than or equal to 4096",
        ),
    ],
)
def test_layouts_that_moeframe_has_not_are_refused_with_the_argument(tmp_path, argument, complaint):
    path = write_snapshot(tmp_path / "edm.pkl", network(song_tensors(DDPMPP), {**DDPMPP, **argument}))
    assert problem(path) == f"{path} {complaint}"


def test_a_layout_that_no_memory_holds_is_refused(tmp_path):
    arguments = {**DDPMPP, "model_channels": 4096, "channel_mult": [4096]}
    path = write_snapshot(tmp_path / "edm.pkl", network(song_tensors(DDPMPP), arguments))
    assert problem(path) == f"{path}: describes a network too large for this machine{ALTERED}"
