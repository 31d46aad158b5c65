"""The posterior gate: trained by slice alignment without asking an expert, or read from a file."""

import warnings

import pytest
import torch
from torch import nn

import moeframe
from moeframe.assembly import assemble
from moeframe.errors import CheckpointError, DataError, InputError
from moeframe.interfaces.component import ImageShape, SpecFacts
from moeframe.model.mixture import MergedDenoiser
from moeframe.plugin.registry import Registry
from moeframe.spec.loader import load_spec
from moeframe.testing import GaussianExpert
from moeframe.testing import PosteriorGate as ExactPosterior
from moeframe.training.trainer import Trainer
from moeframe_builtin.gates.posterior import PosteriorGate

IMAGE = ImageShape(1, 4, 4, 8)

SPEC = """\
name: posterior
device: cpu
dataset: {type: gaussian, size: 4, levels: 256, n_train: 64, n_test: 16}
slicer: {type: lighting}
schedule: {type: linear, log_snr_min: -6, log_snr_max: 6}
experts: [{type: unet, copies: 2, channels: 4, channel_multipliers: [1]}]
gate: {type: posterior, width: 8, hidden: 16}
objective: [{type: slice_alignment}]
sampler: {type: ddim, steps: 2}
metrics: [{type: network_calls}]
training: {trainable: gate, steps: 3, batch_size: 8, validation_images: 4}
evaluation: {batch_size: 16, samples_shown: 2, diagnostic_images: 4}
"""


class Level(nn.Module):
    """Log-odds from the mean brightness, as the classifier of someone else might have them."""

    def forward(self, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        level = z.flatten(1).mean(1) * log_snr.sigmoid()
        return torch.stack([-3 * level, 3 * level], 1)


def saved(path, module=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(2, 1, 4, 4), torch.zeros(2))
        scripted = torch.jit.script(module) if isinstance(module, Normalised) else None
        torch.jit.save(scripted or torch.jit.trace(module or Level(), example), path)
    return path


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "posterior.yaml"
    path.write_text(SPEC)
    return path


def test_the_weights_are_those_of_the_classifier_in_the_file(tmp_path):
    gate = PosteriorGate(PosteriorGate.Config(classifier=saved(tmp_path / "c.pt")), image=IMAGE, n_experts=2)
    z, log_snr = torch.randn(5, 1, 4, 4), torch.linspace(-3, 3, 5)
    assert torch.allclose(gate(z, log_snr), Level()(z, log_snr).softmax(1))
    warm = PosteriorGate(PosteriorGate.Config(classifier=tmp_path / "c.pt", temperature=2), image=IMAGE, n_experts=2)
    assert torch.allclose(warm(z, log_snr), (Level()(z, log_snr) / 2).softmax(1))
    assert not any(parameter.requires_grad for parameter in gate.parameters())


class Normalised(nn.Module):
    """A classifier whose answer for one image depends on the others while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm2d(1), nn.Linear(16, 2)

    def forward(self, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(z).flatten(1))


def test_a_classifier_of_a_file_stays_as_it_is_while_experts_train(tmp_path):
    path = saved(tmp_path / "c.pt", Normalised().eval())
    gate = PosteriorGate(PosteriorGate.Config(classifier=path), image=IMAGE, n_experts=2).train()
    before = {name: tensor.clone() for name, tensor in gate.state_dict().items()}
    z, log_snr = torch.randn(6, 1, 4, 4), torch.zeros(6)
    assert torch.allclose(gate(z, log_snr)[:1], gate(z[:1], log_snr[:1]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in gate.state_dict().items())


@pytest.mark.slow
def test_a_merge_with_a_classifier_of_a_file_needs_no_training(spec, tmp_path):
    overrides = [f"gate={{type: posterior, classifier: {saved(tmp_path / 'c.pt')}}}", "objective=[{type: nll}]"]
    results = moeframe.merge(spec, overrides=[*overrides, "training={trainable: none}"], out=tmp_path / "run")
    assert results.metrics["network_calls"].mean == 4, "both experts at each of two steps"
    z, log_snr = torch.randn(5, 1, 4, 4), torch.linspace(-3, 3, 5)
    weights = moeframe.load(tmp_path / "run").gate(z, log_snr)
    assert torch.allclose(weights, Level()(z, log_snr).softmax(1))


@pytest.mark.slow
def test_a_classifier_trained_by_slice_alignment_approaches_the_exact_posterior_and_asks_no_expert(spec):
    registry = Registry.installed()
    overrides = ["training.steps=400", "training.batch_size=64", "training.learning_rate=0.01"]
    trainer = Trainer(assemble(load_spec(spec, registry, overrides), registry, 0))
    asked = []
    for expert in trainer.model.experts:
        expert.register_forward_hook(lambda *_: asked.append(1))
    parts = (GaussianExpert.Config(mean=-0.3, std=0.2), GaussianExpert.Config(mean=0.3, std=0.2))
    exact = ExactPosterior(ExactPosterior.Config(slices=parts, shares=(0.5, 0.5)), image=IMAGE, n_experts=2)
    streams = trainer.assembly.streams
    # images of the two Gaussians take the place of the dataset's
    slices = torch.arange(1024) % 2
    pixels = torch.tensor([-0.3, 0.3])[slices].view(-1, 1, 1, 1) + 0.2 * streams.normal((1024, 1, 4, 4), "images")
    levels = ((pixels + 1) * 128).floor().long().clamp(0, 255)
    examples = moeframe.InMemoryExamples(levels, slices, ("dark", "bright"))
    object.__setattr__(trainer.assembly, "train", examples)
    object.__setattr__(trainer.assembly.slices, "train", slices)
    losses = [log.objective for log in trainer.train_jointly()]
    assert not asked
    assert losses[-1] < 0.7 * losses[0]
    z = streams.normal((512, 1, 4, 4), "z") * 0.5 + pixels[:512] * 0.5**0.5
    log_snr = torch.zeros(512)
    gate = trainer.model.gate.eval()
    with torch.no_grad():
        difference = (gate(z, log_snr) - exact(z, log_snr)).abs().mean()
    assert float(difference) < 0.06


def test_a_posterior_gate_without_classifier_and_training_is_a_conflict():
    found = dict(PosteriorGate.Config().conflicts(SpecFacts(n_experts=2)))
    assert found == {
        "classifier": "no classifier is given and none is trained, so the weights would be uniform; name a file, or "
        "set training: {trainable: gate, steps: ...} with objective: [{type: slice_alignment}]"
    }
    assert not dict(PosteriorGate.Config(classifier="c.pt").conflicts(SpecFacts(n_experts=2)))
    assert not dict(PosteriorGate.Config().conflicts(SpecFacts(n_experts=2, training_steps=5)))


class WrongCount(Level):
    def forward(self, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return z.flatten(1)[:, :3]


def test_a_classifier_that_does_not_fit_is_refused_with_its_file(tmp_path):
    def build(path):
        return PosteriorGate(PosteriorGate.Config(classifier=path), image=IMAGE, n_experts=2)

    with pytest.raises(DataError, match=r"none\.pt: no such file; 'classifier' names a TorchScript module that takes"):
        build(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no module")
    with pytest.raises(
        CheckpointError, match=r"text\.pt: is not a TorchScript module .* save it with torch\.jit\.save"
    ):
        build(tmp_path / "text.pt")
    with pytest.raises(InputError, match=r"returns \(2, 3\) for 2 images and 2 experts, not \(2, 2\); it is given"):
        build(saved(tmp_path / "three.pt", WrongCount()))


def test_what_only_routes_has_no_velocity_that_could_be_mistaken_for_one():
    experts = [GaussianExpert(GaussianExpert.Config(), image=IMAGE) for _ in range(2)]
    model = MergedDenoiser(experts, ExactPosterior(ExactPosterior.Config(), image=IMAGE, n_experts=4))
    routed = model.routed_only(torch.randn(3, 1, 4, 4), torch.zeros(3))
    assert bool(routed.velocity.isnan().all())
    assert routed.network_calls == 0
