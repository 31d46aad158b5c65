"""The components that moeframe comes with, registered through the same entry point and hooks as any plugin."""

from moeframe.interfaces.dataset import Dataset
from moeframe.interfaces.expert import Expert
from moeframe.interfaces.gate import Gate
from moeframe.interfaces.launcher import Launcher
from moeframe.interfaces.loss import Loss
from moeframe.interfaces.metric import Metric
from moeframe.interfaces.sampler import Sampler
from moeframe.interfaces.schedule import NoiseSchedule
from moeframe.interfaces.slicer import Slicer
from moeframe.interfaces.trunk import Trunk
from moeframe.plugin.hookspecs import hookimpl
from moeframe_builtin.datasets.celeba_hq import CelebAHq
from moeframe_builtin.datasets.cifar10 import Cifar10
from moeframe_builtin.datasets.digits import Digits
from moeframe_builtin.datasets.fashion_mnist import FashionMnist
from moeframe_builtin.datasets.gaussian import Gaussian
from moeframe_builtin.datasets.image_folder import ImageFolder
from moeframe_builtin.datasets.lsun_church import LsunChurch
from moeframe_builtin.datasets.photo_patches import PhotoPatches
from moeframe_builtin.experts.average import AverageExpert
from moeframe_builtin.experts.bottleneck import BottleneckExpert
from moeframe_builtin.experts.lora import LoraExpert
from moeframe_builtin.experts.slerp import SlerpExpert
from moeframe_builtin.experts.task_arithmetic import TaskArithmeticExpert
from moeframe_builtin.experts.unet import UNetExpert
from moeframe_builtin.gates.fixed import FixedGate
from moeframe_builtin.gates.posterior import PosteriorGate
from moeframe_builtin.gates.random import RandomGate
from moeframe_builtin.gates.softmax import SoftmaxGate
from moeframe_builtin.gates.switch import SwitchGate
from moeframe_builtin.gates.top_k import TopKGate
from moeframe_builtin.gates.uniform import UniformGate
from moeframe_builtin.launchers.local import LocalLauncher
from moeframe_builtin.losses.entropy import EntropyLoss
from moeframe_builtin.losses.load_balance import LoadBalanceLoss
from moeframe_builtin.losses.mutual_info import MutualInfoLoss
from moeframe_builtin.losses.nll import NllLoss
from moeframe_builtin.losses.slice_alignment import SliceAlignmentLoss
from moeframe_builtin.metrics.bits_per_dim import BitsPerDimMetric
from moeframe_builtin.metrics.diversity import DiversityMetric
from moeframe_builtin.metrics.fid import FidMetric
from moeframe_builtin.metrics.flops import FlopsMetric
from moeframe_builtin.metrics.frechet import FrechetMetric
from moeframe_builtin.metrics.inception_score import InceptionScoreMetric
from moeframe_builtin.metrics.kid import KidMetric
from moeframe_builtin.metrics.latency import LatencyMetric
from moeframe_builtin.metrics.lpips import LpipsMetric
from moeframe_builtin.metrics.network_calls import NetworkCallsMetric
from moeframe_builtin.metrics.parameters import ParametersMetric
from moeframe_builtin.metrics.peak_memory import PeakMemoryMetric
from moeframe_builtin.metrics.precision import PrecisionMetric
from moeframe_builtin.metrics.psnr import PsnrMetric
from moeframe_builtin.metrics.recall import RecallMetric
from moeframe_builtin.metrics.ssim import SsimMetric
from moeframe_builtin.samplers.ancestral import AncestralSampler
from moeframe_builtin.samplers.ddim import DdimSampler
from moeframe_builtin.samplers.heun import HeunSampler
from moeframe_builtin.schedules.cosine import CosineSchedule
from moeframe_builtin.schedules.ddpm import DdpmSchedule
from moeframe_builtin.schedules.edm import EdmSchedule
from moeframe_builtin.schedules.linear import LinearSchedule
from moeframe_builtin.slicers.attribute import Attribute
from moeframe_builtin.slicers.class_group import ClassGroup
from moeframe_builtin.slicers.color_variance import ColorVariance
from moeframe_builtin.slicers.lighting import Lighting
from moeframe_builtin.slicers.product import Product
from moeframe_builtin.slicers.semantic import Semantic
from moeframe_builtin.slicers.texture import Texture
from moeframe_builtin.trunks.unet import UNetTrunk

MOEFRAME_API = 1


@hookimpl
def moeframe_datasets() -> list[type[Dataset]]:
    """Datasets. Nothing is downloaded: those that are not in a wheel read the files of their official source."""
    return [CelebAHq, Cifar10, Digits, FashionMnist, Gaussian, ImageFolder, LsunChurch, PhotoPatches]


@hookimpl
def moeframe_slicers() -> list[type[Slicer]]:
    """Slices by class, by attribute, by a feature of the pixels and by similarity, and combinations of them."""
    return [Attribute, ClassGroup, ColorVariance, Lighting, Product, Semantic, Texture]


@hookimpl
def moeframe_experts() -> list[type[Expert]]:
    """The UNet, adapters of a trunk, and networks whose weights are merged from those of others."""
    return [AverageExpert, BottleneckExpert, LoraExpert, SlerpExpert, TaskArithmeticExpert, UNetExpert]


@hookimpl
def moeframe_trunks() -> list[type[Trunk]]:
    """The UNet, of its own or of a pretrained expert."""
    return [UNetTrunk]


@hookimpl
def moeframe_gates() -> list[type[Gate]]:
    """Soft and sparse gates that learn, and gates without parameters."""
    return [FixedGate, PosteriorGate, RandomGate, SoftmaxGate, SwitchGate, TopKGate, UniformGate]


@hookimpl
def moeframe_losses() -> list[type[Loss]]:
    """The terms of the regularised objective."""
    return [EntropyLoss, LoadBalanceLoss, MutualInfoLoss, NllLoss, SliceAlignmentLoss]


@hookimpl
def moeframe_schedules() -> list[type[NoiseSchedule]]:
    """Noise schedules of the literature."""
    return [CosineSchedule, DdpmSchedule, EdmSchedule, LinearSchedule]


@hookimpl
def moeframe_samplers() -> list[type[Sampler]]:
    """Stochastic, and deterministic of first and second order."""
    return [AncestralSampler, DdimSampler, HeunSampler]


@hookimpl
def moeframe_metrics() -> list[type[Metric]]:
    """Likelihood, quality and cost."""
    return [
        BitsPerDimMetric,
        DiversityMetric,
        FlopsMetric,
        FidMetric,
        FrechetMetric,
        InceptionScoreMetric,
        KidMetric,
        LatencyMetric,
        LpipsMetric,
        NetworkCallsMetric,
        ParametersMetric,
        PeakMemoryMetric,
        PrecisionMetric,
        PsnrMetric,
        RecallMetric,
        SsimMetric,
    ]


@hookimpl
def moeframe_launchers() -> list[type[Launcher]]:
    """This machine."""
    return [LocalLauncher]
