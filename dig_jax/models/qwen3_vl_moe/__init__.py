"""Qwen3-VL with a mixture of experts: its configuration and weights. Tower and attention are Qwen3-VL's."""
