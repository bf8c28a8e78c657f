"""From prompts and completions to new parameters: GRPO, supervised training, the optimizer."""
