"""The sampling engine: prefill once per prompt, decode a group of completions in one compiled loop."""
