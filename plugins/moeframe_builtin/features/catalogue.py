"""The feature spaces by the name that selects them in a spec."""

from collections.abc import Mapping
from typing import Literal

from moeframe_builtin.features.dinov2 import DinoV2
from moeframe_builtin.features.efficientnet import EfficientNetLite0
from moeframe_builtin.features.inception import Inception
from moeframe_builtin.features.python_module import PythonModule
from moeframe_builtin.features.space import FeatureSpace
from moeframe_builtin.features.torchscript import TorchScript

SpaceName = Literal["inception", "efficientnet_lite0", "dinov2", "torchscript", "module"]

SPACES: Mapping[SpaceName, type[FeatureSpace]] = {
    "inception": Inception,
    "efficientnet_lite0": EfficientNetLite0,
    "dinov2": DinoV2,
    "torchscript": TorchScript,
    "module": PythonModule,
}
