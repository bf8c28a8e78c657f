"""On a GPU or TPU: how much of its arithmetic the update uses, and how much of its memory bandwidth decoding.

    make bench BENCH=accelerator
    python -m bench.accelerator [--size=8B] [--layers=12] [--repeats=5] [--profile=DIR]
        [--remat=dots] [--alone] [--phases=decode] [--layer_arrays=stacked] [--weight_dtype=int8]

The model has the widths of the largest published Qwen3-VL of which at least four decoder layers can be
trained in the memory of one device (float32 parameters and moments), and as many layers as fit; random
weights, bfloat16. The prompt is two images of 448x448 pixels and 60 words, with G = 8 completions of 1,024
tokens.

- update: one GRPO update on that prompt. MFU is the useful work (forward and backward of prompt and
  completions, the prompt once, nothing for rematerialisation) over the time and the device's peak.
- decode: the bytes that a step has to read (weights of decoder and head, caches; see `bench/bandwidth.py`)
  over the time and the device's peak bandwidth. The peer is held to its own bytes where ours are int8.

The peer is transformers on the same device with the same widths, depth and tokens, held to the same useful
work. The sides run one after the other, each in a process of its own, because each takes most of the memory.
The aims are 50 % and 60 %. Without an accelerator nothing is measured, and that is said; --tiny runs both
sides on a CPU with a toy model, to see that they run.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys

import jax
from flax import nnx

from bench import accelerator_sides, bandwidth, results, timing
from bench.accelerator_sides import PHASES, Figures, Job
from bench.inference_sizes import IMAGES, SIZES, Size
from bench.peaks import PEAKS
from bench.results import Result
from dig_jax.aot import flops
from dig_jax.aot.inputs import Workload
from dig_jax.data.buckets import Bucket
from dig_jax.models.nn import freeze
from dig_jax.models.nn.layers import REMAT
from dig_jax.models.nn.sampling_copy import AS_TRAINED, LAYERS, WEIGHT_DTYPES, Form, sampling_copy
from dig_jax.models.qwen3_vl import published
from dig_jax.models.qwen3_vl.config import Qwen3VLConfig
from dig_jax.models.qwen3_vl.model import Qwen3VL

BYTES_PER_PARAMETER = 18  # trained: float32 value, two moments and gradient, and a copy in bfloat16
SHARE_FOR_PARAMETERS = 0.7  # of the memory; the rest is for activations
FEWEST_LAYERS = 4
SIDES = ("dig_jax", "transformers")


def main(argv: list[str] | None = None) -> None:
    """The command."""
    args = _parse(sys.argv[1:] if argv is None else argv)
    # JAX would take most of the memory at once, and leave none to the other process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    timing.bind(args.threads)
    device = jax.devices()[0]
    if device.platform == "cpu" and not args.tiny:
        print("no GPU or TPU here: nothing is measured (--tiny runs both sides on the CPU with a toy model)")
        results.save([], args.json)
        return
    try:
        form = Form.choose(args.layer_arrays, args.weight_dtype, device.platform)
        if args.tiny:
            job = tiny_job(args.repeats, args.threads, form, args.phases)
        else:
            job = accelerator_job(args, device, form)
    except ValueError as error:
        sys.exit(f"error: {error}")
    if args.side:
        side = getattr(accelerator_sides, args.side)
        figures = side(job, args.profile) if args.side == "dig_jax" else side(job)
        print(json.dumps(dataclasses.asdict(figures)))
        return
    work = useful_work(job)
    text, vision = job.size.config.text, job.size.config.vision
    print(
        f"{device.device_kind}: width {text.hidden_size}, {text.num_hidden_layers} + {vision.depth} layers,"
        f" {job.precision}; {job.size.prompt_length} + {job.group} x {job.size.new_tokens} tokens;"
        f" {work.flops / 1e12:.3g} TFLOP an update, {work.step_bytes / 1e9:.3g} GB a decoding step",
        flush=True,
    )
    given = argv or sys.argv[1:]
    ours = _in_own_process("dig_jax", given)
    found = lines(
        work, ours, None if args.alone else _in_own_process("transformers", given), device.device_kind
    )
    print("\n" + results.table(found))
    results.save(found, args.json)


@dataclasses.dataclass(frozen=True)
class Work:
    """What has to be done: operations of an update, bytes that a decoding step reads, ours and the peer's."""

    flops: float
    step_bytes: float
    peer_bytes: float


def useful_work(job: Job) -> Work:
    """The work of a job, counted from the architecture."""
    size = job.size
    bucket = Bucket(size.prompt_length, size.num_patches)
    load = Workload(bucket, IMAGES, job.group, size.new_tokens)
    dtype = jax.numpy.dtype(job.precision)

    def step_bytes(form: Form) -> float:
        model = nnx.eval_shape(
            lambda: sampling_copy(
                Qwen3VL(size.config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype), form
            )
        )
        return bandwidth.mean_step_bytes(model, size.prompt_length, job.group, size.new_tokens)

    both = flops.update(size.config, load, trained=set(freeze.PARTS), adapters=False)
    return Work(both, step_bytes(job.form), step_bytes(AS_TRAINED))


def lines(work: Work, ours: Figures, peer: Figures | None, device_kind: str) -> list[Result]:
    """The lines of the table; without a known peak, rates in place of shares."""
    peak = PEAKS.get(device_kind)
    limits = (peak.flops, peak.bandwidth) if peak else (0.0, 0.0)
    found = []
    for what, amounts, unit, limit, field in (
        ("update, MFU", (work.flops, work.flops), "TFLOP/s", limits[0], "update_s"),
        ("decode, share of bandwidth", (work.step_bytes, work.peer_bytes), "TB/s", limits[1], "step_s"),
    ):
        seconds = [getattr(side, field) for side in (ours, peer) if side]
        if not seconds[0]:
            continue
        rates = [
            (f"{amount / s / limit:.1%}" if limit else f"{amount / s / 1e12:.3g} {unit}")
            + f", {1e3 * s:.4g} ms"
            for amount, s in zip(amounts, seconds, strict=False)
        ]
        line = Result(f"{what}, on {device_kind}", rates[0])
        found.append(
            dataclasses.replace(line, peer=rates[1], ratio=seconds[1] / seconds[0]) if peer else line
        )
    return found


def accelerator_job(args: argparse.Namespace, device: jax.Device, form: Form) -> Job:
    """The job for a device, as the options say or as its memory allows."""
    if args.size and args.layers:
        name, layers = args.size, args.layers
    else:
        memory = (device.memory_stats() or {})["bytes_limit"]
        name, layers = widest(memory, (args.size,) if args.size else tuple(reversed(published.SIZES)))
    config = with_layers(published.architecture(name), layers)
    size = Size(config, grid=28, words=60, prompts=1, new_tokens=1024)
    return Job(size, 8, args.repeats, "bfloat16", args.threads, args.remat, form, args.phases)


def widest(memory: int, sizes: tuple[str, ...]) -> tuple[str, int]:
    """The first of the sizes of which enough layers can be trained in so many bytes, and how many fit.

    Raises:
      ValueError: not even the smallest fits.
    """
    budget = memory * SHARE_FOR_PARAMETERS / BYTES_PER_PARAMETER
    for size in sizes:
        config = published.architecture(size)
        fewest, more = (count_parameters(with_layers(config, FEWEST_LAYERS + n)) for n in (0, 1))
        if fewest <= budget:
            layers = FEWEST_LAYERS + int((budget - fewest) / (more - fewest))
            return size, min(layers, config.text.num_hidden_layers)
    raise ValueError(
        f"{memory / 2**30:.1f} GiB of memory do not hold {FEWEST_LAYERS} layers of {' or '.join(sizes)}"
    )


def with_layers(config: Qwen3VLConfig, layers: int) -> Qwen3VLConfig:
    """The same widths with fewer decoder layers; the vision tower keeps its own, and at most as many taps."""
    taps = config.vision.deepstack_visual_indexes[:layers]
    return config.resized(text={"num_hidden_layers": layers}, vision={"deepstack_visual_indexes": taps})


def tiny_job(repeats: int, threads: int, form: Form = AS_TRAINED, phases: tuple[str, ...] = PHASES) -> Job:
    """A toy model, in float32."""
    size = dataclasses.replace(SIZES["small"], prompts=1, new_tokens=12)
    return Job(size, 2, repeats, "float32", threads, form=form, phases=phases)


def count_parameters(config: Qwen3VLConfig) -> int:
    """Parameters of a model."""
    model = nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def _in_own_process(side: str, argv: list[str]) -> Figures:
    command = [sys.executable, "-m", "bench.accelerator", *argv, f"--side={side}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} ended with code {done.returncode}")
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def _phases(text: str) -> tuple[str, ...]:
    phases = tuple(text.split(","))
    if not set(phases) <= set(PHASES):
        raise argparse.ArgumentTypeError(f"{text}: expected {' or '.join(PHASES)}")
    return phases


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = results.make_parser("accelerator", __doc__)
    parser.add_argument("--size", choices=published.SIZES, help="whose widths (default: widest that fits)")
    parser.add_argument(
        "--layers", type=results.at_least(0), default=0, help="of the decoder (default: as many as fit)"
    )
    parser.add_argument("--repeats", type=results.at_least(1), default=5, help="runs that count (default 5)")
    parser.add_argument(
        "--remat", choices=tuple(REMAT), default="full", help="our side's model.remat (default full)"
    )
    parser.add_argument(
        "--layer_arrays", choices=LAYERS, default="auto", help="our side's rollout.layers (default auto)"
    )
    parser.add_argument(
        "--weight_dtype", choices=WEIGHT_DTYPES, default="", help="our side's rollout.weight_dtype"
    )
    parser.add_argument(
        "--phases", type=_phases, default=PHASES, help="update, decode or both (update,decode: the default)"
    )
    parser.add_argument("--alone", action="store_true", help="leave the peer out")
    parser.add_argument("--tiny", action="store_true", help="a toy model, on whatever there is")
    parser.add_argument("--side", choices=SIDES, help="run one side and print its seconds as JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
