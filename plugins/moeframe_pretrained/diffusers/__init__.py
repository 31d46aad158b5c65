"""Folders of Hugging Face diffusers: UNet2DModel as an expert, merged models as a pipeline."""
