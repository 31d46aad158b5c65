"""PSNR of reconstructions of test images."""

import math
from typing import Literal

import numpy as np

from moeframe.interfaces.metric import Evaluation, Measurement, Metric, Reconstructions
from moeframe_builtin.metrics.support.reconstruction import (
    Figure,
    ReconstructionConfig,
    image_pairs,
    measure_reconstructions,
)


class PsnrMetric(Metric):
    """Peak signal-to-noise ratio of reconstructions, dB (scikit-image)."""

    ROLE = "reconstruction"

    class Config(ReconstructionConfig):
        type: Literal["psnr"] = "psnr"

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Mean over images of each image's PSNR; an exact reconstruction has none."""
        peak = evaluation.image.levels - 1
        how = {
            "library": "skimage.metrics.peak_signal_noise_ratio",
            "data_range": peak,
            "exact": "an exact reconstruction has no PSNR: left out, and counted in exact_left_out",
        }
        figure = Figure("dB", "higher", how)
        return measure_reconstructions(evaluation, self.config, figure, lambda pairs: _psnr(pairs, peak))


def _psnr(pairs: Reconstructions, peak: int) -> list[float]:
    from skimage.metrics import peak_signal_noise_ratio

    return [
        math.inf
        if np.array_equal(original, image)
        else float(peak_signal_noise_ratio(original, image, data_range=peak))
        for original, image in image_pairs(pairs)
    ]
