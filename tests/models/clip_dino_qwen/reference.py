"""TinyGroundingGPT put together from transformers' CLIPVisionModel, Dinov2Model and Qwen2ForCausalLM."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dig_jax.models.clip_dino_qwen.assembly import _DINO_NAMES
from dig_jax.models.clip_dino_qwen.config import ClipDinoQwenConfig
from tests.models.conftest import Example, Reference

MEANS = [[0.48145466, 0.4578275, 0.40821073], [0.485, 0.456, 0.406]]
STDS = [[0.26862954, 0.26130258, 0.27577711], [0.229, 0.224, 0.225]]


class TinyReference(Reference):
    """Three models of transformers and a projector, fed with the same examples."""

    def forward(self, *examples: Example) -> Any:
        """See `Reference.forward`."""
        torch, model = self.torch, self.model
        embedded = [model.embed(example) for example in examples]
        longest = max(len(row) for row in embedded)
        pad = [torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in embedded]
        mask = np.stack([np.arange(longest) >= longest - len(row) for row in embedded])
        places = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        return model.qwen(
            inputs_embeds=torch.stack(pad),
            attention_mask=torch.tensor(mask, dtype=torch.long),
            position_ids=torch.tensor(places),
        ).logits


def make_reference(config: ClipDinoQwenConfig, tensors: Mapping[str, np.ndarray], dtype: str) -> Reference:
    """The reference of a configuration with these weights, by their names in our checkpoints."""
    import torch

    model = make_class(torch)(config, set(tensors)).to(getattr(torch, dtype))
    own = dict(model.named_parameters())
    assert own.keys() == tensors.keys()
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.tensor(tensors[name]).reshape(parameter.shape))
    return TinyReference(torch, model.eval())


def make_class(torch: Any) -> Any:
    """The class, made where torch is there."""

    class Tiny(torch.nn.Module):
        def __init__(self, config: ClipDinoQwenConfig, names: set[str]) -> None:
            super().__init__()
            self.config, self.names = config, names
            self.clip, self.dino, self.qwen = towers_and_decoder(config)
            joined = config.vision.hidden_size + config.vision.dino.hidden_size
            self.fc1 = torch.nn.Linear(joined, config.text.hidden_size)
            self.fc2 = torch.nn.Linear(config.text.hidden_size, config.text.hidden_size)

        def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
            """Those that our checkpoints have, by their names there."""
            for name, parameter in super().named_parameters(*args, **kwargs):
                name = checkpoint_name(name)
                if name in self.names:
                    yield name, parameter

        def features(self, pixels: Any) -> Any:
            """Images [K,C,H,W], 0 to 1, to joined features [K,n,C]."""
            kinds = zip(MEANS, STDS, strict=True)
            clip, dino = (
                ((pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]).to(
                    self.fc1.weight.dtype
                )
                for mean, std in kinds
            )
            seen = self.clip(clip, output_hidden_states=True)
            other = self.dino(dino, output_hidden_states=True)
            final = self.config.vision.dino.final_norm
            other = other.last_hidden_state if final else other.hidden_states[-2]
            return torch.cat([seen.hidden_states[-2][:, 1:], other[:, 1:]], dim=-1)

        def project(self, features: Any) -> Any:
            return self.fc2(torch.nn.functional.gelu(self.fc1(features)))

        def embed(self, example: Example) -> Any:
            """Embeddings [T,D] of a prompt, one image after another written over its placeholders."""
            ids = torch.tensor(example.ids, dtype=torch.long)
            rows = list(self.qwen.get_input_embeddings()(ids))
            place = 0
            for patches, _ in example.images:
                while int(ids[place]) not in self.config.placeholders:
                    place += 1
                features = self.features(as_pixels(torch, patches, self.config))
                if ids[place] == self.config.object_pad_token_id:
                    side = self.config.vision.side
                    square = features.reshape(1, side, side, -1).movedim(3, 1)
                    pooled = torch.nn.functional.avg_pool2d(square, self.config.vision.object_side)
                    features = pooled.flatten(2).movedim(1, 2)
                for token in self.project(features)[0]:
                    rows[place] = token
                    place += 1
            return torch.stack(rows)

    return Tiny


def as_pixels(torch: Any, patches: np.ndarray, config: ClipDinoQwenConfig) -> Any:
    """Patches [n,C*p*p], row by row, as an image [1,C,H,W]."""
    side, size = config.vision.side, config.vision.patch_size
    image = patches.reshape(side, side, 3, size, size).transpose(2, 0, 3, 1, 4)
    return torch.tensor(image.reshape(1, 3, side * size, side * size))


def towers_and_decoder(config: ClipDinoQwenConfig) -> Sequence[Any]:
    """Models of transformers, towers one layer deeper than the layer that is read."""
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModel,
        Dinov2Config,
        Dinov2Model,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    vision, dino = config.vision, config.vision.dino
    clip = CLIPVisionConfig(
        hidden_size=vision.hidden_size,
        intermediate_size=vision.intermediate_size,
        num_hidden_layers=vision.depth + 1,
        num_attention_heads=vision.num_heads,
        patch_size=vision.patch_size,
        image_size=vision.image_size,
    )
    other = Dinov2Config(
        hidden_size=dino.hidden_size,
        mlp_ratio=dino.intermediate_size // dino.hidden_size,
        num_hidden_layers=dino.depth + (not dino.final_norm),
        num_attention_heads=dino.num_heads,
        patch_size=vision.patch_size,
        image_size=vision.patch_size * dino.positions_per_side,
    )
    text = Qwen2Config(**config.to_dict()["text_config"], tie_word_embeddings=config.tie_word_embeddings)
    return CLIPVisionModel(clip), Dinov2Model(other), Qwen2ForCausalLM(text)


def checkpoint_name(name: str) -> str:
    """What a parameter of the whole is called in our checkpoints."""
    for theirs, ours in _DINO_NAMES.items():
        name = name.replace(f".{theirs}.", f".{ours}.")
    return f"projector.{name}" if name.startswith("fc") else name.removeprefix("qwen.")
