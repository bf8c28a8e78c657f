"""Layers, attention and its kernels, the head, adapters, what is frozen: common to all families."""
