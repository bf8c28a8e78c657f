"""Prints the JSON Schema of a scene: `python -m data_gen.schema > docs/scene.schema.json`."""

import json
import sys

from data_gen.scenes.schema import scene_schema

if __name__ == "__main__":
    json.dump(scene_schema(), sys.stdout, indent=1)
    sys.stdout.write("\n")
