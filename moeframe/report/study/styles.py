"""How a study's variants look in every plot: groups have a marker and a colour, and at most eight variants a label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moeframe.report.drawing import DASHES, GROUP_COLOURS, GROUP_MARKERS, REST
from moeframe.report.study.rows import Row, Table

if TYPE_CHECKING:
    from moeframe.report.study.verdicts import Finding

LABELLED = 8
"""More labels than this hide each other and the points."""
GROUP_TITLES = {
    "baseline": "baseline",
    "control": "single experts",
    "mixture": "mixtures",
    "ablation": "ablations",
    "rest": "not labelled",
}


@dataclass(frozen=True)
class Style:
    """Colour, marker and dashes of one variant."""

    colour: str
    marker: str
    dashes: Any
    labelled: bool


@dataclass(frozen=True)
class VariantStyles:
    """The rows of a study, and the variants that plots label, the most important first."""

    rows: Sequence[Row]
    baseline: str
    labelled: Sequence[str]

    @classmethod
    def of(cls, table: Table, findings: Sequence["Finding"]) -> "VariantStyles":
        """Label the baseline and the variants that the verdicts name, up to eight; then fill up in order."""
        named = [table.baseline, *(name for finding in findings for name in finding.variants)]
        known = dict.fromkeys([*named, *(row.name for row in table.rows)])
        few = len(table.rows) <= LABELLED
        return cls(table.rows, table.baseline, list(known if few else dict.fromkeys(named))[:LABELLED])

    def group(self, name: str) -> str:
        """Return the group of a variant; the baseline is one of its own."""
        return "baseline" if name == self.baseline else next(row.group for row in self.rows if row.name == name)

    def groups(self) -> list[str]:
        """Return the groups that the study has, for the legend."""
        found = {self.group(row.name) for row in self.rows}
        rest = [] if all(row.name in self.labelled for row in self.rows) else ["rest"]
        return [group for group in GROUP_TITLES if group in found] + rest

    def style(self, name: str) -> Style:
        """Return the look of a variant: grey where it has no label."""
        group, labelled = self.group(name), name in self.labelled
        alike = [each for each in self.labelled if self.group(each) == group]
        dashes = DASHES[alike.index(name) % len(DASHES)] if labelled else "-"
        return Style(GROUP_COLOURS[group] if labelled else REST, GROUP_MARKERS[group], dashes, labelled)
