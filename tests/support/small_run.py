"""The folder of a finished run, with figures of our choice."""

import json
import math

import torch

from moeframe.storage.images import write_grid
from moeframe.storage.results import combine_seeds, write_results

LOG_SNR = [-10.0 + i for i in range(21)]
SLICES = ["digits 0-2", "digits 3-5", "digits 6-7", "digits <8-9> & $x"]


def bpd(value, k):
    return {
        "value": value,
        "unit": "bits/dim",
        "better": "lower",
        "role": "likelihood",
        "n": 360,
        "how": {
            "estimator": "continuous-time variational bound (VDM)",
            "log_snr_range": [-10.0, 10.0],
            "interval_method": "95 % normal interval from the standard error over images",
            "per_expert": {f"expert {i}": 2.5 + i / 10 for i in range(k)},
            "note": "<script>alert('how')</script>",
        },
        "interval": [value - 0.02, value + 0.02],
        "parts": {"reconstruction": 0.011, "prior": 0.0021, "diffusion": value - 0.0131},
    }


def frechet(value):
    how = {"features": "EfficientNet-Lite0 (not Inception: this is not FID)", "real against real": 41.2}
    return {
        "value": value,
        "unit": "squared distance",
        "better": "lower",
        "role": "quality",
        "n": 2000,
        "how": how,
        "interval": None,
        "parts": {},
    }


def psnr(value):
    parts = {f"log_snr {level}": value + 2 * level for level in (2, -2, 0)}
    return {
        **frechet(value),
        "role": "reconstruction",
        "unit": "dB",
        "better": "higher",
        "how": {"caution": "few images"},
        "parts": parts,
    }


def wave(phase, i):
    return 0.5 + 0.4 * math.sin(i / 4 + phase)


def events(k):
    lines = []
    for phase, steps in (("warm_start", 600), ("joint", 1200)):
        for step in range(0, steps, 2):
            loss = 2.2 + 6 * math.exp(-step / 80) + 0.3 * math.sin(step * 1.7)
            terms = {"nll": {"value": loss, "unit": "bits/dim", "weight": 1.0}}
            if k > 1 and phase == "joint":
                terms["load_balance"] = {"value": 0.2 * math.exp(-step / 200), "unit": "nats", "weight": 0.1}
                terms["entropy"] = {"value": 0.1 + step / 5000, "unit": "nats", "weight": 0.01}
            lines.append(
                {
                    "kind": "train",
                    "step": step,
                    "phase": phase,
                    "objective": loss,
                    "terms": terms,
                    "experts": [loss + i / 5 if phase == "warm_start" else None for i in range(k)],
                    "gradient_norm": 1.0,
                    "learning_rate": 1e-3,
                    "usage": [1 / k] * k,
                }
            )
        lines += [
            {
                "kind": "validation",
                "step": step,
                "phase": phase,
                "bits_per_dim": 2.3 + 5 * math.exp(-step / 90),
                "n": 360,
            }
            for step in range(100, steps + 1, 100)
        ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def diagnostics(k):
    always = {
        "bound_by_log_snr": {
            "log_snr": LOG_SNR,
            "merged": [0.3 * math.exp(-(x**2) / 20) for x in LOG_SNR],
            "experts": [[0.3 * math.exp(-((x - i) ** 2) / 22) + 0.01 * i for x in LOG_SNR] for i in range(k)],
            "unit": "bits/dim per unit log-SNR",
        },
        "reconstruction_log_snr": 0.0,
        "trajectory_log_snr": [-10.0, -6.0, -3.0, 0.0, 3.0, 10.0],
    }
    if k == 1:
        return always
    raw = [[math.exp(3 * wave(j, i)) for j in range(k)] for i in range(21)]
    return always | {
        "gate_weights": {"log_snr": LOG_SNR, "mean": [[w / sum(row) for w in row] for row in raw]},
        "expert_usage": [0.31, 0.27, 0.22, 0.2],
        "slices": {"names": SLICES, "train": [430, 410, 390, 207], "test": [100, 90, 95, 75]},
        "expert_slice_bits": {
            "matrix": [[2.2 + 0.45 * (i != j) + 0.05 * j for j in range(k)] for i in range(k)],
            "merged": [2.21, 2.25, 2.3, 2.36],
            "n": [100, 90, 95, 75],
        },
        "router_accuracy": {
            "log_snr": LOG_SNR,
            "accuracy": [0.25 + 0.7 / (1 + math.exp(-x)) for x in LOG_SNR],
            "per_slice": [[0.2 + 0.03 * j + 0.65 / (1 + math.exp(-x + j)) for j in range(k)] for x in LOG_SNR],
            "chance": 0.28,
        },
    }


def make_folder(folder, k=4, seeds=(0, 1, 2)):
    experts = f"experts:\n- {{type: unet, copies: {k}, width: 32}}\n"
    gate = "gate: {type: softmax}\n" if k > 1 else "gate: null\n"
    spec = f"# <b>bold</b>\nname: digits-soft\nseeds: {list(seeds)}\ndataset: {{type: digits}}\n{experts}{gate}"
    folder.mkdir()
    (folder / "spec.yaml").write_text(spec)
    environment = {"python": "3.11.9", "torch": "2.5.1", "device": "cpu (2 threads)", "moeframe": "0.1.0"}
    (folder / "environment.json").write_text(json.dumps(environment))
    card = {
        "source": "UCI optical digits, https://archive.ics.uci.edu/dataset/80",
        "licence": "CC BY 4.0",
        "splits": {"train": 1437, "test": 360},
        "levels": 17,
        "transformations": ["none: the images are used as they are", "split by the seeded hash of the index"],
    }
    (folder / "card.json").write_text(json.dumps(card))
    per_seed = {}
    for seed in seeds:
        per_seed[seed] = {
            "bits_per_dim": bpd(2.31 + 0.011 * seed**2, k),
            "frechet_efficientnet": frechet(52.3 - seed),
            "parameters": {**frechet(1234567), "unit": "parameters", "how": {"counted": "all tensors"}},
            "psnr": psnr(24.0 + seed),
            "fid": {"unavailable": "needs the Inception weights; put pt_inception.pth at <cache> & run again"},
        }
        at = folder / f"seed-{seed}"
        at.mkdir()
        (at / "metrics.json").write_text(json.dumps(per_seed[seed]))
        (at / "events.jsonl").write_text(events(k))
        (at / "diagnostics.json").write_text(json.dumps(diagnostics(k)))
        images = torch.randint(0, 17, (64, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
        write_grid(at / "samples.png", images, 17, columns=16, scale=6)
        write_grid(at / "trajectory.png", images[:24], 17, columns=6, scale=6)
        write_grid(at / "reconstructions.png", images[:32], 17, columns=16, scale=6)
    write_results(folder / "results.json", combine_seeds("digits-soft", "0f3a", environment, per_seed))
    return folder
