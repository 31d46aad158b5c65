"""Commands that use a trained run: sample, export."""

from pathlib import Path

import click

from moeframe.cli.options import A_PATH, device_option, renamed_seed_option, run_argument, run_seed_option

RUN_SEED = "Training seed of the run; its first by default."


@click.command()
@run_argument
@click.option("-n", "count", type=click.IntRange(min=1), default=64, show_default=True, help="Number of images.")
@click.option("--noise-seed", type=int, default=0, show_default=True, metavar="N", help="Seed of the sampling noise.")
@renamed_seed_option("--noise-seed")
@run_seed_option(RUN_SEED)
@device_option
@click.option(
    "--out",
    type=A_PATH,
    default=Path("samples.png"),
    show_default=True,
    help=".png for a grid, .npz for integer levels, or a new folder for one PNG per image.",
)
def sample(
    run_folder: Path,
    count: int,
    noise_seed: int,
    old_seed: int | None,
    run_seed: int | None,
    device: str | None,
    out: Path,
) -> None:
    """Sample new images from the trained run in RUN."""
    from moeframe.runs.loaded import load
    from moeframe.storage.images import require_image_path, write_images

    require_image_path(out)
    loaded = load(run_folder, run_seed, device=device)
    seed = noise_seed if old_seed is None else old_seed
    write_images(out, loaded.sample_batches(count, seed), loaded.assembly.image.levels)
    click.echo(f"{count} images in {out}")


@click.command()
@run_argument
@click.option("--format", "format_name", required=True, metavar="FORMAT", help="safetensors, diffusers, or a plugin's.")
@click.option("--out", required=True, type=A_PATH, metavar="DIR", help="Folder to write, new or empty.")
@click.option("--expert", type=int, metavar="K", help="Export expert K alone; the merged model by default.")
@run_seed_option(RUN_SEED)
def export(run_folder: Path, format_name: str, out: Path, expert: int | None, run_seed: int | None) -> None:
    """Export the trained model in RUN, or one expert of it.

    Writes files that other libraries load, with a model card.
    """
    from moeframe.runs.export import export as export_run

    how = export_run(run_folder, out, into=format_name, expert=expert, seed=run_seed)
    click.echo(f"exported to {out}; load it with\n{how}")
