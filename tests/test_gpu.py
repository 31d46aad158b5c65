"""On a GPU: the same run, the same draws."""

from pathlib import Path

import pytest
import torch

import moeframe

SPEC = Path(__file__).parent.parent / "specs/digits.yaml"
TINY = (
    "experts.0.channels=4",
    "training.steps=4",
    "training.warm_start=0.5",
    "training.validation_images=8",
    "sampler.steps=3",
    "evaluation.diagnostic_images=16",
    "evaluation.samples_shown=4",
    "metrics=[{type: bits_per_dim, images: 16}, {type: latency}, {type: peak_memory}, {type: network_calls}]",
)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_and_cpu_agree_because_draws_do_not_depend_on_the_device(tmp_path):
    on = {
        device: moeframe.run(SPEC, overrides=(*TINY, f"device={device}"), out=tmp_path / device)
        for device in ("cpu", "cuda")
    }
    bits = [on[device].metrics["bits_per_dim"].mean for device in ("cpu", "cuda")]
    assert bits[1] == pytest.approx(bits[0], rel=1e-3)
    assert on["cuda"].metrics["peak_memory"].how["source"] == "torch.cuda.max_memory_allocated"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_offloaded_experts_give_the_same_samples_with_one_of_them_on_the_gpu(tmp_path):
    alone = ("experts.0.channels=64", "gate={type: random}", "training={trainable: none}", "sampler.steps=3")
    options = ("objective=[{type: nll}]", "metrics=[{type: peak_memory}]", "device=cuda", "slicer=null")
    found = {
        offload: moeframe.merge(
            SPEC, overrides=(*alone, *options, f"evaluation.offload={offload}"), out=tmp_path / offload
        )
        for offload in ("false", "true")
    }
    peaks = [found[offload].metrics["peak_memory"].mean for offload in ("false", "true")]
    assert peaks[1] < peaks[0]
    samples = [moeframe.load(tmp_path / offload).sample(4) for offload in ("false", "true")]
    assert torch.equal(*samples)
