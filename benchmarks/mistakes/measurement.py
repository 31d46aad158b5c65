"""Mistakes that were made with samples, feature distances, reconstructions and comparisons."""

from mistakes.mutation import Mutation

_COMPARISON = "moeframe/stats/comparison.py"
_EVALUATION = "moeframe/evaluation/evaluation.py"
_STORE = "moeframe/storage/sample_store.py"
_FEATURES = "plugins/moeframe_builtin/features/"
_METRICS = "plugins/moeframe_builtin/metrics/"

_T_FEATURES = "tests/builtin/test_feature_metrics.py::"
_T_FRECHET = "tests/builtin/test_frechet_distance.py::"
_T_RECONSTRUCTIONS = "tests/builtin/test_reconstruction_metrics.py::"
_T_COMPARISONS = "tests/stats/test_comparisons.py::"
_T_STORE = "tests/storage/test_sample_store.py::"

MISTAKES = (
    Mutation(
        "sampling noise of a variant's own",
        "paired samples differ by their noise, and the interval of their difference is as wide as of unpaired ones",
        "moeframe/evaluation/evaluation.py",
        '"sampling/noise")',
        'f"sampling/noise/{len(self.experts[0].state_dict())}/{self.gate and self.gate.name()}")',
        (
            "tests/evaluation/test_diagnostics.py::test_variants_of_a_seed_begin_from_the_same_noise_and_other_seeds_from_another",
        ),
    ),
    # samples
    Mutation(
        "every batch of samples starts from the same noise",
        "copies: a sample set of one batch, whatever its stated N",
        _EVALUATION,
        "items = Trajectories.numbered(self.streams, start, stop)",
        "items = Trajectories.numbered(self.streams, 0, stop - start)",
        (f"{_T_STORE}test_samples_do_not_depend_on_how_many_are_drawn_at_a_time",),
    ),
    Mutation(
        "dropout left on while sampling",
        "noisier samples that cannot be drawn again",
        _EVALUATION,
        "offload=assembly.spec.evaluation.offload).eval()",
        "offload=assembly.spec.evaluation.offload)",
        (f"{_T_STORE}test_samples_are_drawn_without_dropout",),
    ),
    Mutation(
        "samples of other weights reused",
        "an improved model keeps the scores of the old one",
        _EVALUATION,
        ".view(torch.uint8).numpy().tobytes())",
        ".view(torch.uint8).numpy().tobytes()[:0])",
        (f"{_T_STORE}test_other_weights_seeds_samplers_and_schedules_draw_their_own",),
    ),
    Mutation(
        "key of stored samples not compared",
        "samples of whichever model was sampled first",
        _STORE,
        "if (file.metadata() or {}).get(KEY) != self._key:",
        "if KEY not in (file.metadata() or {}):",
        (f"{_T_STORE}test_samples_of_another_model_are_drawn_anew",),
    ),
    Mutation(
        "pixels beyond the range wrap around in 8 bits",
        "white specks in black areas",
        "moeframe/diffusion.py",
        ".floor().clamp(0, n_levels - 1).long()",
        ".floor().long() % n_levels",
        (f"{_T_STORE}test_pixels_beyond_the_range_become_the_outermost_levels",),
    ),
    Mutation(
        "255 for 256 levels in samples",
        "darker samples: half a level on average",
        "moeframe/diffusion.py",
        "((pixels + 1) * n_levels / 2)",
        "((pixels + 1) * (n_levels - 1) / 2)",
        (f"{_T_STORE}test_every_level_of_a_sample_survives",),
    ),
    # what networks see
    Mutation(
        "training images as the reference",
        "a better distance for a model that copies its training data",
        _METRICS + "support/feature_source.py",
        "return self._real(self._config.reference, self.reference_n)",
        'return self._real("train", self.reference_n)',
        ("tests/builtin/test_feature_spaces.py::test_a_torchscript_space_goes_by_its_file_and_hash",),
    ),
    Mutation(
        "the first images of a folder as the reference",
        "a reference of a few classes",
        _METRICS + "support/feature_source.py",
        'self._evaluation.streams.permutation(len(examples), "features/real images", split)[:n]',
        "torch.arange(n)",
        (f"{_T_FEATURES}test_a_subset_of_the_reference_is_drawn_by_the_seed_not_the_first",),
    ),
    Mutation(
        "the first images of a folder for likelihoods and reconstructions",
        "an interval for the split around the figure of a few classes",
        "moeframe/assembly.py",
        'return Streams(0).permutation(available, "test images")[:n]',
        "return torch.arange(n)",
        (f"{_T_STORE}test_a_few_test_images_are_drawn_at_random_the_same_for_every_seed_and_all_are_in_order",),
    ),
    Mutation(
        "reconstructions that are not finite taken for black ones",
        "a plausible PSNR of a model that failed",
        "moeframe/evaluation/evaluation.py",
        "if broken := torch.nonzero(~found.finite).flatten().tolist():",
        "if broken := []:",
        (f"{_T_STORE}test_reconstructions_that_are_not_finite_are_counted_and_no_metric_gets_them",),
    ),
    Mutation(
        "levels multiplied in 8 bits before they are scaled",
        "wrapped around: noise for a network",
        _FEATURES + "space.py",
        "(levels.double() * HIGHEST_LEVEL / (n_levels - 1)).round()",
        "(levels.to(torch.uint8) * HIGHEST_LEVEL / (n_levels - 1)).round()",
        (f"{_T_FEATURES}test_levels_scale_to_8_bits_by_rounding_to_the_nearest",),
    ),
    Mutation(
        "BGR for RGB into feature networks",
        "another distance than that of the literature",
        _FEATURES + "space.py",
        "if levels.shape[1] == 1 else scaled",
        "if levels.shape[1] == 1 else scaled.flip(1)",
        (f"{_T_FEATURES}test_channels_keep_their_order",),
    ),
    Mutation(
        "BGR for RGB in image files",
        "blue faces",
        "plugins/moeframe_builtin/datasets/formats/decoding.py",
        "torch.from_numpy(np.array(image))",
        "torch.from_numpy(np.array(image)[..., ::-1].copy())",
        ("tests/builtin/test_image_folder.py::test_the_centre_square_is_kept",),
    ),
    Mutation(
        "aliased resize of image files",
        "data with jagged edges, which models learn",
        "plugins/moeframe_builtin/datasets/formats/decoding.py",
        "Image.Resampling.LANCZOS)",
        "Image.Resampling.NEAREST)",
        ("tests/builtin/test_image_folder.py::test_shrinking_is_antialiased",),
    ),
    Mutation(
        "aliased resize in front of a feature network",
        "a distance that depends on single pixels (Parmar et al. 2022)",
        _FEATURES + "efficientnet.py",
        "antialias=True",
        "antialias=False",
        (f"{_T_FEATURES}test_a_pattern_finer_than_the_networks_pixels_is_seen_as_its_mean",),
    ),
    Mutation(
        "[0, 1] for [-1, 1] into LPIPS",
        "distances several times too small",
        _METRICS + "support/lpips_network.py",
        "return (2 * levels.float() / (n_levels - 1) - 1).expand(",
        "return (levels.float() / (n_levels - 1)).expand(",
        ("tests/builtin/test_perceptual_metrics.py::test_lpips_is_the_mean_of_the_packages_own[squeeze-shape1]",),
    ),
    # distances
    Mutation(
        "covariances divided by N",
        "a Fréchet distance that differs from torch-fidelity's at small N",
        _METRICS + "support/frechet_distance.py",
        "return cls.with_covariance(mean, covariance / (n - 1))",
        "return cls.with_covariance(mean, covariance / n)",
        (f"{_T_FRECHET}test_the_distance_of_features_is_torch_fidelitys",),
    ),
    Mutation(
        "product of roots for root of the product",
        "tr(Σ1^½ Σ2^½) for tr((Σ1 Σ2)^½): right for commuting covariances alone, else too large",
        _METRICS + "support/frechet_distance.py",
        "return _distance(first, second, torch.linalg.svdvals(first.overlap(second)))",
        "return _distance(first, second, first.overlap(second) * (first.axes.T @ second.axes))",
        (f"{_T_FRECHET}test_the_distance_of_any_two_gaussians_is_that_of_the_matrix_root",),
    ),
    Mutation(
        "biased kernel distance: the diagonal is kept",
        "too large, the more the fewer images",
        _METRICS + "kid.py",
        "return float(np.mean(distances)), float(np.std(distances))",
        "pairs = ((first, first), (second, second), (first, second))\n"
        "    one, two, cross = (float(_sum_of_kernel(a.double(), b).mean()) / len(b) for a, b in pairs)\n"
        "    return one + two - 2 * cross, float(np.std(distances))",
        (f"{_T_FRECHET}test_the_error_of_the_squared_mmd_is_that_of_leaving_out_each_image",),
    ),
    Mutation(
        "jackknife that counts pairs of images twice",
        "intervals of a Fréchet distance that hold the mean in 99 % where samples are as good as real images",
        _METRICS + "support/frechet_distance.py",
        "math.sqrt(max(1.5 * jackknife - 0.25 * halves, jackknife / 2))",
        "math.sqrt(max(jackknife, halves / 4))",
        (f"{_T_FRECHET}test_the_interval_of_equal_distributions_covers_as_well",),
    ),
    Mutation(
        "every state of a trajectory is kept",
        "memory of as many images as there are steps, in peak_memory too",
        "moeframe/interfaces/sampler.py",
        "[last] = deque(states, maxlen=1)",
        "*_, last = deque(states)",
        ("tests/storage/test_sample_store.py::test_no_state_of_a_trajectory_is_kept_but_the_last",),
    ),
    # reconstructions
    Mutation(
        "reconstructions start at the noisiest time",
        "images are reconstructed from another noise level than stated",
        _EVALUATION,
        "times = torch.linspace(time, 0.0, RECONSTRUCTION_STEPS, dtype=torch.float64)",
        "times = torch.linspace(1.0, 0.0, RECONSTRUCTION_STEPS, dtype=torch.float64)",
        (f"{_T_RECONSTRUCTIONS}test_reconstruction_starts_at_the_stated_noise_level",),
    ),
    Mutation(
        "PSNR with a peak of 1",
        "48 dB too low at 256 levels",
        _METRICS + "psnr.py",
        "peak = evaluation.image.levels - 1",
        "peak = 1",
        (f"{_T_RECONSTRUCTIONS}test_psnr_is_the_mean_of_scikit_images",),
    ),
    Mutation(
        "PSNR with a peak of 255 whatever the levels",
        "24 dB too high at 17 levels",
        _METRICS + "psnr.py",
        "peak = evaluation.image.levels - 1",
        "peak = 255",
        (f"{_T_RECONSTRUCTIONS}test_psnr_is_the_mean_of_scikit_images",),
    ),
    Mutation(
        "SSIM without its Gaussian window",
        "another figure than Wang's",
        _METRICS + "ssim.py",
        "gaussian_weights=True",
        "gaussian_weights=False",
        (f"{_T_RECONSTRUCTIONS}test_ssim_is_the_mean_of_scikit_images_with_the_settings_of_wang",),
    ),
    Mutation(
        "SSIM of levels with a data range of 1",
        "constants that no longer steady the quotient: too low in flat areas",
        _METRICS + "ssim.py",
        "data_range=peak,",
        "data_range=1,",
        (f"{_T_RECONSTRUCTIONS}test_ssim_is_the_mean_of_scikit_images_with_the_settings_of_wang",),
    ),
    # comparisons
    Mutation(
        "standard deviation for standard error",
        "intervals √n times too wide",
        "moeframe/stats/intervals.py",
        "(sd(values) or 0.0) / math.sqrt(len(values))",
        "(sd(values) or 0.0)",
        (f"{_T_RECONSTRUCTIONS}test_the_interval_is_of_the_mean_over_images",),
    ),
    Mutation(
        "1.96 for Student's t",
        "intervals of three seeds that hold the truth in 81 % of cases",
        "moeframe/stats/intervals.py",
        "half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * spread",
        "half = float(stats.norm.ppf((1 + level) / 2)) * spread",
        ("tests/stats/test_intervals.py::test_t_interval_of_three_seeds_uses_two_degrees_of_freedom",),
    ),
    Mutation(
        "Holm's correction without its running maximum",
        "a larger p-value is adjusted to a smaller one",
        _COMPARISON,
        "highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))",
        "highest = min(1.0, (len(p_values) - rank) * p_values[i])",
        (f"{_T_COMPARISONS}test_holm_meets_a_worked_example",),
    ),
    Mutation(
        "no correction for the number of rows",
        "a star for one table of noise in three",
        _COMPARISON,
        "(len(p_values) - rank) * p_values[i]",
        "p_values[i]",
        (f"{_T_COMPARISONS}test_holm_meets_a_worked_example",),
    ),
    Mutation(
        "unpaired comparison",
        "the spread over seeds hides what the variants share",
        _COMPARISON,
        "_p_student(centre * math.sqrt(n) / spread, n - 1)",
        "_p_student(\n"
        "            centre * n**0.5 / math.hypot(*(sd(side) or 0.0 for side in zip(*pairs, strict=True))), 2 * n - 2\n"
        "        )",
        (f"{_T_COMPARISONS}test_a_difference_that_all_seeds_share_is_not_hidden_by_their_spread",),
    ),
    Mutation(
        "missing seeds close up",
        "values of different seeds are compared as if they were one",
        _COMPARISON,
        "pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]",
        "pairs = list(zip((x for x in a if x is not None), (y for y in b if y is not None), strict=False))",
        (f"{_T_COMPARISONS}test_seeds_that_one_side_lacks_are_dropped_and_counted",),
    ),
)
