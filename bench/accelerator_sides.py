"""The two sides of `bench/accelerator.py`: one update and one decoding of dig_jax, and of transformers.

Shape letters: G completions of one prompt, R response tokens, P prompt tokens.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.inference_sizes import Prompt, Size, make_prompts
from dig_jax.models.nn.sampling_copy import AS_TRAINED, Form

PHASES = ("update", "decode")


@dataclasses.dataclass(frozen=True)
class Job:
    """What is measured.

    Attributes:
      size: the model and its prompt; R is its `new_tokens`.
      group: G.
      repeats: runs that count.
      precision: "bfloat16", or "float32" where it has to run on a CPU.
      threads: of the peer, on the host.
      remat: of our update (`config.model.remat`); the peer recomputes every layer.
      form: of our weights for decoding (`config.rollout.layers`, `weight_dtype`).
      phases: "update", "decode" or both.
    """

    size: Size
    group: int
    repeats: int
    precision: str
    threads: int
    remat: str = "full"
    form: Form = AS_TRAINED
    phases: tuple[str, ...] = PHASES


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one side took: median seconds of an update, and of one decoding step; 0 for what was not run."""

    update_s: float
    step_s: float


def dig_jax(job: Job, profile: str = "") -> Figures:
    """Our side: the trainer's update, then the rollout's decoding."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from bench import timing
    from bench.inference_sides import DigJax
    from dig_jax.models.nn import kernels
    from dig_jax.models.qwen3_vl.model import Qwen3VL

    config, dtype = job.size.config, jnp.dtype(job.precision)
    head_dims = (config.text.head_dim, config.vision.hidden_size // config.vision.num_heads)
    kernel = kernels.choose("auto", jax.devices()[0], dtype, head_dims)
    prompts = make_prompts(job.size)

    def model(param_dtype: Any) -> Qwen3VL:
        options: dict[str, Any] = {"dtype": dtype, "remat": job.remat, "attention": kernel}
        return jax.jit(lambda: Qwen3VL(config, rngs=nnx.Rngs(0), param_dtype=param_dtype, **options))()

    update_s = step_s = 0.0
    if "update" in job.phases:
        update = _our_update(job, model(jnp.float32), prompts[0])
        update_s = _median(update, job.repeats)
        timing.profile(profile and f"{profile}/update", update)
        del update  # and with it the state, which takes most of the memory
    if "decode" in job.phases:
        decoder = DigJax(model(dtype), job.size, prompts, job.group, job.form)
        step_s = _median_step(decoder, job)
        timing.profile(profile and f"{profile}/decode", decoder.decode)
    return Figures(update_s, step_s)


def _our_update(job: Job, model: Any, prompt: Prompt) -> Callable[[], None]:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from bench.learning import make_learner
    from dig_jax.models.inputs import make_prompts as pad_prompts
    from dig_jax.update.microbatches import Cut
    from dig_jax.update.policy import Experience

    ids, images = prompt
    size = (1, job.group, job.size.new_tokens)
    batch = Experience(
        prompts=pad_prompts(
            [ids],
            [images],
            job.size.config,
            prompt_length=job.size.prompt_length,
            num_patches=job.size.num_patches,
        ),
        tokens=_responses(job)[None],
        mask=np.ones(size, np.float32),
        behaviour_logprobs=np.full(size, -1.0, np.float32),
        advantages=np.linspace(-1, 1, job.group, dtype=np.float32)[None],
        ref_logprobs=np.full(size, -1.0, np.float32),
    )
    graphdef, params = nnx.split(model, nnx.Param)
    learner = make_learner(graphdef, job.size.config.text.vocab_size, chunk=64, cut=Cut(1))
    step = jax.jit(learner.update_grpo, donate_argnums=0)
    batch = jax.device_put(jax.tree.map(jnp.asarray, batch))
    state = learner.init(params)

    def update() -> None:
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state)

    return update


def transformers(job: Job) -> Figures:
    """The peer: the same widths and depth, prompts and tokens; attention "sdpa", AdamW fused where it can be.

    Its rows hold prompt and response each, G copies of the prompt with it, which is how it is trained.
    """
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    from bench.inference_sides import Transformers

    torch.set_num_threads(job.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, job.precision)
    config = Qwen3VLConfig(**job.size.config.to_dict())
    prompts = make_prompts(job.size)

    def model(param_dtype: Any) -> Any:
        with torch.device(device):
            return Qwen3VLForConditionalGeneration._from_config(
                config, dtype=param_dtype, attn_implementation="sdpa"
            )

    update_s = step_s = 0.0
    if "update" in job.phases:
        update = _their_update(job, model(torch.float32), prompts[0], device, dtype)
        update_s = _median(update, job.repeats)
        del update
        if device == "cuda":
            torch.cuda.empty_cache()
    if "decode" in job.phases:
        decoder = Transformers(model(dtype), job.size, prompts, job.group, device)
        decoder.choose_cache(runs=1)
        step_s = _median_step(decoder, job)
    return Figures(update_s, step_s)


def _their_update(job: Job, model: Any, prompt: Prompt, device: str, dtype: Any) -> Callable[[], None]:
    import torch

    ids, images = prompt
    rows = np.concatenate([np.tile(ids, (job.group, 1)), _responses(job)], axis=1).astype(np.int64)
    patches = np.concatenate([patches for patches, _ in images])
    arrays = {
        "input_ids": rows,
        "attention_mask": np.ones_like(rows),
        "mm_token_type_ids": (rows == job.size.config.image_token_id).astype(np.int64),
        "pixel_values": np.tile(patches, (job.group, 1)),
        "image_grid_thw": np.array([(1, *grid) for _, grid in images] * job.group),
    }
    inputs = {name: torch.tensor(array, device=device) for name, array in arrays.items()}
    targets = inputs["input_ids"][:, len(ids) :, None]
    advantages = torch.linspace(-1, 1, job.group, device=device)[:, None]
    model.train()
    model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=device == "cuda")
    keep = job.size.new_tokens + 1

    def update() -> None:
        model.model.rope_deltas = None
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            logits = model(**inputs, use_cache=False, logits_to_keep=keep).logits[:, :-1]
        logprobs = torch.log_softmax(logits.float(), dim=-1).gather(-1, targets)[..., 0]
        ratio = torch.exp(logprobs - logprobs.detach())
        (-(ratio * advantages).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return update


def _responses(job: Job) -> np.ndarray:
    """Random words [G,R], none of them an image's."""
    words = job.size.config.vision_start_token_id
    size = (job.group, job.size.new_tokens)
    return np.random.default_rng(1).integers(0, words, size).astype(np.int32)


def _median(run: Callable[[], None], repeats: int) -> float:
    seconds = []
    for _ in range(1 + repeats):  # the first one compiles
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def _median_step(decoder: Any, job: Job) -> float:
    """Seconds of one decoding step: the first token is drawn before the clock starts."""
    decoder.decode()
    runs = [decoder.decode().wall for _ in range(job.repeats)]
    return statistics.median(runs) / (job.size.new_tokens - 1)
