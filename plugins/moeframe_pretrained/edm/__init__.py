"""EDM checkpoints (Karras et al. 2022): the pickle, its networks and their preconditioning."""
