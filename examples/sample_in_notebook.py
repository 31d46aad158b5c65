"""Load a finished run and use its parts as torch modules.

moeframe run specs/digits.yaml
python examples/sample_in_notebook.py runs/digits
"""

import sys

import torch

import moeframe

run = moeframe.load(sys.argv[1] if len(sys.argv) > 1 else "runs/digits")

images = run.sample(16, seed=1)
print("samples:", tuple(images.shape), "levels", int(images.min()), "to", int(images.max()))

states = run.trajectory(4)
print("states of one trajectory:", len(states), "network calls per image:", states[-1].network_calls / 4)

# The merged model is a function of noisy images and their log-SNR.
z = torch.randn(4, *images.shape[1:])
for log_snr in (-4.0, 0.0, 4.0):
    with torch.no_grad():
        denoised = run.denoiser(z, torch.full((4,), log_snr))
    print(
        f"log-SNR {log_snr:+.0f}: mean gate weights", [round(w, 3) for w in denoised.routing.weights.mean(0).tolist()]
    )

print("experts:", [type(expert).__name__ for expert in run.experts], "gate:", type(run.gate).__name__)
