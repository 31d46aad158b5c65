"""PSNR and SSIM of held-out images brought back from a stated noise level by the deterministic sampler."""

import math
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from moeframe.errors import UnavailableError
from moeframe.interfaces.metric import Evaluation, Measurement, Metric, Reconstructions


class ReconstructionConfig(Metric.Config):
    """Which reconstructions are compared."""

    log_snr: float = Field(default=0.0, description="noise level from which images are brought back")
    images: int = Field(default=256, ge=2, description="test images, from the first")


def _arrays(pairs: Reconstructions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(originals, reconstructions) as (n, height, width, channels) levels."""
    return (
        pairs.originals.permute(0, 2, 3, 1).double().numpy(),
        pairs.images.permute(0, 2, 3, 1).double().numpy(),
    )


def _measurement(
    values: list[float], unit: str, evaluation: Evaluation, config: ReconstructionConfig, how: dict[str, Any]
) -> Measurement:
    tensor = torch.tensor(values, dtype=torch.float64)
    mean, error = float(tensor.mean()), float(tensor.std()) / math.sqrt(len(values))
    return Measurement(
        value=mean,
        unit=unit,
        better="higher",
        n=len(values),
        interval=(mean - 1.96 * error, mean + 1.96 * error),
        how={
            **how,
            "pairs": "test images and their reconstructions",
            "from_log_snr": config.log_snr,
            "sampler": "ddim, 50 steps in schedule time",
            "levels": evaluation.image.levels,
            "interval_method": "95 %, normal, over images",
        },
    )


class PsnrMetric(Metric):
    """Peak signal-to-noise ratio of reconstructions, dB (scikit-image)."""

    class Config(ReconstructionConfig):
        type: Literal["psnr"] = "psnr"

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Mean over images of each image's PSNR."""
        from skimage.metrics import peak_signal_noise_ratio

        pairs = evaluation.reconstructions(self.config.log_snr, self.config.images)
        peak = evaluation.image.levels - 1
        values, exact = [], 0
        for original, image in zip(*_arrays(pairs), strict=True):
            if np.array_equal(original, image):
                exact += 1
            else:
                values.append(float(peak_signal_noise_ratio(original, image, data_range=peak)))
        if len(values) < 2:
            raise UnavailableError(
                f"{exact} of {len(pairs.images)} reconstructions are exact, so their PSNR is infinite; "
                "set a lower log_snr"
            )
        how = {"library": "skimage.metrics.peak_signal_noise_ratio", "data_range": peak, "exact_left_out": exact}
        return _measurement(values, "dB", evaluation, self.config, how)


class SsimMetric(Metric):
    """Structural similarity of reconstructions with Wang's settings (scikit-image)."""

    WINDOW: ClassVar[int] = 11

    class Config(ReconstructionConfig):
        type: Literal["ssim"] = "ssim"

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Mean over images of each image's SSIM: Gaussian window, σ = 1.5, population covariance (Wang et al. 2004)."""
        from skimage.metrics import structural_similarity

        pairs = evaluation.reconstructions(self.config.log_snr, self.config.images)
        side = min(evaluation.image.height, evaluation.image.width)
        peak = evaluation.image.levels - 1
        # What scikit-image calls win_size only says how much border is left out of the mean; the Gaussian has 11 taps.
        border_window = min(self.WINDOW, side if side % 2 else side - 1)
        values = [
            float(
                structural_similarity(
                    original,
                    image,
                    gaussian_weights=True,
                    sigma=1.5,
                    win_size=border_window,
                    use_sample_covariance=False,
                    data_range=peak,
                    channel_axis=-1,
                )
            )
            for original, image in zip(*_arrays(pairs), strict=True)
        ]
        how = {
            "library": "skimage.metrics.structural_similarity",
            "window": f"Gaussian, sigma 1.5, {self.WINDOW} pixels; "
            f"a border of {border_window // 2} pixels is left out of the mean",
            "data_range": peak,
        }
        if side < self.WINDOW:
            how["note"] = f"images of {side} pixels are smaller than the window, which is mirrored at their border"
        return _measurement(values, "SSIM", evaluation, self.config, how)
