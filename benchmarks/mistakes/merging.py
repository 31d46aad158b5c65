"""Mistakes in merging weights, in trunks and adapters, in what is read and written of other codebases."""

from mistakes.mutation import Mutation

_EXPERTS = "plugins/moeframe_builtin/experts/"
_LORA = f"{_EXPERTS}lora.py"
_SWEEP = "moeframe/runs/sweep.py"
_T_WEIGHTS = "tests/builtin/test_weight_space.py::"
_T_TRUNK = "tests/model/test_trunk.py::"
_T_EDM = "tests/pretrained/test_edm_expert.py::"
_T_EXPORT = "tests/pretrained/test_export.py::"

MISTAKES = (
    # weight space
    Mutation(
        "task arithmetic forgets the base",
        "differences alone, a network of noise",
        f"{_EXPERTS}task_arithmetic.py",
        "return base + self.config.scale *",
        "return self.config.scale *",
        (f"{_T_WEIGHTS}test_task_arithmetic_adds_what_the_others_learned",),
    ),
    Mutation(
        "weights of another parametrisation averaged",
        "the mean of a noise and a velocity prediction",
        f"{_EXPERTS}support/weight_space.py",
        "if _text(part) != _text(first):",
        "if False:",
        (f"{_T_WEIGHTS}test_another_parametrisation_is_refused_although_every_tensor_fits",),
    ),
    Mutation(
        "slerp's fraction reversed",
        "the other end of the arc",
        f"{_EXPERTS}slerp.py",
        "(math.sin((1 - fraction) * angle) * first + math.sin(fraction * angle) * second)",
        "(math.sin(fraction * angle) * first + math.sin((1 - fraction) * angle) * second)",
        (f"{_T_WEIGHTS}test_slerp_goes_from_one_end_to_the_other_keeping_angle_and_length",),
    ),
    # trunk and adapters
    Mutation(
        "the trunk run for every expert",
        "K times the cost of the shared layers",
        "moeframe/model/mixture.py",
        "own = features if everything else features.at(items)",
        "own = self.trunk(own_z, own_log_snr)",
        (f"{_T_TRUNK}test_the_trunk_is_run_once_per_step_whatever_k_and_however_many_are_asked",),
    ),
    Mutation(
        "an adapter that does not start at zero",
        "upcycling begins from another model than the pretrained one",
        _LORA,
        "self.up[key] = nn.Parameter(torch.zeros(outputs, rank))",
        "self.up[key] = nn.Parameter(torch.randn(outputs, rank))",
        (f"{_T_TRUNK}test_before_training_every_adapter_is_the_trunks_own_network",),
    ),
    Mutation(
        "LoRA scaled by its rank twice",
        "updates that shrink with the rank",
        _LORA,
        "(self.config.scale / len(down))",
        "(self.config.scale / len(down) ** 2)",
        (f"{_T_TRUNK}test_lora_is_the_low_rank_update_of_every_later_weight",),
    ),
    Mutation(
        "a frozen trunk trained all the same",
        "an upcycled base that drifts",
        "moeframe/training/trainer.py",
        'if trunk is not None and (trunk.frozen or self.config.trainable != "all"):',
        "if trunk is not None and trunk.frozen is None:",
        (f"{_T_TRUNK}test_training_moves_the_trunk_unless_it_is_frozen",),
    ),
    # checkpoints of others
    Mutation(
        "the class of a conditional network ignored",
        "every class expert is the same network",
        "plugins/moeframe_pretrained/edm/adm_network.py",
        "embedding = embedding + self.map_label.weight[:, self.label]",
        "embedding = embedding + 0 * self.map_label.weight[:, self.label]",
        (f"{_T_EDM}test_a_conditional_network_is_another_expert_for_each_class",),
    ),
    Mutation(
        "attention heads of ADM taken as one",
        "queries compared across heads",
        "plugins/moeframe_pretrained/edm/adm_network.py",
        "            channels_per_head=CHANNELS_PER_HEAD,\n",
        "",
        (f"{_T_EDM}test_velocity_is_that_of_the_denoiser_of_edms_table_1_on_edms_pixel_grid",),
    ),
    Mutation(
        "an exported pipeline on our own pixel grid",
        "noise levels and pixels off by L / (L - 1)",
        "plugins/moeframe_pretrained/diffusers/pipeline.py",
        "self.grid = PixelGrid(1 / PixelGrid.reaching_both_ends(levels).scale)",
        "self.grid = PixelGrid(1.0)",
        (f"{_T_EXPORT}test_diffusers_own_pipeline_samples_what_the_merged_model_says",),
    ),
    Mutation(
        "an export that drops what was trained on",
        "the file's weights under the trained model's figures",
        "plugins/moeframe_pretrained/moeframe_runs/mixture_folder.py",
        "if isinstance(core, AdapterExpert) or _was_trained(core):",
        "if isinstance(core, AdapterExpert):",
        (f"{_T_EXPORT}test_a_foreign_checkpoint_that_was_trained_on_is_exported_as_it_is_now",),
    ),
    # sweep and gates
    Mutation(
        "a sweep compares with itself",
        "differences of zero",
        _SWEEP,
        "for point in (merge, points[name]))",
        "for point in (merge, merge))",
        (
            "tests/runs/test_sweep.py::"
            "test_a_sweep_over_several_seeds_gives_means_and_compares_the_merge_with_each_expert_seed_by_seed",
        ),
    ),
    Mutation(
        "experts of the first seed for every seed",
        "intervals over seeds that are one seed",
        "plugins/moeframe_pretrained/moeframe_runs/run.py",
        'return self.model_copy(update={"seed": seed}) if self.seed == "same" else self',
        "return self",
        (
            "tests/pretrained/test_run_expert.py::"
            "test_with_seed_same_each_seed_of_a_run_takes_the_expert_of_its_own_seed",
        ),
    ),
    Mutation(
        "mutual information of the wrong sign",
        "a gate that is undecided and collapsed",
        "plugins/moeframe_builtin/losses/mutual_info.py",
        "_entropy(probabilities.mean(0)) - _entropy(probabilities).mean()",
        "_entropy(probabilities).mean() - _entropy(probabilities.mean(0))",
        (
            "tests/builtin/test_losses.py::test_mutual_info_is_zero_when_decided_and_balanced_and_log_k_when_the_image_says_nothing",
        ),
    ),
)
