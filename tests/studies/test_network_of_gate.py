"""Which settings of a gate shape its network is said by the gate: weights go to a gate of equal ones only."""

from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from small_study import changed

from moeframe import hookimpl
from moeframe.errors import SpecError
from moeframe.interfaces.gate import Gate
from moeframe.plugin.discovery import installed_entry_points
from moeframe.plugin.registry import Registry
from moeframe.studies.study_file import load_study


class WindowGate(Gate):
    """Has no weights: its `width` is a span of log-SNR."""

    LEARNS = False

    class Config(Gate.Config):
        type: Literal["window"] = "window"
        width: float = 1.0

    def forward(self, z, log_snr):
        first = (log_snr.abs() < self.config.width).float()
        return torch.stack([first, 1 - first], 1)


class LinearGate(Gate):
    """Learns; `features` shapes its weights, `slope` does not."""

    class Config(Gate.Config):
        type: Literal["linear_gate"] = "linear_gate"
        features: int = 3
        slope: float = 1.0

        @property
        def network_settings(self):
            return {"features": self.features}

    def forward(self, z, log_snr):
        return torch.full((len(z), self.n_experts), 1 / self.n_experts)


@pytest.fixture
def with_stranger():
    """What is installed, and a stranger's two gates."""
    plugin = SimpleNamespace(moeframe_gates=hookimpl(lambda: [WindowGate, LinearGate], specname="moeframe_gates"))
    distribution = SimpleNamespace(name="stranger", version="1.0")
    point = SimpleNamespace(name="stranger", dist=distribution, load=lambda: plugin)
    return Registry.installed([*installed_entry_points(), point])


def two_variants(study_file, first, second):
    return changed(
        study_file,
        variants={"soft": {"set": {"gate": first}}, "x": {"weights_of": "soft", "set": {"gate": second}}},
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"type": "window", "width": 1.0}, {"type": "window", "width": 9.0}),
        ({"type": "softmax", "width": 4}, {"type": "window", "width": 9.0}),
        ({"type": "linear_gate", "slope": 1.0}, {"type": "linear_gate", "slope": 2.0}),
        ({"type": "softmax", "width": 4, "dropout": 0.0}, {"type": "top_k", "width": 4, "dropout": 0.5}),
    ],
    ids=["window", "softmax-window", "slope", "dropout"],
)
def test_settings_that_shape_no_weights_may_differ(study_file, with_stranger, first, second):
    study = load_study(two_variants(study_file, first, second), with_stranger)
    assert study.variant("x").spec.gate.type == second["type"]


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ({"type": "linear_gate", "features": 3}, {"type": "linear_gate", "features": 4}, "features"),
        ({"type": "softmax", "width": 4}, {"type": "top_k", "width": 5}, "width"),
        ({"type": "softmax", "hidden": 4}, {"type": "softmax", "hidden": 5}, "hidden"),
        ({"type": "posterior"}, {"type": "posterior", "classifier": "of_file.pt"}, "classifier"),
    ],
    ids=["features", "width", "hidden", "classifier"],
)
def test_settings_that_shape_the_weights_must_be_equal(study_file, with_stranger, first, second, key):
    with pytest.raises(SpecError) as caught:
        load_study(two_variants(study_file, first, second), with_stranger)
    assert f"variants.x.set: gate.{key} differs from 'soft', whose weights it uses" in str(caught.value)
