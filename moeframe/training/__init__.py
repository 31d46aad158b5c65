"""Training: the trainer, shared warm starts, validation during training, calibration of gates."""
