"""TinyGroundingGPT as a model of the house: its towers, Qwen2's attention, positions along the text.

Shape letters: B prompts, P prompt length, K images per prompt, n patches of an image, D decoder width.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.models.architecture import TextConfig
from dig_jax.models.clip_dino_qwen.config import ClipDinoQwenConfig
from dig_jax.models.clip_dino_qwen.vision import Towers
from dig_jax.models.inputs import Prompts
from dig_jax.models.nn.multimodal import VisionLanguageModel
from dig_jax.models.nn.text_attention import BiasedAttention


def rotary_axes(config: TextConfig) -> np.ndarray:
    """Every frequency turns with the place in the text, int [head_dim/2]."""
    return np.zeros(config.head_dim // 2, int)


class ClipDinoQwen(VisionLanguageModel):
    """A TinyGroundingGPT model; keywords as those of `VisionLanguageModel`."""

    config: ClipDinoQwenConfig
    vision: Towers

    def __init__(self, config: ClipDinoQwenConfig, **options: Any) -> None:
        super().__init__(config, Towers, BiasedAttention, rotary_axes, **options)

    def encode_images(self, prompts: Prompts) -> tuple[jax.Array, jax.Array]:
        """Features [B,K*n,D] of the image tokens (`feature_numbers`); there are no DeepStack features.

        Every image has n patches, so they are where the prompt has room for them. Which are objects, the
        words say that they stand at.
        """
        each = self.config.vision.side**2
        patches = jnp.asarray(prompts.patches, jnp.float32)
        batch, count, size = patches.shape
        room = max(1, count // each)
        patches = jnp.pad(patches, ((0, 0), (0, max(0, each - count)), (0, 0)))[:, : room * each]
        is_object = self._objects(jnp.asarray(prompts.tokens), room)
        features = self.vision(patches.reshape(batch, room, each, size), is_object, self.dtype)
        features = features.reshape(batch, room * each, -1)
        return features, jnp.zeros((0, *features.shape), features.dtype)

    def feature_numbers(self, is_image: jax.Array) -> jax.Array:
        """See `VisionLanguageModel`: the tokens of image k take those from k * n on."""
        number, place = _runs(is_image)
        return number * self.config.vision.side**2 + place

    def _objects(self, tokens: jax.Array, room: int) -> jax.Array:
        """Which of the images of every prompt are objects, bool [B,K]."""
        number, place = _runs(self.is_image(tokens))
        begins = (tokens == self.config.object_token_id) & (place == 0)
        return jnp.any(begins[..., None] & (number[..., None] == jnp.arange(room)), axis=1)


def _runs(is_image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of every image token [B,P], the number of its run (images never touch) and its place within."""
    before = jnp.pad(is_image[:, :-1], ((0, 0), (1, 0)))
    begins = is_image & ~before
    where = jnp.arange(is_image.shape[1])
    first = jax.lax.cummax(jnp.where(begins, where, 0), axis=1)
    return jnp.cumsum(begins, axis=1) - 1, where - first
