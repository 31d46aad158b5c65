"""Files on disk: atomic writes, locks, safe pickles, run and study folders, checkpoints, samples, results, images."""
