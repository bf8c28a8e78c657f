"""One `get_config()` per experiment. `base.py` holds every setting once, with its comment."""
