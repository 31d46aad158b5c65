"""Mistakes that were made in merging, training and random draws."""

from mistakes.mutation import Mutation

_DIFFUSION = "moeframe/diffusion.py"
_RANDOMNESS = "moeframe/randomness.py"
_TRAINING = "moeframe/training/trainer.py"

MISTAKES = (
    # predictions
    Mutation(
        "sign of the velocity",
        "x and ε come back mirrored",
        _DIFFUSION,
        "return a * noise - s * x",
        "return s * x - a * noise",
        ("tests/test_diffusion.py::test_the_true_velocity_gives_back_image_and_noise",),
    ),
    Mutation(
        "images clipped before merging",
        "a merge of clipped images: biased where experts disagree beyond the range",
        "moeframe/model/mixture.py",
        "    velocity: Images = expert(z, log_snr)\n    return velocity",
        "    image = image_from_velocity(expert(z, log_snr), z, log_snr).clamp(-1, 1)\n"
        "    return velocity_from_image(image, z, log_snr)",
        ("tests/builtin/test_samplers.py::test_the_merged_image_is_clipped_not_the_experts_images",),
    ),
    Mutation(
        "one noise for all steps of the ancestral sampler",
        "samples of too much variance",
        "plugins/moeframe_builtin/samplers/ancestral.py",
        'trajectories.normal(z.shape[1:], "ancestral", i)',
        'trajectories.normal(z.shape[1:], "ancestral")',
        ("tests/builtin/test_samplers.py::test_samples_of_a_gaussian_have_its_mean_and_spread[AncestralSampler]",),
    ),
    # gates and their losses
    Mutation(
        "top-k without renormalising",
        "weights that sum to less than one: images pulled to grey",
        "plugins/moeframe_builtin/gates/top_k.py",
        "weights = weights / weights.sum(1, keepdim=True)",
        "weights = weights / 1.0",
        ("tests/builtin/test_gates.py::test_top_k_gives_exactly_k_renormalised_weights_of_the_most_probable",),
    ),
    Mutation(
        "load balance minimal at uniform use whatever the prior",
        "the gate is pushed away from the sizes of the slices",
        "plugins/moeframe_builtin/losses/load_balance.py",
        'self.slice_shares if self.config.prior == "slices" else (1 / len(mean),) * len(mean)',
        "(1 / len(mean),) * len(mean)",
        ("tests/builtin/test_losses.py::test_load_balance_is_zero_at_its_prior",),
    ),
    Mutation(
        "load balance of each item instead of the batch",
        "a decided gate is punished: minimal at undecided weights",
        "plugins/moeframe_builtin/losses/load_balance.py",
        "return (mean * (mean.clamp_min(torch.finfo(mean.dtype).tiny) / prior).log()).sum()",
        "each = step.denoised.routing.probabilities\n"
        "        return (each * (each.clamp_min(torch.finfo(each.dtype).tiny) / prior).log()).sum(1).mean()",
        ("tests/builtin/test_losses.py::test_load_balance_is_zero_at_its_prior",),
    ),
    Mutation(
        "sign of the entropy",
        "the gate is rewarded for collapse",
        "plugins/moeframe_builtin/losses/entropy.py",
        "return (math.log(probabilities.shape[1]) - entropy).mean()",
        "return entropy.mean()",
        ("tests/builtin/test_losses.py::test_entropy_is_zero_at_the_uniform_gate_and_log_k_at_a_decided_one",),
    ),
    # random draws
    Mutation(
        "one noise for all images of a batch",
        "samples that resemble one another, estimates whose error is hidden",
        _RANDOMNESS,
        "self.streams.normal(shape, purpose, item, *address)",
        "self.streams.normal(shape, purpose, *address)",
        ("tests/test_randomness.py::test_every_item_has_draws_of_its_own",),
    ),
    Mutation(
        "all seeds draw the same",
        "no spread over seeds: intervals of width zero",
        _RANDOMNESS,
        '"\\x1f".join([str(seed), purpose, ',
        '"\\x1f".join([purpose, ',
        ("tests/test_randomness.py::test_keys_differ_by_seed_and_by_purpose",),
    ),
    Mutation(
        "one constant time for low-discrepancy times",
        "one noise level stands for the whole integral",
        _RANDOMNESS,
        "offset + torch.arange(n, dtype=torch.float64) / n",
        "offset + torch.zeros(n, dtype=torch.float64)",
        ("tests/test_randomness.py::test_low_discrepancy_puts_one_point_in_each_interval",),
    ),
    Mutation(
        "training noise from a global generator",
        "paired variants see other noise, and a resumed run is another run",
        _TRAINING,
        'noise = a.streams.normal(x.shape, f"{purpose}/noise", step)',
        "noise = torch.randn(x.shape)",
        ("tests/training/test_training.py::test_two_variants_of_one_seed_see_the_same_batches_and_noise",),
    ),
    # training
    Mutation(
        "average of the weights never updated",
        "the first weights are evaluated",
        _TRAINING,
        "        self.ema.update(self.step)\n",
        "",
        ("tests/training/test_training.py::test_averaged_weights_follow_the_stated_decay",),
    ),
    Mutation(
        "warm start on all slices",
        "experts that differ by their initial weights alone",
        _TRAINING,
        'sources = [(f"warm_start/{k}", members) for k, members in enumerate(self.assembly.slices.members)]',
        'sources = [(f"warm_start/{k}", torch.arange(len(self.assembly.train)))\n'
        "                   for k, _ in enumerate(self.assembly.slices.members)]",
        ("tests/training/test_training.py::test_warm_start_shows_each_expert_its_own_slice_only",),
    ),
    Mutation(
        "run measured with the raw weights",
        "figures of a model that nobody publishes",
        "moeframe/runs/seed_training.py",
        'model = trainer.averaged if trainer.assembly.spec.evaluation.weights == "ema" else trainer.model',
        "model = trainer.model",
        ("tests/runs/test_runs.py::test_evaluating_a_finished_run_finds_the_figures_of_the_run",),
    ),
    Mutation(
        "raw weights loaded",
        "samples and evaluations of a finished run are not those of its report",
        "moeframe/runs/loaded.py",
        'checkpoint.load(newest).tensors["ema" if spec.evaluation.weights == "ema" else "model"]',
        'checkpoint.load(newest).tensors["model"]',
        ("tests/runs/test_runs.py::test_evaluating_a_finished_run_finds_the_figures_of_the_run",),
    ),
    Mutation(
        "validation curve of the raw weights",
        "a noisier curve, of another model than the one that is reported",
        "moeframe/runs/seed_training.py",
        "measure_validation(self.trainer.assembly, self.trainer.averaged, self.trainer.step)",
        "measure_validation(self.trainer.assembly, self.trainer.model, self.trainer.step)",
        ("tests/runs/test_runs.py::test_the_validation_curve_is_of_the_averaged_weights",),
    ),
)
