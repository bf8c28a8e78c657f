"""One run: its command line and workdir, what it loads, checkpoints, the stages of its curriculum."""
