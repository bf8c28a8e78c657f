"""The experts of one layer, forward and with the backward pass, against transformers.

    make bench BENCH=experts
    python -m bench.experts [--rounds=7] [--threads=2] [--tiny]

Random tokens, choices and experts in float32; a few tokens, as decoding has them, and many. The peer is the
experts of transformers' Qwen3-VL-MoE with `grouped_mm`, its default. Our side runs the loop, which the ratio
is of, and the plain form. All have to agree, gradients too, before anything is timed. FLOP/s count the work
of the chosen experts alone.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from bench import results, timing
from bench.results import Result

FORMS = ("loop", "plain")


@dataclasses.dataclass(frozen=True)
class Size:
    """Of the layer: width, experts, choices of a token, inner width of an expert."""

    width: int
    experts: int
    choices: int
    inner: int

    def flops(self, tokens: int, backward: bool) -> int:
        """Of the products with the chosen experts."""
        return 6 * tokens * self.choices * self.width * self.inner * (3 if backward else 1)


WHOLE = Size(width=512, experts=64, choices=8, inner=192)  # a quarter of 30B-A3B's widths, half its experts
TINY = Size(width=32, experts=8, choices=2, inner=16)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    args = _parse(sys.argv[1:] if argv is None else argv)
    timing.bind(args.threads)
    size, counts = (TINY, (4, 32)) if args.tiny else (WHOLE, (8, 64, 2048))
    found = [compare(args, size, tokens, backward) for tokens in counts for backward in (False, True)]
    print("\n" + results.table(found))
    results.save(found, args.json)


def draw(size: Size, tokens: int) -> tuple[np.ndarray, ...]:
    """x [N,D], ids [N,K], weights [N,K], gate_up [E,D,2I], down [E,I,D]."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return rng.normal(scale=scale, size=shape).astype(np.float32)

    ids = np.argsort(rng.random((tokens, size.experts)), axis=1)[:, : size.choices].astype(np.int32)
    weights = rng.random((tokens, size.choices)).astype(np.float32)
    kernels = normal(size.experts, size.width, 2 * size.inner, scale=size.width**-0.5)
    return (
        normal(tokens, size.width),
        ids,
        weights / weights.sum(axis=1, keepdims=True),
        kernels,
        normal(size.experts, size.inner, size.width, scale=size.inner**-0.5),
    )


def compare(args: argparse.Namespace, size: Size, tokens: int, backward: bool) -> Result:
    """Times all forms and the peer on so many tokens."""
    drawn = draw(size, tokens)
    sides: dict[str, Callable[[], list[np.ndarray]]] = {form: ours(form, drawn, backward) for form in FORMS}
    sides["peer"] = peer(size, drawn, backward, args.threads)
    expected = sides["peer"]()
    for name, side in sides.items():
        differ = max(
            float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(side(), expected, strict=True)
        )
        if not differ < 1e-4:
            sys.exit(f"error: {name} differs from transformers by {differ:.2g} of the largest entry")
    taken = timing.take_turns(sides, args.rounds)
    what = f"{tokens:,} tokens, forward{' and backward' if backward else ''}"
    for name, seconds in taken.items():
        rate = size.flops(tokens, backward) / timing.median(seconds) / 1e9
        print(f"{what}: {name} {1e3 * timing.median(seconds):.3g} ms, {rate:.3g} GFLOP/s", flush=True)
    ratio = timing.ratio(taken["loop"], taken["peer"])
    print(f"{what}: ratio {ratio.wall:.2f}, of CPU time {ratio.cpu:.2f}", flush=True)
    own, others = (f"{1e3 * timing.median(taken[side]):.3g} ms" for side in ("loop", "peer"))
    return Result(f"experts of {what}, against transformers", own, others, ratio.wall)


def ours(form: str, drawn: tuple[np.ndarray, ...], backward: bool) -> Callable[[], list[np.ndarray]]:
    """A form of dig_jax: the result, or the gradients of its sum of squares."""
    import jax
    import jax.numpy as jnp

    from dig_jax.models.nn import kernels
    from dig_jax.models.nn.experts import experts_mlp

    how = kernels.choose_experts(form, jax.devices()[0], jnp.dtype(jnp.float32), 1.5)

    forward: Any = functools.partial(experts_mlp, how=how)

    def loss(*args: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(forward(*args)))

    args = tuple(map(jnp.asarray, drawn))
    run: Any = jax.jit(jax.grad(loss, argnums=(0, 2, 3, 4)) if backward else forward)
    return lambda: [np.asarray(array) for array in jax.tree.leaves(run(*args))]


def peer(
    size: Size, drawn: tuple[np.ndarray, ...], backward: bool, threads: int
) -> Callable[[], list[np.ndarray]]:
    """The same by transformers; kernels are transposed there, and their gradients are transposed back."""
    import torch
    from transformers.models.qwen3_vl_moe import modeling_qwen3_vl_moe as modeling
    from transformers.models.qwen3_vl_moe.configuration_qwen3_vl_moe import Qwen3VLMoeTextConfig

    torch.set_num_threads(threads)
    config = Qwen3VLMoeTextConfig(
        hidden_size=size.width,
        num_experts=size.experts,
        num_experts_per_tok=size.choices,
        moe_intermediate_size=size.inner,
    )
    config._experts_implementation = "grouped_mm"
    module = modeling.Qwen3VLMoeTextExperts(config)
    x, ids, weights, gate_up, down = (torch.from_numpy(array) for array in drawn)
    with torch.no_grad():
        module.gate_up_proj.copy_(gate_up.transpose(1, 2))
        module.down_proj.copy_(down.transpose(1, 2))
    x.requires_grad_(backward)
    weights.requires_grad_(backward)
    leaves = (x, weights, module.gate_up_proj, module.down_proj)

    def run() -> list[np.ndarray]:
        if not backward:
            with torch.no_grad():
                return [module(x, ids.long(), weights).numpy()]
        gradients = torch.autograd.grad(module(x, ids.long(), weights).square().sum(), leaves)
        turned = (*gradients[:2], *(gradient.transpose(1, 2) for gradient in gradients[2:]))
        return [gradient.numpy() for gradient in turned]

    return run


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = results.make_parser("experts", __doc__)
    parser.add_argument("--rounds", type=results.at_least(1), default=7, help="that count (default 7)")
    parser.add_argument("--tiny", action="store_true", help="a few tokens of a tiny layer: does it run?")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
