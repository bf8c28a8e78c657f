"""A page to try a model in: two pictures in, boxes out, on a session and its batcher."""
