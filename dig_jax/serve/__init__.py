"""OpenAI's chat completions over HTTP, on a session and its batcher: a server for standard clients."""
