"""Posterior gate: how probable each slice is, given the noisy image.

For disjoint slices with exact experts the weights p(k | z, λ) make the merge the true denoiser, whatever the experts.
Finding them is classification, so the gate is trained, here or elsewhere, without evaluating an expert.
"""

import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from moeframe.errors import CheckpointError, DataError, InputError
from moeframe.interfaces.component import ImageShape, SpecFacts
from moeframe.interfaces.gate import Routing
from moeframe_builtin.gates.encoder import EncoderConfig, EncoderGate

TAKES = "noisy images (n, channels, height, width) and their log-SNR (n,), float32, and returns (n, experts) logits"


class PosteriorGate(EncoderGate):
    """p(k | z, λ) by a slice classifier on noisy images: trained here by `slice_alignment`, or read from a file."""

    class Config(EncoderConfig):
        type: Literal["posterior"] = "posterior"
        width: int = Field(default=64, ge=1, description="channels of the classifier's convolutions")
        hidden: int = Field(default=128, ge=1, description="width of its two-layer MLP")
        dropout: float = Field(default=0.0, ge=0, lt=1, description="in training only")
        classifier: Path | None = Field(
            default=None,
            description=f"a TorchScript module that takes {TAKES}; a program that is run, so name one that you trust; "
            "none: a classifier trained here",
        )
        temperature: float = Field(default=1.0, gt=0, description="the logits are divided by it; 1 is the posterior")

        @property
        def programs(self) -> Mapping[str, Path]:
            """The classifier: TorchScript is a program."""
            return {} if self.classifier is None else {"classifier": self.classifier}

        @property
        def network_settings(self) -> Mapping[str, Any]:
            """The file that holds the classifier, or the size of the one trained here."""
            own = super().network_settings if self.classifier is None else {}
            return {**own, "classifier": self.classifier}

        def conflicts(self, facts: SpecFacts) -> Iterator[tuple[str, str]]:
            """Report a classifier that is not trained, or reads something else."""
            yield from super().conflicts(facts)
            if self.classifier is not None and self.reads == "trunk":
                yield "reads", "the classifier of a file reads noisy images; set reads: image, or leave classifier out"
            if self.classifier is None and facts.training_steps == 0:
                yield (
                    "classifier",
                    "no classifier is given and none is trained, so the weights would be uniform; name a file, or set "
                    "training: {trainable: gate, steps: ...} with objective: [{type: slice_alignment}]",
                )

    config: Config

    def __init__(self, config: Config, *, image: ImageShape, n_experts: int):
        super().__init__(config, image=image, n_experts=n_experts)
        if config.classifier is not None:
            self.encoder = _read(config.classifier)
            _check(self.encoder, image, n_experts, config.classifier)

    def train(self, mode: bool = True) -> "PosteriorGate":
        """Keep a classifier that was read in evaluation mode."""
        super().train(mode)
        if self.config.classifier is not None:
            self.encoder.eval()
        return self

    def decide(self, logits: Float[Tensor, "batch experts"]) -> Routing:
        """softmax of logits / temperature."""
        return super().decide(logits / self.config.temperature)


def _read(path: Path) -> Any:
    """The classifier. Raises DataError if the file is missing, CheckpointError if it is something else."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; 'classifier' names a TorchScript module that takes {TAKES}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch discourages TorchScript in some versions
            module = torch.jit.load(io.BytesIO(path.read_bytes()))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().split("\n")[0][:200]
        raise CheckpointError(f"{path}: is not a TorchScript module ({first}); save it with torch.jit.save") from None
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval()


@torch.no_grad()
def _check(module: Any, image: ImageShape, n_experts: int, path: Path) -> None:
    """Raise InputError, before anything is measured, if the classifier does not fit the images or experts."""
    z, log_snr = torch.zeros(2, *image.tensor_shape), torch.tensor([-1.0, 1.0])
    try:
        logits = module(z, log_snr)
    except (RuntimeError, torch.jit.Error) as error:
        last = str(error).strip().split("\n")[-1][:200]
        raise InputError(f"{path}: the classifier fails on images of this run: {last}; it is given {TAKES}") from None
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, n_experts):
        raise InputError(
            f"{path}: the classifier returns {found} for 2 images and {n_experts} experts, not (2, {n_experts}); it is "
            f"given {TAKES}"
        )
