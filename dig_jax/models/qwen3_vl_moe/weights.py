"""How the parameters of Qwen3-VL with experts are called in a checkpoint."""

from dig_jax.models.hf.layout import Weight
from dig_jax.models.qwen3_vl import weights as dense
from dig_jax.models.qwen3_vl_moe.config import Qwen3VLMoeConfig

_MLP = "model.language_model.layers.{}.mlp"


def weights(config: Qwen3VLMoeConfig) -> tuple[Weight, ...]:
    """The table of a model's weights.

    Experts are written as hub checkpoints have them, which transformers 4.57 and 5 and serving engines read;
    but where the shapes do not tell, as transformers 5 has them, since it would read the others wrong.
    """
    flipped = config.text.square_experts
    return (
        *dense.all_but_mlps(config),
        Weight("text.layers.mlp.router.kernel", f"{_MLP}.gate.weight", 1),
        Weight("text.layers.mlp.gate_up", f"{_MLP}.experts.gate_up_proj", matrices=True, flipped=flipped),
        Weight("text.layers.mlp.down", f"{_MLP}.experts.down_proj", matrices=True, flipped=flipped),
    )
