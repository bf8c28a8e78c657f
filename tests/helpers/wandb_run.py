"""A run that is told to Weights & Biases offline, by the real package: see tests/report/test_wandb.py.

python tests/helpers/wandb_run.py WORKDIR
"""

import sys
import types
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from dig_jax.evaluate import Answer
from dig_jax.report import MetricsWriter

truth = {"boxes": [[0.25, 0.5, 0.5, 1.0]], "kinds": ["color"]}
images = [np.full((20, 40, 3), shade, np.uint8) for shade in (50, 200)]
example: Any = types.SimpleNamespace(images=images)  # all that is asked of it
answer = Answer("pair", "[[0,0,500,500]]", {"boxes": [[0.0, 0.0, 0.5, 0.5]]}, {"reward": 0.5}, example, truth)

run = MetricsWriter(
    epath.Path(sys.argv[1]), first_step=0, evaluated=-1, tensorboard=False, wandb_project="dig"
)
run.step(1, {"reward/reward": 0.25})
run.evaluation(1, {"main/f1": 0.5})
run.sample(1, 0, answer, truth, Image.fromarray(images[0]))
run.close()
