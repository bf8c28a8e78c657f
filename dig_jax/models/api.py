"""The contract of a model family, and of its models: what the rest of the program calls.

Shape letters: B prompts, G responses per prompt, P prompt length, R response length, D width, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp

from dig_jax.models.architecture import Architecture, VisionConfig
from dig_jax.models.hf.layout import Weight
from dig_jax.models.hf.safetensors_io import Tensor
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.caches import PromptCache, ResponseCache, positions_read
from dig_jax.models.nn.readers import Readers
from dig_jax.models.nn.routing import Extras, Routing

__all__ = [
    "Architecture",
    "Extras",
    "Family",
    "Model",
    "PromptCache",
    "Prompts",
    "Readers",
    "ResponseCache",
    "Routing",
    "positions_read",
]


class Model(Protocol):
    """What rollout, losses and commands call. `VisionLanguageModel` says more of each member."""

    dtype: jnp.dtype  # of activations and caches

    @property
    def config(self) -> Architecture:
        """The architecture."""
        ...

    def __call__(
        self,
        prompts: Prompts,
        responses: jax.Array | None = None,
        routing: Routing | None = None,
        response_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None, Extras]:
        """Final hidden states of prompts, [B,P,D], and of responses int32 [B,G,R], [B,G,R,D]; extras by name.

        With `routing`, tokens go through those experts, and the routers choose none.
        """
        ...

    def prefill(self, prompts: Prompts) -> tuple[jax.Array, PromptCache]:
        """Hidden states [B,P,D] of the prompts, and what responses need to go on from them."""
        ...

    def init_response_cache(self, batch: int, group: int, length: int) -> ResponseCache:
        """An empty cache for `group` responses of up to `length` tokens to each of `batch` prompts."""
        ...

    def cache_block(self, longest: int) -> int | None:
        """Positions of each response's cache, of `longest`, that decoding reads at a time.

        It reads the blocks of so many that hold a token (`positions_read`). None: it reads all of its
        `window`.
        """
        ...

    def decode(
        self,
        tokens: jax.Array,
        step: jax.Array | int,
        prompt_cache: PromptCache,
        cache: ResponseCache,
        window: int | None = None,
        readers: Readers | None = None,
    ) -> tuple[jax.Array, ResponseCache]:
        """Hidden states [B,G,D] after token number `step` of every response, and the cache with it.

        With `readers`, G is 1 and each of the B responses reads the prompt that these say.
        """
        ...

    def logits(self, hidden: jax.Array, tokens: jax.Array | None = None) -> jax.Array:
        """float32 logits [...,V] of hidden states [...,D], or only those of the given `tokens`."""
        ...

    @property
    def head_table(self) -> jax.Array:
        """The output head [V,D]."""
        ...

    def in_compute_dtype(self) -> Self:
        """The same function with kernels and embeddings in `dtype`, for sampling."""
        ...


@dataclasses.dataclass(frozen=True)
class Family:
    """A model family: all that is particular to it and asked for by name.

    What comes with a checkpoint is read from its folder: sizes (`config`), tokenizer and chat template, image
    sizes and normalisation, pixel limits.

    Attributes:
      model_type: of config.json.
      title: what people call it.
      series_title: what its released models are called before their size; "" = the title.
      config: its architecture, which reads and writes config.json.
      model: makes a `Model` from a configuration, with the keywords of `VisionLanguageModel`.
      weights: the table of weights of a configuration: parameters here and tensors of its checkpoints.
      sizes: the published ones.
      published: the architecture of one of those sizes.
      vision_products: multiply-adds of the tower for a prompt, from (its configuration, patches, images); the
        images have one size.
      processor: name of its processor in transformers, which loads a folder by it.
      box_convention: how its makers write the coordinates of a box: "thousandths" of width and height,
        "pixels" of the image as resized for the model, or "unit", 0 to 1 of the square that the image is
        centred in.
      sampling, thinking_sampling: temperature, top_p and top_k that its makers publish, for models that do
        not think and those that do; what a folder's generation_config.json says comes first.
      pixel_mean, pixel_std: of each channel, 0 to 1, that its image processor is published with.
      object_marks: what an image shown as an object is in the chat template: the words before it, for it and
        after it, each under the name of its id in config.json without "_token_id"; empty where the family
        has none.
      parts: the models that one of the family is assembled from, by the name of their flag (`assemble`), with
        what they are; empty: it is published as a whole.
      assemble: from the folders of those parts, by flag, to a configuration and tensors under the names of
        its checkpoints; its keywords, numbers, are flags, too.
      small_tower: the tower of a small model (`scratch`), from the sizes that all towers have and the side of
        its images in pixels; its keywords are the family's own settings.
      system: the text of the turn that its chat template begins with where a conversation has none.
      modules: how names in a checkpoint begin, and what stands there in memory in transformers, where the two
        differ. Files with either name are read; adapters go by the second.
    """

    model_type: str
    title: str
    config: type[Architecture]
    model: Callable[..., Model]
    weights: Callable[[Any], tuple[Weight, ...]]
    sizes: tuple[str, ...]
    published: Callable[[str], Architecture]
    vision_products: Callable[[Any, int, int], float]
    processor: str
    box_convention: str
    sampling: Mapping[str, float]
    thinking_sampling: Mapping[str, float]
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    small_tower: Callable[..., VisionConfig]
    series_title: str = ""
    system: str = ""
    object_marks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    assemble: Callable[..., tuple[Architecture, Iterable[Tensor]]] | None = None
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def series(self) -> str:
        """What its released models are called before their size."""
        return self.series_title or self.title

    def module_name(self, name: str) -> str:
        """What transformers calls, in memory, the tensor or module `name` of a checkpoint."""
        head, dot, rest = name.partition(".")
        return self.modules.get(head, head) + dot + rest

    def checkpoint_name(self, name: str) -> str:
        """The name in a checkpoint of a tensor by either of its names."""
        for ours, theirs in self.modules.items():
            if name.startswith(f"{theirs}."):
                return ours + name.removeprefix(theirs)
        return name
