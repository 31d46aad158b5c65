"""How different samples are from one another: LPIPS between pairs of them. Not the LPIPS of reconstructions.

Zhang et al. 2018, https://arxiv.org/abs/1801.03924.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from pydantic import Field

from moeframe.interfaces.metric import Evaluation, Measurement, Metric
from moeframe.shapes import Levels
from moeframe.stats.intervals import mean, skewed_interval
from moeframe_builtin.metrics.support.lpips_network import LpipsConfig, lpips_network, why_unavailable


class DiversityMetric(Metric):
    """Learned perceptual distance (LPIPS) between random disjoint pairs of samples; higher is more diverse."""

    ROLE = "diversity"

    class Config(LpipsConfig):
        type: Literal["diversity"] = "diversity"
        pairs: int = Field(default=256, ge=2, description="pairs of samples, no sample in two of them")

    config: Config

    def unavailable(self) -> str | None:
        """The package, or the file of backbone weights."""
        return why_unavailable(self.config)

    def measure(self, evaluation: Evaluation) -> Measurement:
        """Mean over pairs, beside that of pairs of test images, which a good model would reach."""
        network = lpips_network(evaluation, self.config)
        n_real = min(self.config.pairs, len(evaluation.test) // 2)
        sampled, real = (
            [distance for first, second in disjoint_pairs(batches) for distance in network.distances(first, second)]
            for batches in (evaluation.sample_batches(2 * self.config.pairs), self._real(evaluation, 2 * n_real))
        )
        interval = skewed_interval(sampled, evaluation.streams.seed)
        return Measurement(
            value=mean(sampled),
            unit=network.unit,
            better="higher",
            n=len(sampled),
            interval=interval.ends,
            parts={"real_pairs": mean(real)} if real else {},
            how={
                **network.how,
                "pairs": "samples 0 and 1, 2 and 3, ...: samples are drawn independently, so these pairs are random",
                "real_pairs": f"the same between {n_real} random disjoint pairs of test images: the reference",
                "sampler": f"{evaluation.sampler.name()}, {evaluation.sampler.config.steps} steps",
                "interval_method": f"{interval.method}, an image being a pair",
                "caution": "noise and artefacts raise it too: read it beside real_pairs and a quality metric",
            },
        )

    def _real(self, evaluation: Evaluation, n: int) -> Iterator[Levels]:
        # in random order: a folder may hold its images by class
        order = evaluation.streams.permutation(len(evaluation.test), "diversity/pairs")[:n]
        step = 2 * self.config.batch_size
        for start in range(0, n, step):
            yield evaluation.test.images(order[start : start + step]).long()


def disjoint_pairs(batches: Iterable[Levels]) -> Iterator[tuple[Levels, Levels]]:
    """Images 0 and 1, 2 and 3, ... over all batches, whatever their sizes; an odd last one is left out.

    >>> images = torch.arange(6).view(6, 1, 1, 1)
    >>> [(a.flatten().tolist(), b.flatten().tolist()) for a, b in disjoint_pairs([images[:3], images[3:]])]
    [([0], [1]), ([2, 4], [3, 5])]
    """
    rest: list[Levels] = []
    for batch in batches:
        waiting = torch.cat([*rest, batch])
        even = len(waiting) // 2 * 2
        yield waiting[0:even:2], waiting[1:even:2]
        rest = [waiting[even:]]
