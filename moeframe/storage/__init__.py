"""What lies on disk: atomic files, run and study folders, checkpoints, samples, results, images."""
