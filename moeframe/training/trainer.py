"""Training as two generators that a caller can watch: warm_start (phase 1) and train_jointly (phase 2).

Phase 1: at each step every expert learns from a batch of its own slice. Phase 2: one batch of all the data, experts and
gate together. Every draw of step s is addressed by s, so training can be cut anywhere and resumed bit for bit.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from moeframe.assembly import Assembly
from moeframe.data.loading import Batch, fetch_batches
from moeframe.diffusion import add_noise, to_pixels, velocity_of
from moeframe.errors import InputError, NonFiniteError
from moeframe.interfaces.denoiser import Denoiser
from moeframe.interfaces.loss import Loss, TrainingStep
from moeframe.model.ema import MovingAverage
from moeframe.model.mixture import MergedDenoiser
from moeframe.randomness import Trajectories, batch_indices
from moeframe.storage import checkpoint
from moeframe.storage.checkpoint import Snapshot
from moeframe.training.steps import StepLog, TermValue, culprit, expert_errors, mean_term


class Trainer:
    """Owns the weights, their average and the optimiser of one seed."""

    def __init__(self, assembly: Assembly):
        self.assembly = assembly
        self.config = assembly.spec.training
        self.model = assembly.model
        self.step = 0
        self._freeze()
        self.ema = MovingAverage(self.model, self.config.ema_decay)
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if self.config.steps > 0 and not learning:
            raise InputError("nothing to train: no trainable part has parameters; set training.steps: 0")
        # one group: torch refuses an empty list but not an empty group
        self.optimizer = torch.optim.AdamW(
            [{"params": learning}], lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        self._alone = [self.model.alone(k) for k in range(len(self.model.experts))]
        parts = {f"expert {k}": expert for k, expert in enumerate(self.model.experts)}
        if self.model.gate is not None:
            parts["the gate"] = self.model.gate
        if self.model.trunk is not None:
            parts["the trunk"] = self.model.trunk
        # listed once: walking the module tree at every step is a visible share of a small model's step
        self._parameters = {name: list(part.parameters()) for name, part in parts.items()}
        if self.config.compile:
            for expert in self.model.experts:
                expert.compile()

    @property
    def averaged(self) -> MergedDenoiser:
        """The model with averaged weights."""
        return self.ema.model

    def _freeze(self) -> None:
        """Freeze what the spec does not train."""
        trunk = self.model.trunk
        if trunk is not None and (trunk.frozen or self.config.trainable != "all"):
            trunk.requires_grad_(False)
        if self.config.trainable != "all":
            self.model.experts.requires_grad_(False)
        if self.config.trainable == "none":
            self.model.requires_grad_(False)

    def _train_mode(self) -> None:
        """Set training mode for what is trained; frozen parts stay in evaluation mode, without dropout."""
        self.model.train()
        if self.model.trunk is not None and (self.model.trunk.frozen or self.config.trainable != "all"):
            self.model.trunk.eval()
        if self.config.trainable != "all":
            self.model.experts.eval()

    # --- the two phases -----------------------------------------------------------------------------------------------

    def warm_start(self) -> Iterator[StepLog]:
        """Phase 1, from the current step to its end."""
        self._train_mode()
        # without a slicer all data is one slice, on which a single expert may warm-start
        sources = [(f"warm_start/{k}", members) for k, members in enumerate(self.assembly.slices.members)]
        batches = self._batches(self.assembly.spec.warm_start_steps, sources)
        while self.step < self.assembly.spec.warm_start_steps:
            yield self._warm_start_step(batches)

    def train_jointly(self) -> Iterator[StepLog]:
        """Phase 2, from the current step to the end."""
        self._train_mode()
        batches = self._batches(self.config.steps, [("joint", torch.arange(len(self.assembly.train)))])
        while self.step < self.config.steps:
            yield self._joint_step(batches)

    def _batches(self, end: int, sources: list[tuple[str, Tensor]]) -> Iterator[Batch]:
        """Yield, for each step up to `end`, one batch per source (purpose of the draws, members to draw from)."""
        streams, size = self.assembly.streams, self.config.batch_size
        plan = (
            members[batch_indices(streams, len(members), size, step, f"{purpose}/order")]
            for step in range(self.step, end)
            for purpose, members in sources
        )
        return fetch_batches(self.assembly.train, plan, self.config.workers)

    def _warm_start_step(self, batches: Iterator[Batch]) -> StepLog:
        learning_rate = self._begin_step()
        losses = [loss for loss in self.assembly.losses if not loss.NEEDS_GATE]
        logs, norms, errors = [], [], []
        for k, expert in enumerate(self._alone):
            facts = self._forward(expert, next(batches), f"warm_start/{k}")
            _, terms = self._backward(losses, facts, [k])
            norms.append(self._clip([f"expert {k}"]))
            errors.append(expert_errors(facts, 1)[0])
            logs.append(terms)
        if self.model.trunk is not None:  # the gradients of all experts have accumulated in it
            norms.append(self._clip(["the trunk"]))
        self._finish_step()
        mean = {name: mean_term([terms[name] for terms in logs]) for name in logs[0]}
        return StepLog(
            step=self.step,
            phase="warm_start",
            objective=sum(term.value * term.weight for term in mean.values()),
            terms=mean,
            experts=errors,
            gradient_norm=max(norms),
            learning_rate=learning_rate,
            usage=[1 / len(logs)] * len(logs),
        )

    def _joint_step(self, batches: Iterator[Batch]) -> StepLog:
        learning_rate = self._begin_step()
        losses = [loss for loss in self.assembly.losses if self.model.gate is not None or not loss.NEEDS_GATE]
        evaluates_experts = any(loss.NEEDS_PREDICTION for loss in losses)
        denoiser = self.model if evaluates_experts else self.model.routed_only
        facts = self._forward(denoiser, next(batches), "joint")
        objective, terms = self._backward(losses, facts, list(range(len(self.model.experts))))
        norm = self._clip(list(self._parameters))
        self._finish_step()
        return StepLog(
            step=self.step,
            phase="joint",
            objective=objective,
            terms=terms,
            experts=expert_errors(facts, len(self.model.experts)),
            gradient_norm=norm,
            learning_rate=learning_rate,
            usage=facts.denoised.routing.weights.detach().mean(0).tolist(),
        )

    # --- pieces of a step ---------------------------------------------------------------------------------------------

    def _begin_step(self) -> float:
        rate = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        return rate

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step: linear warm-up, then constant or cosine decay to zero at the last step."""
        warmup = self.config.learning_rate_warmup
        scale = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if self.config.learning_rate_decay == "cosine" and step > warmup:
            progress = (step - warmup) / max(1, self.config.steps - warmup)
            scale *= 0.5 * (1 + math.cos(math.pi * progress))
        return self.config.learning_rate * scale

    def _forward(self, denoiser: Denoiser, batch: Batch, purpose: str) -> TrainingStep:
        """Add noise to one batch and denoise it."""
        a, step, size = self.assembly, self.step, self.config.batch_size
        images = batch.images
        if self.config.horizontal_flip:
            flipped = a.streams.uniform((size, 1, 1, 1), f"{purpose}/flip", step) < 0.5
            images = torch.where(flipped, images.flip(-1), images)
        x = to_pixels(images.to(a.device), a.image.levels)
        times = a.streams.low_discrepancy(size, f"{purpose}/times", step).to(a.device)
        noise = a.streams.normal(x.shape, f"{purpose}/noise", step).to(a.device)
        log_snr = a.schedule.log_snr(times)
        z = add_noise(x, noise, log_snr)
        items = Trajectories.numbered(a.streams, step * size, (step + 1) * size)
        with a.streams.governing_torch(f"{purpose}/dropout", step), self._precision():
            denoised = denoiser(z, log_snr, items)
        velocity = velocity_of(x, noise, log_snr)
        slices = a.slices.train[batch.indices].to(a.device)
        return TrainingStep(x, z, log_snr, a.schedule.rate(times), velocity, denoised, slices)

    def _precision(self) -> AbstractContextManager[object]:
        if self.config.precision == "bf16":
            return torch.autocast(self.assembly.device.type, torch.bfloat16)
        return nullcontext()

    def _backward(
        self, losses: list[Loss], facts: TrainingStep, experts: list[int]
    ) -> tuple[float, dict[str, TermValue]]:
        values = {loss.name(): loss(facts) for loss in losses}
        terms = {
            loss.name(): TermValue(float(values[loss.name()].detach()), loss.UNIT, loss.config.weight)
            for loss in losses
        }
        for name, term in terms.items():
            if not math.isfinite(term.value):
                raise self._non_finite(f"loss term '{name}' is {term.value}", culprit(facts.denoised, experts))
        objective = torch.stack([values[loss.name()] * loss.config.weight for loss in losses]).sum()
        objective.backward()  # type: ignore[no-untyped-call]
        return float(objective.detach()), terms

    def _clip(self, parts: list[str]) -> float:
        parameters = [p for part in parts for p in self._parameters[part] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not math.isfinite(float(norm)):  # before clipping, which would spread it to all parts
            raise self._non_finite(f"the gradient's norm is {float(norm)}", self._culprit_by_gradient())
        nn.utils.clip_grads_with_norm_(parameters, self.config.gradient_clip, norm)
        return float(norm)

    def _finish_step(self) -> None:
        self.optimizer.step()
        self.ema.update(self.step)
        self.step += 1

    def _non_finite(self, what: str, part: str) -> NonFiniteError:
        return NonFiniteError(
            f"step {self.step + 1}: {what}; first non-finite in: {part}; "
            "try a lower training.learning_rate or training.gradient_clip"
        )

    def _culprit_by_gradient(self) -> str:
        guilty = [
            name
            for name, parameters in self._parameters.items()
            if any(p.grad is not None and not bool(torch.isfinite(p.grad).all()) for p in parameters)
        ]
        return ", ".join(guilty) or "the sum over all parts"

    # --- saving and resuming ------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return everything that resuming needs; no generator state, because draws are counter-based."""
        optimizer = {
            f"{index}.{key}": torch.as_tensor(value)
            for index, state in self.optimizer.state_dict()["state"].items()
            for key, value in state.items()
        }
        return Snapshot(
            self.step,
            {
                "model": self.model.state_dict(),
                "ema": self.averaged.state_dict(),
                "optimizer": optimizer,
            },
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot. Raises CheckpointError if it belongs to another model."""
        checkpoint.load_weights(self.model, snapshot.tensors["model"])
        checkpoint.load_weights(self.averaged, snapshot.tensors["ema"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in snapshot.tensors["optimizer"].items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.step = snapshot.step

    # --- the end of the warm start, which variants with other gates share ---------------------------------------------

    def warm_start_state(self) -> Snapshot:
        """Return the state without the gate; optimiser state is keyed by parameter names."""
        names = self._learning_names()
        optimizer = {
            f"{names[index]}/{key}": torch.as_tensor(value)
            for index, state in self.optimizer.state_dict()["state"].items()
            for key, value in state.items()
        }
        groups = {"model": self.model.state_dict(), "ema": self.averaged.state_dict(), "optimizer": optimizer}
        kept = {
            group: {name: tensor for name, tensor in tensors.items() if not name.startswith("gate.")}
            for group, tensors in groups.items()
        }
        return Snapshot(self.step, kept)

    def load_warm_start(self, snapshot: Snapshot) -> None:
        """Continue from a `warm_start_state`; the gate keeps its weights, which the warm start does not train."""
        gate = {name: t for name, t in self.model.state_dict().items() if name.startswith("gate.")}
        index = {name: str(i) for i, name in enumerate(self._learning_names())}
        optimizer = {
            f"{index[name]}.{key}": tensor
            for name, _, key, tensor in (
                (*full.rpartition("/"), tensor) for full, tensor in snapshot.tensors["optimizer"].items()
            )
        }
        groups = {group: {**snapshot.tensors[group], **gate} for group in ("model", "ema")}
        self.restore(Snapshot(snapshot.step, {**groups, "optimizer": optimizer}))

    def _learning_names(self) -> list[str]:
        return [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
