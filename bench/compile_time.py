"""Compile time against depth and slots, and the peak memory of a training update, from the compiler alone.

    make bench BENCH=compile_time
    python -m bench.compile_time [--repeats=3]

Layers are stacked and run under scan, so a program is as long for 36 layers as for 4. The first table shows
what that does to the CPU seconds that it takes to trace, lower and compile prefill, decode and update, with
the same widths at both depths. The second shows the compiler's plan for the memory of one update on this
platform: with log-probs in chunks of the response or with all logits at once, and with each policy of
rematerialisation.

Nothing is run and no weights are made: programs are compiled for shapes.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bench.learning import make_learner
from dig_jax.models.inputs import Prompts
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL
from dig_jax.models.qwen3_vl.published import architecture
from dig_jax.rollout import pool
from dig_jax.rollout.engine import Decoding, advance, start
from dig_jax.rollout.sampling import Sampling
from dig_jax.update.microbatches import Cut
from dig_jax.update.policy import Experience

DEPTHS = (4, 36)
PROGRAMS = ("prefill", "decode", "update")
POOLS = (8, 64)  # rows of a pool, of 8 slots each


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Sizes of what is compiled.

    Attributes:
      depth: layers of the decoder, and blocks of the vision tower.
      width: of the decoder.
      vocab: rows of the head.
      prompts, group, prompt_length, response_length: B, G, P and R.
      patches: N, per prompt.
    """

    depth: int
    width: int = 128
    vocab: int = 1024
    prompts: int = 2
    group: int = 4
    prompt_length: int = 96
    response_length: int = 64
    patches: int = 128


def model_config(shapes: Shapes) -> Qwen3VLConfig:
    """A Qwen3-VL of these shapes, with three DeepStack taps as in the released ones."""
    heads = shapes.width // 64
    return architecture("2B").resized(
        text={
            "vocab_size": shapes.vocab,
            "hidden_size": shapes.width,
            "intermediate_size": 3 * shapes.width,
            "num_hidden_layers": shapes.depth,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 2),
            "head_dim": 64,
            "mrope_section": (12, 10, 10),
        },
        vision={
            "depth": shapes.depth,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 2,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": (0, 1, 2),
        },
    )


def lower(program: str, shapes: Shapes, *, remat: str = "none", chunk: int = 64) -> jax.stages.Lowered:
    """Traces and lowers one of `PROGRAMS`.

    Args:
      program: which.
      shapes: of model and inputs; float32.
      remat: policy of rematerialisation, `config.model.remat`.
      chunk: response positions per slice of the head in an update, `config.model.head_chunk`.
    """
    model = nnx.eval_shape(lambda: Qwen3VL(model_config(shapes), rngs=nnx.Rngs(0), remat=remat))
    graphdef, params = nnx.split(model, nnx.Param)
    prompts = _prompts(shapes, model.config)
    if program == "prefill":
        return jax.jit(lambda params, prompts: nnx.merge(graphdef, params).prefill(prompts)).lower(
            params, prompts
        )
    if program == "decode":
        return _lower_decode(graphdef, params, prompts, shapes)
    learner = make_learner(graphdef, shapes.vocab, chunk=chunk, cut=Cut(shapes.prompts))
    state = jax.eval_shape(learner.init, params)
    return jax.jit(learner.update_grpo, donate_argnums=0).lower(state, _experience(prompts, shapes))


def lower_pool(shapes: Shapes) -> jax.stages.Lowered:
    """Traces and lowers the loop of a pool with a row per prompt and a slot per response."""
    model = nnx.eval_shape(lambda: Qwen3VL(model_config(shapes), rngs=nnx.Rngs(0)))
    graphdef, params = nnx.split(model, nnx.Param)

    def fill(params: nnx.State, prompts: Prompts, keys: jax.Array) -> pool.Pool:
        model = nnx.merge(graphdef, params)
        return pool.fill(
            model,
            prompts,
            keys,
            sampling=_sampling(shapes),
            max_new_tokens=shapes.response_length,
            slots=shapes.group,
            rows=shapes.prompts,
            shards=1,
        )

    def run(params: nnx.State, filled: pool.Pool, keys: jax.Array) -> pool.Pool:
        return pool.run(nnx.merge(graphdef, params), filled, keys, sampling=_sampling(shapes))

    prompts, keys = _prompts(shapes, model.config), _keys(shapes)
    filled = jax.eval_shape(fill, params, prompts, keys)
    return jax.jit(run, donate_argnums=1).lower(params, filled, keys)


def _sampling(shapes: Shapes) -> Sampling:
    return Sampling(
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        eos_ids=(0,),
        suppressed=(),
        vocab_size=shapes.vocab,
        pad_id=1,
    )


def _keys(shapes: Shapes) -> Any:
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (shapes.prompts, shapes.group)))


def _lower_decode(
    graphdef: nnx.GraphDef, params: nnx.State, prompts: Prompts, shapes: Shapes
) -> jax.stages.Lowered:
    sampling = _sampling(shapes)

    def begin(params: nnx.State, prompts: Prompts, keys: jax.Array) -> Decoding:
        model = nnx.merge(graphdef, params)
        return start(model, prompts, keys, sampling=sampling, max_new_tokens=shapes.response_length)

    def decode(params: nnx.State, decoding: Decoding, keys: jax.Array) -> Decoding:
        model = nnx.merge(graphdef, params)
        return advance(model, decoding, keys, shapes.response_length, sampling=sampling)

    keys = _keys(shapes)
    return jax.jit(decode).lower(params, jax.eval_shape(begin, params, prompts, keys), keys)


def _prompts(shapes: Shapes, config: Qwen3VLConfig) -> Prompts:
    batch, length, patches = shapes.prompts, shapes.prompt_length, shapes.patches

    def ints(*size: int) -> Any:
        return jax.ShapeDtypeStruct((batch, *size), jnp.int32)

    return Prompts(
        tokens=ints(length),
        length=ints(),
        positions=ints(3, length),
        next_position=ints(),
        patches=jax.ShapeDtypeStruct((batch, patches, config.vision.patch_dim), jnp.float32),  # type: ignore[arg-type]
        patch_image=ints(patches),
        patch_coords=ints(patches, 2),
        patch_grid=ints(patches, 2),
    )


def _experience(prompts: Prompts, shapes: Shapes) -> Experience:
    size = (shapes.prompts, shapes.group, shapes.response_length)
    floats = jax.ShapeDtypeStruct(size, jnp.float32)
    return Experience(
        prompts=prompts,
        tokens=jax.ShapeDtypeStruct(size, jnp.int32),
        mask=floats,
        behaviour_logprobs=floats,
        advantages=jax.ShapeDtypeStruct(size[:2], jnp.float32),
        ref_logprobs=floats,
    )


def print_compile_times(repeats: int) -> None:
    """CPU seconds per program and depth: medians over `repeats`, the depths in turn."""
    few, many = DEPTHS
    print("CPU seconds to trace and lower + to compile (decoder layers, and as many vision blocks)\n")
    print(f"| program | {few} layers | {many} layers | ratio | length of the HLO text, ratio |")
    print("|---|---|---|---|---|")
    lower("prefill", Shapes(depth=few)).compile()  # what only the first program of a process costs
    for program in PROGRAMS:
        turns = [
            [_compile(partial(lower, program, Shapes(depth=depth))) for depth in DEPTHS]
            for _ in range(repeats)
        ]
        small, large = np.median(turns, axis=0)  # [lowering, compiling, HLO length] each
        ratio = statistics.median(sum(b[:2]) / sum(a[:2]) for a, b in turns)
        print(
            f"| {program} | {small[0]:.1f} + {small[1]:.1f} | {large[0]:.1f} + {large[1]:.1f} | {ratio:.2f} |"
            f" {large[2] / small[2]:.3f} |",
            flush=True,
        )


def print_pools(repeats: int) -> None:
    """CPU seconds for the loop of the pool, by its slots: medians over `repeats`, the sizes in turn."""
    print("\nThe pool's loop, 4 layers: CPU seconds to trace and lower + to compile\n")
    print("| slots | seconds | characters of HLO text |")
    print("|---|---|---|")
    sizes = [Shapes(depth=4, prompts=rows, group=8) for rows in POOLS]
    turns = [[_compile(partial(lower_pool, shapes)) for shapes in sizes] for _ in range(repeats)]
    for shapes, (lowering, compiling, length) in zip(sizes, np.median(turns, axis=0), strict=True):
        print(f"| {shapes.prompts * shapes.group} | {lowering:.1f} + {compiling:.1f} | {length:,.0f} |")


def _compile(lower: Callable[[], jax.stages.Lowered]) -> tuple[float, float, int]:
    """CPU seconds to lower and to compile, and characters of the HLO text."""
    begin = time.process_time()
    lowered = lower()
    middle = time.process_time()
    lowered.compile()
    end = time.process_time()
    return middle - begin, end - middle, len(lowered.as_text())


def print_update_memory() -> None:
    """Planned memory of an update, per way to take log-probs and per policy."""
    shapes = Shapes(
        depth=12,
        width=256,
        vocab=151_936,
        prompts=1,
        group=8,
        prompt_length=512,
        response_length=512,
        patches=1024,
    )
    tokens = shapes.prompts * shapes.group * shapes.response_length
    logits = tokens * shapes.vocab * 4 / 2**20
    print(
        f"\nMiB of working memory of one GRPO update, as planned for {jax.default_backend()}:"
        f" {shapes.depth} layers, width {shapes.width},\n{tokens:,} response tokens, float32, the released"
        f" models' vocabulary of {shapes.vocab:,} (all logits: {logits:,.0f} MiB per copy)\n"
    )
    print("| log-probs | remat none | remat dots | remat full |")
    print("|---|---|---|---|")
    rows = {"chunks of 16": 16, "chunks of 64": 64, "all logits at once": shapes.response_length}
    for name, chunk in rows.items():
        sizes = [_working_memory(shapes, remat, chunk) / 2**20 for remat in ("none", "dots", "full")]
        print(f"| {name} | " + " | ".join(f"{size:,.0f}" for size in sizes) + " |", flush=True)


def _working_memory(shapes: Shapes, remat: str, chunk: int) -> int:
    """Bytes beside arguments and results: activations, gradients and logits."""
    plan = lower("update", shapes, remat=remat, chunk=chunk).compile().memory_analysis()
    if plan is None:
        raise RuntimeError(f"the compiler for {jax.default_backend()} tells nothing about memory")
    return plan.temp_size_in_bytes


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.compile_time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=3, help="compilations of each program (default 3)")
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error("--repeats must be at least 1")
    print_compile_times(args.repeats)
    print_pools(args.repeats)
    print_update_memory()


if __name__ == "__main__":
    main()
