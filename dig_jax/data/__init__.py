"""From records on disk to the arrays a model takes: images, tokens, prompts, batches."""
