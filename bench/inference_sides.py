"""The two sides of `bench/inference.py`: dig_jax and transformers, with the same weights on the same prompts.

Each side does four things: reads prompts and gives the logits after them (`prefill`, timed), continues one
prompt greedily (`greedy`, for the check), and decodes a sampled group of completions (`decode`, timed).
Seconds of `decode` start when every completion has its first token, so prefill is not in them, and no
completion ends early on either side.

Shape letters: B prompts, G completions, R new tokens, V vocabulary.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from bench.inference_sizes import Prompt, Size
from bench.timing import Seconds
from configs import base
from dig_jax.machines import parallel
from dig_jax.models.inputs import Prompts
from dig_jax.models.inputs import make_prompts as pad_prompts
from dig_jax.models.nn.multimodal import VisionLanguageModel
from dig_jax.models.nn.sampling_copy import Form, sampling_copy
from dig_jax.rollout.drawer import answering_form
from dig_jax.rollout.engine import Decoding, sample_keys
from dig_jax.rollout.lockstep import lockstep_programs
from dig_jax.rollout.sampling import Sampling
from dig_jax.run import loading


class Side(Protocol):
    """What is measured of a side; see the module's docstring."""

    def prefill(self) -> tuple[Seconds, np.ndarray]:
        """Seconds to read the B prompts, and the logits [B,V] after them."""
        ...

    def greedy(self) -> np.ndarray:
        """The most probable continuation of the first prompt, [G,R]: G equal rows decoded together."""
        ...

    def decode(self) -> Seconds:
        """Seconds to decode G sampled completions of the first prompt, from the second token on."""
        ...


class DigJax:
    """Our side, loaded as a session loads: `model.prefill`, and the programs that a session decodes with.

    Args:
      source: the folder of the model, which needs no tokenizer, or the model itself.
      size, prompts, group: what is asked.
      form: of the weights; None: as a session on such devices has them.

    Attributes:
      model: that of the folder, in float32.
    """

    def __init__(
        self,
        source: epath.PathLike | VisionLanguageModel,
        size: Size,
        prompts: list[Prompt],
        group: int,
        form: Form | None = None,
    ):
        config = base.get_config()
        config.model.dtype = "float32"
        mesh = parallel.make_mesh(config.mesh, jax.devices()[:1])
        if isinstance(source, VisionLanguageModel):
            graphdef, params = nnx.split(source)
        else:
            graphdef, params = loading.load_policy(config, loading.open_weights(epath.Path(source)), mesh)
        form = answering_form(config, mesh) if form is None else form
        model = sampling_copy(nnx.merge(graphdef, params), form)
        self.model: VisionLanguageModel = model
        graphdef, self._weights = nnx.split(model, nnx.Param)
        self._programs = lockstep_programs(graphdef, self._weights, mesh)
        self._new_tokens = size.new_tokens
        place = functools.partial(parallel.put_whole, mesh=mesh)
        self._batch, self._one = (place(self._pad(size, part)) for part in (prompts, prompts[:1]))
        keys = sample_keys(jax.random.key(0), 0, np.arange(group)[None])
        self._keys = jax.random.wrap_key_data(place(jax.random.key_data(keys)))
        self._prefill = parallel.jit(functools.partial(_prefill, graphdef), mesh)

    def _pad(self, size: Size, prompts: list[Prompt]) -> Prompts:
        ids, images = zip(*prompts, strict=True)
        return pad_prompts(
            ids,
            images,
            self.model.config,
            prompt_length=size.prompt_length,
            num_patches=size.num_patches,
        )

    def prefill(self) -> tuple[Seconds, np.ndarray]:
        begin = Seconds.now()
        logits, _ = jax.block_until_ready(self._prefill(self._weights, self._batch))
        return Seconds.now().since(begin), np.asarray(logits)

    def greedy(self) -> np.ndarray:
        return np.asarray(self._decode(temperature=0.0)[1].rollout.tokens[0])

    def decode(self) -> Seconds:
        seconds, decoding = self._decode(temperature=1.0)
        if decoding.rollout.steps != self._new_tokens:
            raise RuntimeError(f"dig_jax stopped after {decoding.rollout.steps} of {self._new_tokens} tokens")
        return seconds

    def _decode(self, temperature: float) -> tuple[Seconds, Decoding]:
        vocab = self.model.config.text.vocab_size
        sampling = Sampling(
            temperature=temperature,
            top_p=1.0,
            top_k=0,
            # Something has to end a completion. All of a group end with this word only by a rare chance,
            # which `decode` would notice.
            eos_ids=(vocab - 1,),
            suppressed=(),
            vocab_size=vocab,
            pad_id=0,
        )
        programs, until = self._programs, np.int32(self._new_tokens)
        decoding = programs.start(self._weights, self._one, self._keys, sampling, self._new_tokens)
        jax.block_until_ready(decoding)
        begin = Seconds.now()
        decoding = programs.advance(self._weights, decoding, self._keys, until, sampling, None)
        jax.block_until_ready(decoding)
        return Seconds.now().since(begin), decoding


def _prefill(graphdef: nnx.GraphDef, weights: nnx.State, prompts: Prompts) -> tuple[jax.Array, Any]:
    """Logits [B,V] after the prompts, and the cache to go on from."""
    model = nnx.merge(graphdef, weights)
    hidden, cache = model.prefill(prompts)
    last = jnp.take_along_axis(hidden, prompts.length[:, None, None] - 1, axis=1)
    return model.logits(last)[:, 0], cache


class Transformers:
    """The peer, at the best settings we found for it.

    Scaled-dot-product attention, `inference_mode`, one forward for the prefill with the head on the last
    position only, and `generate` with `num_return_sequences`, without stopping criteria or filters. The
    key/value cache is the faster one of the dynamic and the static kind; `choose_cache` finds out.

    Args:
      model: a Qwen3VLForConditionalGeneration, with attention "sdpa".

    Attributes:
      cache: "dynamic" or "static".
    """

    def __init__(self, model: Any, size: Size, prompts: list[Prompt], group: int, device: str):
        import torch

        self._torch = torch
        self._device = device
        self._model = model
        self._model.eval().to(device)
        self._model.generation_config.eos_token_id = None  # no completion ends early
        self._model.generation_config.pad_token_id = 0
        self._group, self._new_tokens = group, size.new_tokens
        self._batch = self._inputs(prompts)
        self._one = self._inputs(prompts[:1])
        self._copies = self._inputs(prompts[:1] * group)
        self.cache = "dynamic"

    def choose_cache(self, runs: int) -> dict[str, float]:
        """Takes the faster kind of cache; CPU seconds of each kind's fastest run."""
        seconds = {}
        for kind in ("dynamic", "static"):
            self.cache = kind
            seconds[kind] = min(self.decode().cpu for _ in range(runs))
        self.cache = min(seconds, key=lambda kind: seconds[kind])
        return seconds

    def _inputs(self, prompts: list[Prompt]) -> dict[str, Any]:
        torch, config = self._torch, self._model.config
        ids = np.stack([ids for ids, _ in prompts])
        images = [image for _, row in prompts for image in row]
        inputs = {
            "input_ids": ids.astype(np.int64),
            "attention_mask": np.ones(ids.shape, np.int64),
            "mm_token_type_ids": (ids == config.image_token_id).astype(np.int64),
            "pixel_values": np.concatenate([patches for patches, _ in images]),
            "image_grid_thw": np.array([(1, *grid) for _, grid in images]),
        }
        return {name: torch.tensor(value).to(self._device) for name, value in inputs.items()}

    def prefill(self) -> tuple[Seconds, np.ndarray]:
        with self._quiet():
            begin = Seconds.now()
            logits = self._model(**self._batch, use_cache=True, logits_to_keep=1).logits[:, 0]
            logits = logits.cpu()  # waits for the device
            return Seconds.now().since(begin), logits.numpy()

    def greedy(self) -> np.ndarray:
        return self._generate(self._copies, do_sample=False)[1]

    def decode(self) -> Seconds:
        return self._generate(
            self._one, do_sample=True, temperature=1.0, top_k=0, num_return_sequences=self._group
        )[0]

    def _generate(self, inputs: dict[str, Any], **settings: Any) -> tuple[Seconds, np.ndarray]:
        clock = _Clock()
        if self.cache == "static":
            settings["cache_implementation"] = "static"
        with self._quiet():
            ids = self._model.generate(**inputs, max_new_tokens=self._new_tokens, streamer=clock, **settings)
        new = ids[:, inputs["input_ids"].shape[1] :]
        if new.shape != (self._group, self._new_tokens):
            raise RuntimeError(f"transformers generated {tuple(new.shape)}; a completion ended early")
        prompt, first, *_, last = clock.times  # `generate` shows the prompt to the streamer as well
        return last.since(first), new.cpu().numpy()

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Without autograd, and without the positions that an earlier call leaves in the model."""
        self._model.model.rope_deltas = None
        with self._torch.inference_mode():
            yield


class _Clock:
    """A streamer for `generate` that notes when each token of the group is there."""

    def __init__(self) -> None:
        self.times: list[Seconds] = []

    def put(self, value: Any) -> None:
        self.times.append(Seconds.now())  # `generate` gives it on the host: the device is done

    def end(self) -> None:
        pass
