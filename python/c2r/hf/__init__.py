"""c2r for Hugging Face transformers."""
