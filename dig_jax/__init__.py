"""Differential grounding for vision-language models: GRPO on Qwen3-VL in JAX."""
