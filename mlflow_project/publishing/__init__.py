"""Publishing a checkpoint on the Hugging Face Hub: its evidence, a model card made of that, and the upload."""
