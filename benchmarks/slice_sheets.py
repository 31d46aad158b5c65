"""Contact sheets of slicers at half size, a row of images per slice, the sizes behind them, how long cutting took.

    python benchmarks/slice_sheets.py        # writes results/slices/

Fashion-MNIST is left out, and named in sizes.json, where its files are not installed.
"""

import json
import tempfile
import time
from pathlib import Path

from PIL import Image

from moeframe.errors import MoeframeError
from moeframe.runs.slicing import contact_sheet, slice_data

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results/slices"
TWO = "experts.0.copies=2"
JOBS: dict[str, tuple[str, list[str]]] = {  # without overrides: as in the spec; low and high where a threshold cuts
    "color_variance": ("photo_patches", ["slicer={type: color_variance}", TWO]),
    "texture": ("photo_patches", ["slicer={type: texture}", TWO]),
    "lighting": ("photo_patches", ["slicer={type: lighting}", TWO]),
    "lighting_direction": ("photo_patches", ["slicer={type: lighting, by: direction}", TWO]),
    "semantic": ("photo_patches", ["slicer={type: semantic, features: colour_quantiles}"]),
    "semantic_balanced": ("photo_patches", ["slicer={type: semantic, features: colour_quantiles, balance: quantile}"]),
    "class_group": ("fashion_mnist", []),
}
GAP = 10


def stacked(sheets: list[Path]) -> Image.Image:
    """The sheets below each other, a white band between two."""
    images = [Image.open(path).convert("RGB") for path in sheets]
    page = Image.new("RGB", (max(i.width for i in images), sum(i.height + GAP for i in images) - GAP), "white")
    top = 0
    for image in images:
        page.paste(image, (0, top))
        top += image.height + GAP
    return page


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, object] = {"command": "python benchmarks/slice_sheets.py"}
    for name, (spec, overrides) in JOBS.items():
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            try:
                slices = slice_data(ROOT / f"specs/{spec}.yaml", Path(folder), overrides)
            except MoeframeError as error:
                sizes[name] = {"not made": str(error)}
                continue
            seconds = time.perf_counter() - start
            page = stacked([contact_sheet(Path(folder), k) for k in range(slices.n_slices)])
            page.reduce(2).save(OUT / f"{name}.jpg", quality=75, optimize=True)
        sizes[name] = {
            "dataset": spec,
            "overrides": overrides,
            "slices": slices.names,
            "train": slices.train_sizes,
            "test": slices.test_sizes,
            "seconds": round(seconds, 1),
        }
    (OUT / "sizes.json").write_text(json.dumps(sizes, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(sizes, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
