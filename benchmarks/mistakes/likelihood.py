"""Mistakes that were made with bits per dimension."""

from mistakes.mutation import Mutation

_DIFFUSION = "moeframe/diffusion.py"
_BOUND = "moeframe/likelihood/bound.py"
_CONTINUOUS = "moeframe/likelihood/continuous.py"
_DISCRETE = "moeframe/likelihood/discrete.py"
_DEQUANTISATION = "moeframe/likelihood/dequantisation.py"
_ODE = "moeframe/likelihood/ode.py"
_PROBE = "moeframe/likelihood/probe.py"

_T_BOUND = "tests/likelihood/test_likelihood.py::"
_T_DISCRETE = "tests/likelihood/test_discrete_bound.py::"
_T_ODE = "tests/likelihood/test_ode_likelihood.py::"
_T_PROBE = "tests/likelihood/test_likelihood_probe.py::"

MISTAKES = (
    # the error that is claimed
    Mutation(
        "even times taken to have no offset in common",
        "intervals over 30 images hold the truth in 86 % of cases, not 95",
        _BOUND,
        "/ n + offsets)",
        "/ n)",
        (f"{_T_BOUND}test_the_standard_error_matches_the_spread_over_fresh_images_and_draws[30-1]",),
    ),
    # levels and pixels
    Mutation(
        "no dequantisation",
        "a density at grid points: bits/dim fall without limit, below zero",
        _DEQUANTISATION,
        "return Dequantised(centres + half_bin * units, -math.log2(2 * half_bin))",
        "return Dequantised(centres, 0.0)",
        ("tests/likelihood/test_dequantisation.py::test_uniform_noise_fills_the_bin_evenly",),
    ),
    Mutation(
        "entropy of the dequantiser left out of the total",
        "log2(L/2) bits/dim too few: 7 at 256 levels",
        _ODE,
        "return self.prior + self.volume + self.dequantisation",
        "return self.prior + self.volume",
        (f"{_T_ODE}test_a_model_of_uniform_pixels_spends_the_uniform_code_on_every_level",),
    ),
    Mutation(
        "entropy of the cut of the truncated normal left out",
        "off by log2 √(2πe) = 2 bits/dim where the noise fits into its bin, by more where it is cut",
        _DEQUANTISATION,
        "entropy = math.log(noise_scale) + truncated_normal_entropy(reach)",
        "entropy = math.log(noise_scale)",
        ("tests/likelihood/test_dequantisation.py::test_under_strong_noise_the_truncated_normal_is_uniform",),
    ),
    Mutation(
        "scaling from [0, 1] to [-1, 1] without its log-determinant",
        "1 bit/dim too many",
        _DEQUANTISATION,
        "-math.log2(2 * half_bin)",
        "-math.log2(half_bin)",
        (f"{_T_ODE}test_a_model_of_uniform_pixels_spends_the_uniform_code_on_every_level",),
    ),
    Mutation(
        "scaling by α_max without its log-determinant",
        "bits/dim depend on where the flow starts",
        _ODE,
        "volume = torch.full_like(z[:, 0, 0, 0], -log_alpha / math.log(2))",
        "volume = torch.full_like(z[:, 0, 0, 0], 0.0)",
        (f"{_T_ODE}test_the_linear_flow_of_gaussian_data_meets_its_closed_form[uniform--3-2-image0]",),
    ),
    Mutation(
        "255 for 256 levels in the pixel grid",
        "pixels at ±1: bins of another width than the decoder's, biased images",
        _DIFFUSION,
        "return (2 * levels.to(torch.get_default_dtype()) + 1) / n_levels - 1",
        "return 2 * levels.to(torch.get_default_dtype()) / (n_levels - 1) - 1",
        ("tests/test_diffusion.py::test_every_level_survives_the_way_to_pixels_and_back",),
    ),
    Mutation(
        "255 for 256 levels in the decoder's grid",
        "a decoder whose centres lie beside the pixels: unsure of an image that it sees without noise",
        _DIFFUSION,
        "((2 * level + 1) / n_levels - 1)",
        "(2 * level / (n_levels - 1) - 1)",
        ("tests/test_diffusion.py::test_the_decoder_is_sure_of_every_level_when_there_is_hardly_any_noise",),
    ),
    Mutation(
        "255 for 256 levels in the decoder's normaliser",
        "the brightest level has no share: bits/dim too few in bright images",
        _DIFFUSION,
        "for level in range(n_levels):",
        "for level in range(n_levels - 1):",
        ("tests/test_diffusion.py::test_the_decoder_is_a_distribution_over_levels",),
    ),
    Mutation(
        "levels doubled in 8 bits",
        "bright pixels wrap around to dark ones, wherever images come as they are stored",
        _DIFFUSION,
        "(2 * levels.to(torch.get_default_dtype()) + 1) / n_levels",
        "(2 * levels + 1).to(torch.get_default_dtype()) / n_levels",
        ("tests/test_diffusion.py::test_levels_of_8_bits_become_the_pixels_of_wider_ones",),
    ),
    # units
    Mutation(
        "nats for bits",
        "31 % too few",
        _DIFFUSION,
        "return nats / (n_dims * math.log(2))",
        "return nats / n_dims",
        ("tests/test_diffusion.py::test_without_signal_the_decoder_costs_the_uniform_code",),
    ),
    Mutation(
        "bits per pixel for bits per dimension",
        "three times too many for RGB",
        "moeframe/interfaces/component.py",
        "return self.channels * self.height * self.width",
        "return self.height * self.width",
        (f"{_T_BOUND}test_bits_are_per_channel_and_pixel",),
    ),
    # the terms of the bound
    Mutation(
        "prior term left out of the total",
        "too few, by what is left of the image at the noisiest level",
        _BOUND,
        "return self.reconstruction + self.prior + self.diffusion",
        "return self.reconstruction + self.diffusion",
        (f"{_T_BOUND}test_a_noisiest_level_that_is_no_standard_normal_costs_the_divergence_from_it",),
    ),
    Mutation(
        "reconstruction term left out of the total",
        "too few: what the last noise hides is coded for nothing",
        _BOUND,
        "return self.reconstruction + self.prior + self.diffusion",
        "return self.prior + self.diffusion",
        (f"{_T_BOUND}test_the_bound_of_the_true_model_meets_the_exact_code_length",),
    ),
    Mutation(
        "prior term of the continuous bound is zero",
        "the two bounds no longer share their ends",
        _CONTINUOUS,
        "prior=ends.prior",
        "prior=torch.zeros_like(ends.prior)",
        (f"{_T_DISCRETE}test_both_bounds_have_the_same_decoder_and_prior",),
    ),
    Mutation(
        "half of the diffusion term forgotten",
        "the largest term twice too large",
        _DIFFUSION,
        "return 0.5 * torch.sigmoid(log_snr) * _per_item_sum((velocity - predicted) ** 2)",
        "return torch.sigmoid(log_snr) * _per_item_sum((velocity - predicted) ** 2)",
        ("tests/test_diffusion.py::test_the_diffusion_term_is_half_the_squared_error_of_the_noise",),
    ),
    Mutation(
        "error of the velocity taken for that of the noise",
        "noisy levels count 1/α² times too much: no bound of anything",
        _DIFFUSION,
        "return 0.5 * torch.sigmoid(log_snr) * _per_item_sum((velocity - predicted) ** 2)",
        "return 0.5 * _per_item_sum((velocity - predicted) ** 2)",
        ("tests/test_diffusion.py::test_the_diffusion_term_is_half_the_squared_error_of_the_noise",),
    ),
    Mutation(
        "importance weights forgotten",
        "the levels that are drawn more often count more often: a fitted density changes the value",
        _CONTINUOUS,
        "nats = density.inverse(times) * diffusion_nats(",
        "nats = (schedule.log_snr_max - schedule.log_snr_min) * diffusion_nats(",
        ("tests/likelihood/test_importance.py::test_the_fitted_density_is_unbiased_and_has_a_smaller_variance",),
    ),
    Mutation(
        "noise of the bound addressed by the batch instead of the item",
        "bits/dim change with the batch size, and paired variants no longer share their noise",
        _CONTINUOUS,
        'noise = items.normal(image.tensor_shape, "bound/noise").to(x)',
        'noise = items.streams.normal(x.shape, "bound/noise").to(x)',
        (f"{_T_BOUND}test_the_bound_of_an_image_does_not_depend_on_its_batch",),
    ),
    Mutation(
        "difference of SNRs with the wrong sign",
        "a negative diffusion term",
        _DISCRETE,
        "return torch.expm1(cleaner - log_snr) * diffusion_nats(",
        "return torch.expm1(log_snr - cleaner) * diffusion_nats(",
        (f"{_T_DISCRETE}test_every_step_is_improved_ddpms_divergence_between_posteriors",),
    ),
    Mutation(
        "steps off by one",
        "the cleanest step is never paid for",
        _DISCRETE,
        "torch.arange(steps + 1, dtype=torch.float64) / steps)",
        "torch.arange(1, steps + 2, dtype=torch.float64) / (steps + 1))",
        (f"{_T_DISCRETE}test_the_expected_bound_meets_its_closed_form_on_gaussian_data[7-linear]",),
    ),
    Mutation(
        "model asked at the cleaner end of a step",
        "the error of one level counted as that of another: no bound of anything",
        _DISCRETE,
        "log_snr = noisier.to(x.dtype)",
        "log_snr = cleaner.to(x.dtype)",
        (f"{_T_DISCRETE}test_the_expected_bound_meets_its_closed_form_on_gaussian_data[7-linear]",),
    ),
    # the flow
    Mutation(
        "reversed ODE",
        "the flow leads away from the prior",
        _ODE,
        "rate = -0.5 * alpha(log_snr) * sigma(log_snr)",
        "rate = 0.5 * alpha(log_snr) * sigma(log_snr)",
        (f"{_T_ODE}test_the_linear_flow_of_gaussian_data_meets_its_closed_form[uniform--3-2-image0]",),
    ),
    Mutation(
        "divergence with the wrong sign",
        "twice the change of volume off",
        _ODE,
        "volume = volume - growth",
        "volume = volume + growth",
        (f"{_T_ODE}test_the_linear_flow_of_gaussian_data_meets_its_closed_form[uniform--3-2-image0]",),
    ),
    Mutation(
        "gate's gradient dropped from the divergence",
        "a density that does not integrate to one, wherever the gate is undecided",
        "moeframe/model/mixture.py",
        "weights = routing.weights[part.items, part.expert].view(-1, 1, 1, 1)",
        "weights = routing.weights.detach()[part.items, part.expert].view(-1, 1, 1, 1)",
        (f"{_T_ODE}test_the_posterior_gate_gives_the_true_density_of_a_mixture[image0]",),
    ),
    # what is no likelihood
    Mutation(
        "coupling of a batch is not probed",
        "a number for a model that sees the other images of its batch",
        _PROBE,
        "self._require_no_coupling(batch, batched)",
        "pass",
        (f"{_T_PROBE}test_what_is_no_likelihood_is_refused_with_the_reason[mean of the batch-0]",),
    ),
    Mutation(
        "labels are not probed",
        "a number for a gate that knows the slice of the test image",
        _PROBE,
        "self._require_blind_to_numbers(batch, batched)",
        "pass",
        (f"{_T_PROBE}test_what_is_no_likelihood_is_refused_with_the_reason[labels by item number-0]",),
    ),
    Mutation(
        "bits measured on training images",
        "too few for a model that has learnt them by heart",
        "moeframe/evaluation/evaluation.py",
        "yield start, self.test.images(",
        "yield start, self.train.images(",
        ("tests/builtin/test_bits_per_dim.py::test_the_discrete_value_is_the_mean_of_direct_calls",),
    ),
)
