"""Qwen2.5-VL: what is particular to it beside the common decoder and folders."""
