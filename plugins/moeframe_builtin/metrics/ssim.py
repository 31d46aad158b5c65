"""SSIM of reconstructions of test images (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861)."""

from typing import ClassVar, Literal

from moeframe.interfaces.metric import Evaluation, Measurement, Metric, Reconstructions
from moeframe_builtin.metrics.support.reconstruction import (
    Figure,
    ReconstructionConfig,
    image_pairs,
    measure_reconstructions,
)


class SsimMetric(Metric):
    """Structural similarity of reconstructions with Wang's settings (scikit-image)."""

    ROLE = "reconstruction"

    WINDOW: ClassVar[int] = 11

    class Config(ReconstructionConfig):
        type: Literal["ssim"] = "ssim"

    config: Config

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Mean over images of each image's SSIM: Gaussian window, σ = 1.5, population covariance (Wang et al. 2004)."""
        side = min(evaluation.image.height, evaluation.image.width)
        peak = evaluation.image.levels - 1
        # What scikit-image calls win_size only says how much border is left out of the mean; the Gaussian has 11 taps.
        border_window = min(self.WINDOW, side if side % 2 else side - 1)
        how = {
            "library": "skimage.metrics.structural_similarity",
            "window": f"Gaussian, sigma 1.5, {self.WINDOW} pixels; "
            f"a border of {border_window // 2} pixels is left out of the mean",
            "data_range": peak,
        }
        if side < self.WINDOW:
            how["note"] = f"images of {side} pixels are smaller than the window, which is mirrored at their border"
        figure = Figure("SSIM", "higher", how)
        return measure_reconstructions(evaluation, self.config, figure, lambda pairs: _ssim(pairs, border_window, peak))


def _ssim(pairs: Reconstructions, border_window: int, peak: int) -> list[float]:
    from skimage.metrics import structural_similarity

    return [
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
        for original, image in image_pairs(pairs)
    ]
