"""VDM checkpoints (Kingma et al. 2021): the msgpack file and its network."""
