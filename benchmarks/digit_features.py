"""A digit classifier whose 64 features serve as the space of a Fréchet distance on digits.

    python benchmarks/digit_features.py      # half a minute; writes runs/digit_features.pt, a TorchScript module

EfficientNet's features, made for photographs, tell digits apart poorly. The classifier is trained on the training split
alone, with images a little shifted; the same seed gives the same file on one machine, and every figure states its hash.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moeframe_builtin.datasets.digits import Digits

OUT = Path("runs/digit_features.pt")
STEPS, BATCH = 1500, 128


class Classifier(nn.Module):
    """RGB in [0, 1], (n, 3, 8, 8), to 64 features; `logits` goes on to ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 64),
            nn.ReLU(),
        )
        self.last = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(images[:, :1] * 2 - 1)
        return features

    @torch.jit.ignore
    def logits(self, images: Tensor) -> Tensor:
        return self.last(F.dropout(self(images), 0.2, self.training))


def main() -> None:
    torch.manual_seed(0)
    data = Digits(Digits.Config())
    (x, y), (test_x, test_y) = (
        (split.images(torch.arange(len(split))).float() / 16, split.labels)
        for split in (data.split("train"), data.split("test"))
    )
    network = Classifier()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(STEPS):
        chosen = torch.randint(len(x), (BATCH,))
        shift = torch.randint(-1, 2, (2,)).tolist()
        images = torch.roll(F.pad(x[chosen], (1, 1, 1, 1)), shift, (2, 3))[:, :, 1:-1, 1:-1].expand(-1, 3, -1, -1)
        loss = F.cross_entropy(network.logits(images), y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    accuracy = (network.logits(test_x.expand(-1, 3, -1, -1)).argmax(1) == test_y).float().mean()
    OUT.parent.mkdir(exist_ok=True)
    torch.jit.save(torch.jit.trace(network, x[:2].expand(-1, 3, -1, -1)), OUT)
    print(f"{OUT}: {float(accuracy):.1%} of {len(test_y)} test digits classified correctly")


if __name__ == "__main__":
    main()
