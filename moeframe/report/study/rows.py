"""What the table of a study is made of, columns, rows and cells, and the runs of its plan."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from moeframe.stats.comparison import Verdict

Standing = Literal["finished", "to measure", "failed", "to do", "changed"]
"""Of a run against what its study says now: finished but without a metric, or done with other settings."""


class PlannedRun(BaseModel):
    """One run of a study before it is done."""

    model_config = ConfigDict(frozen=True)

    variant: str
    seed: int
    status: Standing
    cause: str
    """Why it failed, which metrics it lacks, which settings changed; empty otherwise."""
    training_calls: int
    """Predicted network evaluations of training, forward and backward, one image each."""
    training_flops: float | None = None
    """Operations of them; None where they are not known beforehand."""
    sampling_calls: int
    """Predicted network evaluations to sample one image, at most."""
    seconds: float | None = None
    """Predicted time, from the finished runs of the study; None where nothing tells."""


Better = Literal["lower", "higher"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Against(_Record):
    """A variant minus another, the baseline as a rule, in one metric, paired by seed."""

    difference: float
    interval: tuple[float, float] | None
    p_adjusted: float | None
    verdict: Verdict
    relative_gain: float | None
    gain_interval: tuple[float, float] | None = None
    gain_method: str = ""
    n: int
    of: int
    """Seeds that the study has; `n` of them have both figures."""

    @property
    def incomplete(self) -> str:
        """Return " [5 of 6 seeds]" where seeds are missing, else the empty string."""
        return f" [{self.n} of {self.of} seeds]" if self.n < self.of else ""


class Cell(_Record):
    """One metric of one variant; `why_not` in place of figures where there are none."""

    mean: float | None = None
    interval: tuple[float, float] | None = None
    n_seeds: int = 0
    per_seed: tuple[float | None, ...] = ()
    against: Against | None = None
    ratio: float | None = None
    """To the baseline, of a figure that is the same with every seed, such as a count of parameters."""
    best: bool = False
    """Better than every other row, by an interval that says so."""
    why_not: str = ""
    lacks: str = ""
    """Of which finished seeds there is no figure, and why, where others have one."""


class Row(_Record):
    """One variant."""

    name: str
    title: str
    finished: int
    seeds: int
    failures: list[str]
    """Of runs that died, and of what could not be measured of finished ones."""
    training_calls: int
    training_flops: float | None = None
    """Operations of training, forward and backward; None where no finished run measured those of a call."""
    cells: dict[str, Cell]

    @property
    def complete(self) -> bool:
        """Whether every seed finished."""
        return self.finished == self.seeds


class Column(_Record):
    """One metric."""

    name: str
    unit: str
    better: Better
    exact: bool = False
    """The same with every seed: nothing to test."""
    caution: str = ""
    """What a reader must know before comparing its figures."""
    basis: dict[str, Any] = {}
    """What all of its figures were computed with: that of the baseline, or of the first who measured it."""


class Pair(_Record):
    """Two variants, the first minus the second, in every metric that can differ."""

    first: str
    second: str
    against: dict[str, Against]


class Table(_Record):
    """The whole table."""

    name: str
    dataset: str
    baseline: str
    columns: list[Column]
    rows: list[Row]
    pairs: list[Pair] = []
    seeds: list[int] = []
    planned_seeds: int = 0
    not_run: list[str] = []
    """Titles of variants of which nothing was tried yet."""
    not_measured: dict[str, str] = {}
    """Metrics that were asked for and that no run has, and why."""

    def title_of(self, name: str) -> str:
        """What a reader sees of a variant."""
        return next(row.title for row in self.rows if row.name == name)
