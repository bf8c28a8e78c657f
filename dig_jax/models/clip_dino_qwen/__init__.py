"""TinyGroundingGPT: CLIP and DINOv2 side by side, a projector, and a Qwen2.5 decoder (arXiv 2411.09691)."""
