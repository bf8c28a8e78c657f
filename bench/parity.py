"""How near the logits of a model of real size are to those of transformers, in float32 and in bfloat16.

    python -m bench.parity [--size=2B] [--peer-bfloat16]

A folder of random bfloat16 weights is written, and both sides load it, one after the other: the process holds
one float32 model at a time (10 GB for 2B). The batch is a prompt with two images and one with one image, of
424 and 178 tokens. Printed are differences of logits and of log-probabilities over all tokens and words, and
how often both find the same word the likeliest. What bfloat16 does to transformers is printed on request: a
CPU without instructions for bfloat16 takes many minutes for it at 2B. The tests compare small models,
and more of each.
"""

import argparse
import gc
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bench.random_model import config_of, scaled, write_random_model
from dig_jax.models.architecture import Architecture
from dig_jax.models.hf import checkpoint
from dig_jax.models.inputs import Image, make_prompts
from dig_jax.models.qwen3_vl.published import SIZES

PROMPTS = [([(28, 28), (16, 24)], 128), ([(20, 14)], 106)]  # grids of the images, and words after them
Prompt = tuple[np.ndarray, list[Image]]  # token ids and images


def draw_prompts(config: Architecture) -> list[Prompt]:
    """Random patches, then random words."""
    rng = np.random.default_rng(1)
    prompts = []
    for grids, words in PROMPTS:
        ids: list[int] = []
        images = []
        for rows, columns in grids:
            placeholders = [config.image_token_id] * (rows * columns // config.vision.merge_unit)
            ids += [config.vision_start_token_id, *placeholders, config.vision_end_token_id]
            patches = rng.uniform(-1, 1, (rows * columns, config.vision.patch_dim))
            images.append((patches.astype(np.float32), (rows, columns)))
        ids += rng.integers(4, 60_000, words).tolist()  # none of the words that mark images
        prompts.append((np.asarray(ids, np.int32), images))
    return prompts


def their_logits(folder: Path, prompts: Sequence[Prompt], dtype: str) -> list[np.ndarray]:
    """Logits [T,V] of every prompt, each run by itself without padding."""
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    logits = []
    for ids, images in prompts:
        with torch.no_grad():
            output = model(
                input_ids=torch.tensor(ids[None], dtype=torch.long),
                mm_token_type_ids=torch.tensor(ids[None] == model.config.image_token_id, dtype=torch.long),
                pixel_values=torch.tensor(np.concatenate([patches for patches, _ in images])),
                image_grid_thw=torch.tensor([(1, *grid) for _, grid in images]),
            )
        logits.append(output.logits[0].float().numpy())
    return logits


def our_logits(folder: Path, prompts: Sequence[Prompt], dtype: str) -> list[np.ndarray]:
    """The same, run as one padded batch."""
    model = checkpoint.load_model(folder, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype))
    ids, images = zip(*prompts, strict=True)
    batch = make_prompts(
        ids,
        images,
        model.config,
        prompt_length=max(map(len, ids)),
        num_patches=max(sum(len(patches) for patches, _ in row) for row in images),
    )
    hidden = jax.jit(lambda model, batch: model(batch)[0])(model, batch)
    return [np.asarray(model.logits(row[: len(own)])) for row, own in zip(hidden, ids, strict=True)]


def report(name: str, logits: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> None:
    """One line of differences."""
    pairs = list(zip(logits, right, strict=True))
    error = np.concatenate([(a - b).ravel() for a, b in pairs])
    of_logprobs = max(float(jnp.abs(jax.nn.log_softmax(a) - jax.nn.log_softmax(b)).max()) for a, b in pairs)
    same = np.concatenate([a.argmax(-1) == b.argmax(-1) for a, b in pairs]).mean()
    print(
        f"{name:44} logits: largest {np.abs(error).max():.1e}, root mean square "
        f"{np.sqrt(np.mean(np.square(error))):.1e}; log-probs: largest {of_logprobs:.1e}; "
        f"same likeliest word {same:.1%}",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=("215M", *SIZES), default="2B", help="of the model (default: 2B)")
    parser.add_argument("--peer-bfloat16", action="store_true", help="run transformers in bfloat16 as well")
    args = parser.parse_args(argv)
    config = config_of(args.size)
    prompts = draw_prompts(config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        write_random_model(folder, config, scaled)
        exact = their_logits(folder, prompts, "float32")
        deviation = np.concatenate([row.ravel() for row in exact]).std()
        print(f"{args.size}, prompts of {[len(ids) for ids, _ in prompts]} tokens, logits +- {deviation:.2f}")
        runs = [("dig_jax", our_logits, "float32"), ("dig_jax", our_logits, "bfloat16")]
        if args.peer_bfloat16:
            runs.append(("transformers", their_logits, "bfloat16"))
        for side, run, dtype in runs:
            gc.collect()
            report(f"{side} {dtype} - transformers float32", run(folder, prompts, dtype), exact)


if __name__ == "__main__":
    main(sys.argv[1:])
