"""Answers per second on a benchmark's files: dig_jax.evaluate's own loop against transformers' `generate`.

    make bench BENCH=evaluate
    python -m bench.evaluate [--rows=128] [--new-tokens=16] [--rounds=5] [--threads=2]

Both sides have the same small model (bench/setting.py, float32, random weights) and the same PNG files with a
question each, 64 of them 128x128 pixels and the others 128x64, and go from the files to the texts of the
answers: pictures read, resized and cut into patches, prompts tokenised, answers drawn greedily and decoded.
They take turns on the same CPUs. Before anything is timed their answers have to be the same.

dig_jax draws as `python -m dig_jax.evaluate --benchmarks=...` does, in batches of one bucket each. The peer
reads batches of the same number of rows, sorted by size too, so that it pads next to nothing; it gets the
image processor that needs PIL alone, and scaled-dot-product attention.
"""

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import results, timing
from bench.results import Result

BATCH = 16
QUESTION = "Is there a red square in picture number {number}? Please answer yes or no."


def main() -> None:
    """The command."""
    parser = results.make_parser("evaluate", __doc__)
    parser.add_argument("--rows", type=results.at_least(2), default=128, help="questions (default 128)")
    parser.add_argument("--new-tokens", type=results.at_least(1), default=16, help="of an answer, at most")
    parser.add_argument("--rounds", type=results.at_least(1), default=5, help="that count (default 5)")
    args = parser.parse_args(sys.argv[1:])
    timing.bind(args.threads)
    names = ("jax", "jaxlib", "flax", "torch", "transformers")
    print(f"float32, {args.threads} threads; {', '.join(f'{name} {version(name)}' for name in names)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        asked = _write(folder, args.rows)
        ours = DigJax(folder / "model", asked, args.new_tokens)
        peer = Transformers(folder / "model", asked, args.new_tokens, args.threads)
        _check(ours.answers(), peer.answers())
        taken = timing.take_turns({"ours": ours.answers, "peer": peer.answers}, args.rounds)
        timing.profile(args.profile, ours.answers)
    ratio = timing.ratio(taken["ours"], taken["peer"])
    mine, theirs = (f"{args.rows / timing.median(taken[name]):.1f} rows/s" for name in ("ours", "peer"))
    what = f"answers of {args.new_tokens} tokens to {args.rows} questions about files, against transformers"
    print(f"\nratio of CPU time: {ratio.cpu:.2f}")
    found = [Result(what, mine, theirs, ratio.wall)]
    print(results.table(found))
    results.save(found, args.json)


def _write(folder: Path, rows: int) -> list[tuple[Path, str]]:
    """The model, and of every row its picture and its question."""
    import jax
    import numpy as np
    from flax import nnx
    from PIL import Image

    from bench import setting
    from dig_jax.models.hf import checkpoint

    (folder / "model").mkdir()
    setting.write_model(folder / "model")
    model = checkpoint.load_model(folder / "model")
    # Larger kernels: with those of the setting, every question gets one answer.
    larger = jax.tree.map(lambda x: x * 2 if x.ndim > 1 else x, nnx.state(model, nnx.Param))
    nnx.update(model, larger)
    checkpoint.save_model(folder / "larger", model)
    for file in (folder / "larger").glob("*.safetensors*"):
        file.replace(folder / "model" / file.name)
    rng, asked = np.random.default_rng(0), []
    for number in range(rows):
        pixels = rng.integers(0, 256, (128, 128 if number < rows // 2 else 64, 3), np.uint8)
        file = folder / f"{number}.png"
        Image.fromarray(pixels).save(file)
        asked.append((file, QUESTION.format(number=number)))
    return asked


def _check(ours: dict[str, str], peer: dict[str, str]) -> None:
    """Ends the program unless both sides give the same answers; compiles what is timed, on the way."""
    differing = [name for name, text in ours.items() if peer[name] != text]
    if differing:
        name = differing[0]
        sys.exit(
            f"error: {len(differing)} of {len(ours)} answers differ, the first is that to {name}:"
            f" {ours[name]!r} here and {peer[name]!r} there"
        )
    print(f"checked: {len(ours)} answers are the same ({len(set(ours.values()))} different ones)", flush=True)


class DigJax:
    """Our side: the loop of the command, without saving."""

    def __init__(self, folder: Path, asked: list[tuple[Path, str]], new_tokens: int):
        from etils import epath

        from configs import base
        from dig_jax.benchmarks.row import PictureFile, Row
        from dig_jax.measure import model
        from dig_jax.run import loading

        config = base.get_config()
        config.model.dtype = "float32"
        config.rollout.max_new_tokens = new_tokens
        opened = loading.open_model(epath.Path(folder))
        settings = model.sampling_settings(config, opened, {"greedy": True})
        how = model.how_of(settings, opened.tokenizer, BATCH, 2**20)
        self._model, self._weights, _ = model.load(config, opened, how)
        self._rows = [
            Row(str(number), (PictureFile(epath.Path(file)),), question)
            for number, (file, question) in enumerate(asked)
        ]

    def answers(self) -> dict[str, str]:
        """The answers to all rows."""
        import numpy as np

        from dig_jax.data.example import Turn
        from dig_jax.measure.drawing import RowSource

        source = RowSource("files", self._rows, lambda row, sizes: Turn("user", (0, row.question)))
        desk, done = self._model.desk, np.zeros(len(source), bool)
        batches = desk.answers(self._weights, source, desk.parts(source), done)
        return {answer.index: answer.prediction for batch in batches for answer in batch}


class Transformers:
    """The peer: image processor, tokenizer and `generate`, a batch at a time."""

    def __init__(self, folder: Path, asked: list[tuple[Path, str]], new_tokens: int, threads: int):
        try:
            import torch
        except ImportError:
            sys.exit("error: the peer needs torch, which `make setup-dev` installs")
        from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        from dig_jax.data.tokenizer import load_tokenizer
        from dig_jax.rollout.sampler import sampling_of

        torch.set_num_threads(threads)
        self._torch = torch
        self._images = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = Qwen3VLForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        # As on our side: tokens that stand for pictures, and others that make no answer.
        never = list(sampling_of(load_tokenizer(folder), 0.0).suppressed)
        self._how = {"max_new_tokens": new_tokens, "do_sample": False, "suppress_tokens": never}
        self._asked = asked

    def answers(self) -> dict[str, str]:
        """The answers to all rows, those of small pictures last, as they lie."""
        found: dict[str, str] = {}
        for first in range(0, len(self._asked), BATCH):
            texts = self._batch(self._asked[first : first + BATCH])
            found |= {str(first + row): text for row, text in enumerate(texts)}
        return found

    def _batch(self, asked: list[tuple[Path, str]]) -> list[str]:
        from PIL import Image

        pictures = self._images([Image.open(file).convert("RGB") for file, _ in asked], return_tensors="pt")
        counts = pictures["image_grid_thw"].prod(dim=-1) // self._images.merge_size**2
        placeholder = "<|image_pad|>"
        texts = [
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
                tokenize=False,
                add_generation_prompt=True,
            ).replace(placeholder, placeholder * int(count))
            for (_, question), count in zip(asked, counts, strict=True)
        ]
        inputs: Any = self._tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        ids = inputs["input_ids"]
        self._model.model.rope_deltas = None  # positions that an earlier call leaves in the model
        with self._torch.inference_mode():
            drawn = self._model.generate(
                input_ids=ids,
                attention_mask=inputs["attention_mask"],
                mm_token_type_ids=(ids == self._model.config.image_token_id).int(),
                pixel_values=pictures["pixel_values"],
                image_grid_thw=pictures["image_grid_thw"],
                **self._how,
            )
        new = drawn[:, ids.shape[1] :]
        return self._tokenizer.batch_decode(new, skip_special_tokens=True)


if __name__ == "__main__":
    main()
