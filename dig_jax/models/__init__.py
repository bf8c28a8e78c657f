"""Flax NNX models. They name their logical axes and know nothing of meshes, data or training."""
