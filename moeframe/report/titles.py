"""What a reader sees in place of the keys of results.json, diagnostics.json and card.json."""

import re
from collections.abc import Mapping

METRICS: Mapping[str, str] = {
    "bits_per_dim": "bits/dim",
    "frechet": "Fréchet distance",
    "kid": "kernel distance",
    "network_calls": "network calls",
    "parameters, active": "active parameters",
    "inception_score": "Inception score",
}
"""Titles of metrics whose key and unit do not make one."""

PARTS: Mapping[str, str] = {
    "real_against_real": "train/test reference distance",
    "at_floor_n": "reference distance at matched N",
    "at_infinite_n": "extrapolated to infinite N",
    "real_images": "score of real images",
    "real_pairs": "distance between real images",
    "active_per_sample": "active per sample",
    "sd_of_subsets": "SD over subsets",
    "weights_sha256": "SHA-256 of the weights",
    "n": "sample size",
    "chosen": "images chosen",
    "against": "reference images",
    "exact": "exact reconstructions",
    "exact_left_out": "exact reconstructions excluded",
    "uniform_model": "bits/dim of a uniform model",
    "from_log_snr": "log-SNR of the noised images",
    "pairs": "image pairs",
}
"""Titles of the parts of a metric, and of the facts on how it was measured."""

WORDS: Mapping[str, str] = {
    **{word: word.upper() for word in ("fid", "kid", "psnr", "ssim", "lpips", "fld", "id", "sd", "ema", "gpu", "cpu")},
    "frechet": "Fréchet",
    "flops": "FLOPs",
    "snr": "SNR",
    "sha256": "SHA-256",
}
"""How the field writes these words."""


def metric_titles(units: Mapping[str, str]) -> dict[str, str]:
    """The title of each metric, from its key and unit; two that would be alike keep their keys, in words.

    >>> metric_titles({"bits_per_dim": "bits/dim", "psnr": "dB", "kid": "KID, Inception features"})
    {'bits_per_dim': 'bits/dim', 'psnr': 'PSNR', 'kid': 'KID'}
    """
    found = {name: _metric_title(name, unit) for name, unit in units.items()}
    titles = list(found.values())
    return {name: title if titles.count(title) == 1 else f"{title} ({in_words(name)})" for name, title in found.items()}


def _metric_title(name: str, unit: str) -> str:
    """A unit such as "FID, features of ..." names the metric before its comma, and the key may claim too much."""
    head = unit.split(",")[0] if "," in unit else ""
    return head if head in ("FID", "KID") else METRICS.get(name, head or in_words(name))


def key_title(key: object) -> str:
    """The title of a part of a metric or of a fact beside it.

    >>> key_title("at_floor_n"), key_title("network_calls_per_image"), key_title("log_snr -2")
    ('reference distance at matched N', 'network calls per image', 'log-SNR -2')
    """
    return PARTS.get(str(key)) or in_words(str(key))


def in_words(key: str) -> str:
    """A key as words.

    >>> in_words("psnr"), in_words("weighted_precision"), in_words("log_snr_range")
    ('PSNR', 'weighted precision', 'log-SNR range')
    """
    words = [WORDS.get(word, word) for word in key.replace("log_snr", "log-SNR").replace("_", " ").split(" ")]
    return " ".join(words)


def without_keys(text: str) -> str:
    """Return a text of a metric with titles in place of the keys that it mentions.

    >>> without_keys("compare at_floor_n with real_against_real")
    'compare “reference distance at matched N” with “train/test reference distance”'
    """
    keys = "|".join(key for key in PARTS if "_" in key and "log_snr" not in key)
    return re.sub(rf"\b({keys})\b", lambda key: f"“{PARTS[key[0]]}”", text.replace("log_snr", "log-SNR"))
