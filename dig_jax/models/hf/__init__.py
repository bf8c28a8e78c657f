"""Hugging Face folders: tensors and settings files, whatever the family."""
