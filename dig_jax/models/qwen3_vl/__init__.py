"""Qwen3-VL: vision tower, decoder with shared-prompt attention, and the Hugging Face weight mapping."""
