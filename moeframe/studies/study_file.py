"""Study files: variants of one spec, each a few overrides, the seeds of all, and what they are compared with."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moeframe.errors import InputError, SpecError, SpecPath, SpecProblem
from moeframe.interfaces.launcher import Launcher
from moeframe.plugin.registry import Registry, did_you_mean
from moeframe.report.study.rows import Group
from moeframe.spec.loader import Document, Override, load_spec, read_document
from moeframe.spec.messages import problems_of
from moeframe.spec.schema import RunSpec

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class VariantConfig(_Section):
    """One row of the study's table."""

    title: str = Field(default="", description="shown in reports; the variant's name if empty")
    set: dict[str, Any] = Field(default={}, description="values by dotted path of the spec, as --set path=value")
    runs_of: dict[str, str] = Field(
        default={},
        description="other variants by dotted path of the spec, such as experts.0.path, which is set to the run of "
        "that variant with the same seed",
    )
    weights_of: str | None = Field(
        default=None, description="another variant, whose trained weights are evaluated under these settings"
    )
    group: Group | None = Field(
        default=None,
        description="how the page draws it; by default control for one expert, ablation with weights_of, else mixture",
    )

    @property
    def trains(self) -> bool:
        """Whether the variant trains its own weights."""
        return self.weights_of is None and not self.runs_of


class StudyConfig(_Section):
    """A study file."""

    name: str = Field(max_length=60, pattern=NAME)
    spec: Path = Field(description="the spec that the variants change, relative to this file")
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(min_length=1)
    baseline: str = Field(description="the variant that the others are compared with")
    compare: list[tuple[str, str]] = Field(
        default=[], description="pairs to compare (first minus second), in addition to each variant minus the baseline"
    )
    set: dict[str, Any] = Field(default={}, description="changes that all variants share")
    variants: dict[Annotated[str, Field(pattern=NAME, max_length=39)], VariantConfig] = Field(min_length=1)
    launcher: dict[str, Any] = Field(default={"type": "local"}, description="where the runs are executed")


@dataclass(frozen=True)
class Variant:
    """A variant with its resolved spec, which has the seeds of the study."""

    name: str
    title: str
    spec: RunSpec
    runs_of: Mapping[str, str]
    """Dotted paths of the spec that are set to another variant's run folder once the seed is known."""
    weights_of: str | None
    same_as: str | None
    """An earlier variant with an equal spec, whose runs this one shares."""
    changes: tuple[str, ...] = ()
    """Its own changes of the base spec, one line each."""
    group: Group | None = None
    """Its group on the page, if the study file names one."""

    @property
    def made_of(self) -> list[str]:
        """The variants whose weights this one uses."""
        return list(dict.fromkeys([*self.runs_of.values(), *filter(None, [self.weights_of])]))


@dataclass(frozen=True)
class Study:
    """A validated study file."""

    name: str
    seeds: tuple[int, ...]
    baseline: str
    variants: tuple[Variant, ...]
    launcher: Launcher
    compare: tuple[tuple[str, str], ...] = ()
    """Pairs to compare in addition to each variant with the baseline."""
    changes: tuple[str, ...] = ()
    """Changes of the base spec that all variants share, one line each."""
    selected_variants: frozenset[str] | None = None
    selected_seeds: frozenset[int] | None = None
    """What this call runs; everything if None."""

    def variant(self, name: str) -> Variant:
        """The variant of that name."""
        return next(variant for variant in self.variants if variant.name == name)

    def only(self, names: Sequence[str]) -> "Study":
        """Select these variants, the baseline and the variants that they use. Raises InputError for an unknown name."""
        known = [variant.name for variant in self.variants]
        for name in names:
            if name not in known:
                hint = " ".join(did_you_mean(name, known))
                raise InputError(f"unknown variant '{name}'; {hint + ' ' if hint else ''}variants: {', '.join(known)}")
        wanted = {self.source_of(name) for name in (*names, self.baseline)} | set(names) | {self.baseline}
        while more := {self.source_of(s) for name in wanted for s in self.variant(name).made_of} - wanted:
            wanted |= more
        return dataclasses.replace(self, selected_variants=frozenset(wanted))

    def only_seeds(self, seeds: Sequence[int]) -> "Study":
        """Select these seeds. Raises InputError for a seed that the study does not have."""
        for seed in seeds:
            if seed not in self.seeds:
                known = ", ".join(map(str, self.seeds))
                raise InputError(f"unknown seed {seed}; the study has {known}: add it to seeds in the study file")
        return dataclasses.replace(self, selected_seeds=frozenset(seeds))

    def includes(self, variant: Variant, seed: int) -> bool:
        """Whether this call runs it, for itself or for an equal variant."""
        equal = {other.name for other in self.variants if other.same_as == variant.name} | {variant.name}
        return (self.selected_variants is None or bool(self.selected_variants & equal)) and (
            self.selected_seeds is None or seed in self.selected_seeds
        )

    def depth(self, variant: Variant) -> int:
        """Return how many runs must finish, one after another, before this variant can start."""
        return max((1 + self.depth(self.variant(self.source_of(name))) for name in variant.made_of), default=0)

    def source_of(self, name: str) -> str:
        """Return the variant whose runs this one shares: itself, or an earlier equal one."""
        return self.variant(name).same_as or name


def load_study(path: Path, registry: Registry, jobs: int | None = None) -> Study:
    """Read and check a study file and the spec of every variant; `jobs` replaces the launcher's.

    Raises SpecError with every problem at once.
    """
    document = read_document(path)
    if "variants" not in document.data and "spec" not in document.data:
        raise InputError(f"{path}: not a study file (missing keys: spec, variants, ...)")
    try:
        config = StudyConfig.model_validate(document.data)
    except ValidationError as error:
        raise SpecError([document.locate(problem) for problem in problems_of(error, StudyConfig)]) from None
    if found := list(_problems(config)):
        raise SpecError(list(map(document.locate, found)))
    base = path.parent / config.spec
    if not base.is_file():
        place = document.place(("spec",), about_key=False)
        message = f"no file {base}; spec is relative to the file that names it"
        raise SpecError([SpecProblem(("spec",), message, place=place)])
    launcher = _launcher(config, document, registry, jobs)
    variants: list[Variant] = []
    problems: list[SpecProblem] = []
    shared = _overrides(config.set, document, ("set",))
    shared_places = {override.place for override in shared}
    for name, variant in config.variants.items():
        overrides = [
            *shared,
            *_overrides(variant.set, document, ("variants", name, "set")),
            *_overrides(variant.runs_of, document, ("variants", name, "runs_of")),
            Override("name", f"{config.name}-{name}", str(path)),
            Override("seeds", config.seeds, str(path)),
        ]
        try:
            spec = load_spec(base, registry, overrides)
        except SpecError as error:
            problems += [
                SpecProblem(
                    ("set",) if p.place in shared_places else ("variants", name),
                    f"{p.dotted_path}: {p.message}",
                    place=p.place,
                )
                for p in error.problems
            ]
            continue
        variants.append(_variant(name, variant, spec, variants))
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    if found := list(_problems_of_weights(variants)):
        raise SpecError(list(map(document.locate, found)))
    return Study(
        name=config.name,
        seeds=tuple(config.seeds),
        baseline=config.baseline,
        variants=tuple(variants),
        launcher=launcher,
        compare=tuple(config.compare),
        changes=tuple(_said(config.set)),
    )


def _problems(config: StudyConfig) -> Iterator[SpecProblem]:
    """Yield contradictions between the parts of a study file."""
    if len(set(config.seeds)) != len(config.seeds):
        yield SpecProblem(("seeds",), f"seeds are repeated: {config.seeds}; name each seed once", about_key=True)
    yield from _unknown_variant(config, ("baseline",), config.baseline, f"unknown baseline '{config.baseline}'")
    for i, pair in enumerate(config.compare):
        for k, name in enumerate(pair):
            yield from _unknown_variant(config, ("compare", i, k), name, f"unknown variant '{name}'")
        if pair[0] == pair[1]:
            yield SpecProblem(("compare", i), f"'{pair[0]}' is compared with itself; name two variants")
    yield from _own_keys(config.set, ("set",))
    titles: dict[str, str] = {}
    for name, variant in config.variants.items():
        at: SpecPath = ("variants", name)
        yield from _own_keys(variant.set, (*at, "set"))
        title = variant.title or name
        if title in titles:
            yield SpecProblem(
                (*at, "title"), f"variant '{titles[title]}' has the title '{title}' too; give each its own"
            )
        titles.setdefault(title, name)
        for path, other in variant.runs_of.items():
            words = f"variant '{name}' uses a run of '{other}', which does not train"
            yield from _unknown_variant(config, (*at, "runs_of", path), other, words, trains=True)
        if variant.weights_of is not None:
            words = f"variant '{name}' uses the weights of '{variant.weights_of}', which does not train"
            yield from _unknown_variant(config, (*at, "weights_of"), variant.weights_of, words, trains=True)


def _unknown_variant(
    config: StudyConfig, at: SpecPath, name: str, words: str, *, trains: bool = False
) -> Iterator[SpecProblem]:
    known = [each for each, variant in config.variants.items() if variant.trains or not trains]
    if name not in known:
        hint = " ".join([*did_you_mean(name, known), f"variants: {', '.join(known) or 'none'}"])
        yield SpecProblem(at, f"{words}; {hint}")


def _own_keys(changes: Mapping[str, Any], at: SpecPath) -> Iterator[SpecProblem]:
    """Yield problems for keys that a study sets for all variants."""
    for path in changes:
        key = path.split(".")[0]
        if key == "seeds":
            yield SpecProblem(
                (*at, path), "all variants have the study's seeds: set seeds at the top of the file", True
            )
        elif key == "name":
            yield SpecProblem(
                (*at, path), "a run is named after study and variant; give the variant another name or title", True
            )


def _problems_of_weights(variants: Sequence[Variant]) -> Iterator[SpecProblem]:
    """Yield variants that use weights of another one that would not fit, before their source is trained."""
    by_name = {variant.name: variant for variant in variants}
    for variant in variants:
        source = by_name.get(variant.weights_of or "")
        if source is None:
            continue
        own, other = variant.spec.dump(), source.spec.dump()
        different = [key for key in ("trunk", "experts") if own.get(key) != other.get(key)]
        gate, trained = _network_of_gate(variant.spec), _network_of_gate(source.spec)
        different += [f"gate.{key}" for key in sorted(gate.keys() & trained.keys()) if gate[key] != trained[key]]
        different += ["training.steps"] if variant.spec.training.steps != source.spec.training.steps else []
        for key in different:
            yield SpecProblem(
                ("variants", variant.name, "set"),
                f"{key} differs from '{source.name}', whose weights it uses; keep {key} equal",
            )


def _network_of_gate(spec: RunSpec) -> Mapping[str, Any]:
    return {} if spec.gate is None else spec.gate.network_settings


def _variant(name: str, config: VariantConfig, spec: RunSpec, earlier: list[Variant]) -> Variant:
    known = {(_content(other.spec), other.weights_of): other.name for other in earlier if other.same_as is None}
    return Variant(
        name=name,
        title=config.title or name,
        spec=spec,
        runs_of=config.runs_of,
        weights_of=config.weights_of,
        same_as=known.get((_content(spec), config.weights_of)),
        changes=(
            *_said(config.set),
            *(f"{path}: the run of {other}" for path, other in config.runs_of.items()),
            *([f"weights: those of {config.weights_of}"] if config.weights_of else []),
        ),
        group=config.group,
    )


def _said(changes: Mapping[str, Any]) -> Iterator[str]:
    """As YAML on one line each."""
    for path, value in changes.items():
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
        yield f"{path}: {text.removesuffix('...' + chr(10)).strip()}"


def _content(spec: RunSpec) -> str:
    """Equal for specs that differ in name alone."""
    return spec.model_copy(update={"name": "any"}).hash()


def _overrides(changes: Mapping[str, Any], document: Document, at: SpecPath) -> list[Override]:
    return [Override(path, value, document.place((*at, path), about_key=True)) for path, value in changes.items()]


def _launcher(config: StudyConfig, document: Document, registry: Registry, jobs: int | None) -> Launcher:
    place = document.place(("launcher",), about_key=False) or "launcher"
    name = config.launcher.get("type")
    if not isinstance(name, str) or name not in registry.names("launchers"):
        raise SpecError([SpecProblem(("launcher", "type"), registry.why_not("launchers", str(name)), place=place)])
    component = registry.get(Launcher, name)
    settings = config.launcher if jobs is None else config.launcher | {"jobs": jobs}
    try:
        return component(component.Config.model_validate(settings))
    except ValidationError as error:
        found = [problem.below(("launcher",)) for problem in problems_of(error, component.Config)]
        raise SpecError([problem.at(place) for problem in found]) from None
