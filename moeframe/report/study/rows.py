"""The records of a study's table (columns, rows, cells) and of its plan."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from moeframe.interfaces.metric import Better, Role
from moeframe.stats.comparison import Verdict

Standing = Literal["finished", "to measure", "failed", "to do", "changed"]
"""Status of a run. To measure: finished, but a metric is missing. Changed: its settings differ from the study's."""

Group = Literal["mixture", "control", "ablation"]
"""The part of a variant in the argument of a study: plots give each group its marker and colour."""


class PlannedRun(BaseModel):
    """One run in the plan of a study."""

    model_config = ConfigDict(frozen=True)

    variant: str
    seed: int
    status: Standing
    cause: str
    """Why it failed, which metrics are missing or which settings changed; empty otherwise."""
    training_calls: int
    """Predicted network evaluations in training, forward and backward, one image each."""
    training_flops: float | None = None
    """Predicted FLOPs of training; None where unknown."""
    sampling_calls: int
    """Upper bound on the network evaluations to sample one image."""
    seconds: float | None = None
    """Predicted time, from the finished runs of the study; None without any."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Against(_Record):
    """Difference of a variant from another, usually the baseline, in one metric, paired by seed."""

    difference: float
    interval: tuple[float, float] | None
    p_adjusted: float | None
    verdict: Verdict
    relative_gain: float | None
    gain_interval: tuple[float, float] | None = None
    gain_method: str = ""
    n: int
    of: int
    """Seeds of the study; `n` of them measured both variants."""

    @property
    def incomplete(self) -> str:
        """Return " [5 of 6 seeds]" if seeds are missing, else an empty string."""
        return f" [{self.n} of {self.of} seeds]" if self.n < self.of else ""


class Cell(_Record):
    """One metric of one variant. Without a value, `why_not` says why."""

    mean: float | None = None
    interval: tuple[float, float] | None = None
    n_seeds: int = 0
    per_seed: tuple[float | None, ...] = ()
    against: Against | None = None
    ratio: float | None = None
    """Ratio to the baseline, for a value that is the same for every seed, such as a count of parameters."""
    best: bool = False
    """Significantly better than every other row."""
    why_not: str = ""
    missing: str = ""
    """Finished seeds without a value, and why, where other seeds have one."""


class Row(_Record):
    """One variant."""

    name: str
    title: str
    finished: int
    seeds: int
    failures: list[str]
    """Causes of failed runs, and of metrics that a finished run could not measure."""
    training_calls: int
    training_flops: float | None = None
    """FLOPs of training, forward and backward; None where no finished run measured the FLOPs of a call."""
    group: Group = "mixture"
    n_experts: int = 1
    weights_of: str | None = None
    """The variant whose trained weights are measured here under other settings."""
    averages: bool = False
    """Whether the gate gives all experts the same weight at every noise level, as a plain average does."""
    cells: dict[str, Cell]

    @property
    def complete(self) -> bool:
        """Whether every seed has finished."""
        return self.finished == self.seeds


class Column(_Record):
    """One metric."""

    name: str
    title: str = ""
    """What a reader sees."""
    unit: str
    better: Better
    role: Role = "other"
    exact: bool = False
    """Whether it is the same for every seed, so that there is nothing to test."""
    caution: str = ""
    """What a reader must know before comparing its values."""
    basis: dict[str, Any] = {}
    """The settings of the measurement, from the baseline or else the first variant that has the metric."""


class Pair(_Record):
    """Two variants: the first minus the second, in every metric that varies over seeds."""

    first: str
    second: str
    against: dict[str, Against]


class Table(_Record):
    """The table of a study."""

    name: str
    dataset: str
    baseline: str
    columns: list[Column]
    rows: list[Row]
    pairs: list[Pair] = []
    seeds: list[int] = []
    planned_seeds: int = 0
    not_run: list[str] = []
    """Titles of variants without any run."""
    not_measured: dict[str, str] = {}
    """Requested metrics that no run has, by title, and why."""

    def row(self, name: str) -> Row:
        """Return the row of a variant."""
        return next(row for row in self.rows if row.name == name)

    def title_of(self, name: str) -> str:
        """Return the title of a variant."""
        return self.row(name).title

    def leading(self, role: Role) -> Column | None:
        """Return the first metric of a role that varies over seeds, or None."""
        return next((column for column in self.columns if column.role == role and not column.exact), None)
