"""An expert that holds one of moeframe's own, or a gate with several: what such experts share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeframe.errors import InputError
from moeframe.interfaces.expert import Expert, Jumps
from moeframe.model.mixture import MergedDenoiser
from moeframe.shapes import Images, LogSnr
from moeframe_pretrained.moeframe_runs.expert_folder import HoldsMixture
from moeframe_pretrained.pretrained import PretrainedExpert


class MixtureExpert(PretrainedExpert, HoldsMixture):
    """One expert, or a mixture as one expert; a final class says where it is read from."""

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """Where the expert is valid; for a mixture, where all experts are that neither clamp nor are excluded."""
        return _common_range(self.inner)

    @property
    def jumps(self) -> Jumps:
        """Those of the mixture."""
        return self.inner.jumps

    def provenance(self) -> Mapping[str, str]:
        """That of every pretrained expert, and that of the experts inside."""
        return {**super().provenance(), **_origins(self.inner)}

    def core(self) -> Expert:
        """The expert inside, where there is only one."""
        inside = _experts(self.inner)
        return inside[0].core() if len(inside) == 1 and self.inner.trunk is None else self

    def architecture(self) -> Mapping[str, Any]:
        """That of the experts and the gate inside, wherever they were read from."""
        gate = None if self.inner.gate is None else self.inner.gate.config.model_dump(mode="json")
        return {"experts": [expert.architecture() for expert in _experts(self.inner)], "gate": gate}

    def forward(self, z: Images, log_snr: LogSnr) -> Images:
        """Velocity of the expert, or the merged one."""
        velocity: Images = self.inner(z, log_snr).velocity
        return velocity


def require_deterministic_gate(mixture: MergedDenoiser, folder: Path) -> None:
    """Raise InputError for a gate that draws at random: an expert is a function of (z, λ) alone."""
    if mixture.gate is not None and mixture.gate.random:
        raise InputError(
            f"{folder}: its gate '{mixture.gate.name()}' draws at random, so the mixture cannot be an expert; "
            "name one of its experts, expert: 0"
        )


def _experts(mixture: MergedDenoiser) -> list[Expert]:
    return [expert for expert in mixture.experts if isinstance(expert, Expert)]


def _common_range(mixture: MergedDenoiser) -> tuple[float, float]:
    experts = _experts(mixture)
    needed = [expert.log_snr_range for expert in experts if expert.config.outside == "error"]
    if needed or len(experts) == 1:
        lows, highs = zip(*(needed or [experts[0].log_snr_range]), strict=True)
        return max(lows), min(highs)
    lows, highs = zip(*(expert.log_snr_range for expert in experts), strict=True)
    return min(lows), max(highs)


def _origins(mixture: MergedDenoiser) -> Mapping[str, str]:
    """Where experts inside come from, if they were not trained from nothing."""
    return {
        f"inner {k} {key}": value
        for k, expert in enumerate(_experts(mixture))
        for key, value in expert.provenance().items()
    }
