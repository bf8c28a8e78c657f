"""A rollout and an update of a small model on a mesh and on one device, for test_sharding.py; prints JSON."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from flax import nnx

from bench.learning import make_learner
from configs import base
from dig_jax.aot import hlo
from dig_jax.data.buckets import Bucket
from dig_jax.machines import parallel
from dig_jax.models import families
from dig_jax.models.architecture import MoETextConfig
from dig_jax.models.inputs import Prompts, make_prompts
from dig_jax.models.nn import expert_parallel, freeze
from dig_jax.rollout.drawer import Limits
from dig_jax.rollout.engine import Rollout, sample_keys
from dig_jax.rollout.pool import Pool
from dig_jax.rollout.programs import rollout_programs
from dig_jax.rollout.sampling import Sampling
from dig_jax.run import loading
from dig_jax.update.learner import TrainState, train_programs
from dig_jax.update.microbatches import Cut
from dig_jax.update.policy import Experience, forward
from dig_jax.update.sft import Supervised

PROMPTS, GROUP, LENGTH = 16, 2, 8
GRID = (4, 4)  # patches of an image
WORDS = 300  # tokens that can be drawn


class Side:
    """The programs of a run on a mesh."""

    def __init__(self, folder: epath.Path, devices: list[jax.Device], sizes: tuple[int, ...], rank: int):
        config = base.get_config()
        config.model.dtype = "float32"
        config.grpo.kl_coef = 0.0
        config.mesh.update(dict(zip(parallel.AXES, sizes, strict=True)))
        config.rollout.mesh.expert, config.rollout.mesh.tensor = sizes[2:]
        config.batch.sum_gradients = "update"
        config.model.expert_room = 1.0  # where experts are split, choices go in several rounds
        self.mesh = parallel.make_mesh(config.mesh, devices)
        self.model_config = families.load_config(folder)
        config.model.lora.rank, config.model.lora.alpha = rank, float(rank)
        plain = loading.load_params(config, loading.open_model(folder), self.mesh)
        self.graphdef, params = loading.with_adapters(config, *plain, self.mesh)
        adapters, others = freeze.split_adapters(params)
        rng = np.random.default_rng(1)

        def drawn(x: jax.Array) -> jax.Array:
            return jax.device_put(rng.normal(scale=0.05, size=x.shape).astype(np.float32), x.sharding)

        self.params = nnx.merge_state(others, jax.tree.map(drawn, adapters))
        rows = self.model_config.text.vocab_size
        # What the sampler can draw: ratios are 1, far from where they are clipped and gradients jump.
        allowed = np.arange(rows) < WORDS
        self.learner = make_learner(self.graphdef, rows, config, chunk=4, cut=Cut(8), allowed=allowed)
        self.rollout_mesh = parallel.rollout_mesh(config.rollout.mesh, self.mesh)
        self.programs = rollout_programs(self.graphdef, self.params, self.rollout_mesh)

    def draw(self) -> tuple[Pool, Rollout, nnx.State]:
        """The filled pool as it lies on the devices, the completions, and the weights that drew them."""
        sampling = Sampling(
            temperature=1.0, top_p=1.0, top_k=0, eos_ids=(5,), suppressed=(), vocab_size=WORDS, pad_id=0
        )
        limits = Limits(sampling, LENGTH, slots=1, rows=8)
        prompts = parallel.put_batch(self.prompts(), self.rollout_mesh)
        keys = sample_keys(jax.random.key(0), 0, np.arange(PROMPTS * GROUP).reshape(PROMPTS, GROUP))
        keys = jax.random.wrap_key_data(parallel.put_batch(jax.random.key_data(keys), self.rollout_mesh))
        weights = self.programs.weights(self.params)
        shown, pool = (self.programs.fill(weights, prompts, keys, limits) for _ in range(2))
        drawn, _ = self.programs.drain(weights, pool, keys, limits)  # the pool is donated to it
        return shown, jax.device_get(drawn), weights

    def update(self, drawn: Rollout) -> tuple[TrainState, float]:
        """The state after one update on the completions, and the loss."""
        programs = train_programs(self.learner, self.params, self.mesh)
        state = programs.init(jax.tree.map(jnp.copy, self.params))
        batch = parallel.put_batch(self.experience(drawn), self.mesh)
        state, metrics = programs.update_grpo(state, batch)
        return jax.block_until_ready(state), float(metrics["loss"])

    def supervised(self, drawn: Rollout) -> list[float]:
        """Loss and gradient norm of a supervised update, a completion of each prompt its answer."""
        programs = train_programs(self.learner, self.params, self.mesh)
        cells = np.zeros(self.prompts().tokens.shape, np.float32)
        batch = Supervised(self.prompts(), drawn.tokens[:, 0], drawn.mask[:, 0], cells, cells)
        state = programs.init(jax.tree.map(jnp.copy, self.params))
        _, metrics = programs.update_sft(state, parallel.put_batch(batch, self.mesh))
        return [float(metrics[name]) for name in ("loss", "grad_norm")]

    def experience(self, drawn: Rollout) -> Experience:
        """The completions under made-up advantages."""
        advantages = np.cos(np.arange(PROMPTS * GROUP, dtype=np.float32)).reshape(PROMPTS, GROUP)
        return Experience(self.prompts(), drawn.tokens, drawn.mask, drawn.logprobs, advantages)

    def sent_across_data(self, drawn: Rollout, when: str) -> float:
        """Bytes that a device sends to the other part of the mesh along `data`, of two, in an update."""
        learner = dataclasses.replace(self.learner, sum_gradients=when)
        programs = train_programs(learner, self.params, self.mesh)
        batch = parallel.put_batch(self.experience(drawn), self.mesh)
        text = programs.update_grpo.lower(programs.state, batch).compile().as_text()
        part = np.zeros(self.mesh.size, int)
        part[[device.id for device in self.mesh.devices[1].flat]] = 1
        return hlo.read_traffic(text, hosts=part.tolist()).across_slices

    def hidden(self, drawn: Rollout) -> jax.Array:
        """The hidden states [B,G,R,D] of the completions, laid out as the model left them."""

        def states(params: nnx.State, prompts: Prompts, tokens: jax.Array) -> jax.Array:
            return forward(nnx.merge(self.graphdef, params), prompts, tokens)[1]

        run = parallel.jit(states, self.mesh)
        prompts, tokens = parallel.put_batch((self.prompts(), drawn.tokens), self.mesh)
        return jax.block_until_ready(run(self.params, prompts, tokens))

    def prompts(self) -> Prompts:
        """Prompts of two images and some text."""
        rng = np.random.default_rng(0)
        merged = GRID[0] * GRID[1] // self.model_config.vision.merge_unit
        image = np.full(merged, self.model_config.image_token_id)
        bucket = Bucket(32, 32)
        ids, images = [], []
        for _ in range(PROMPTS):
            text = rng.integers(10, 200, size=rng.integers(3, 12))
            ids.append(np.concatenate([[7], image, [8], image, text]))
            size = (GRID[0] * GRID[1], self.model_config.vision.patch_dim)
            images.append([(rng.normal(size=size).astype(np.float32), GRID) for _ in range(2)])
        return make_prompts(
            ids, images, self.model_config, prompt_length=bucket.prompt_length, num_patches=bucket.num_patches
        )


def shard(x: jax.Array) -> list[int]:
    """The shape of the part that the last device really holds."""
    return list(x.addressable_shards[-1].data.shape)


def distance(a: nnx.State, b: nnx.State) -> float:
    """The largest relative distance |a - b| / |b| of any tensor."""

    def relative(x: jax.Array, y: jax.Array) -> float:
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        return float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-12))

    return max(jax.tree.leaves(jax.tree.map(relative, jax.device_get(a), jax.device_get(b))))


def main() -> None:
    folder = epath.Path(sys.argv[1])
    sizes, rank = tuple(map(int, sys.argv[2].split(","))), int(sys.argv[3])
    expert_parallel.LEAST_PLACES = 1
    one = Side(folder, jax.devices()[:1], (1, 1, 1, 1), rank)
    many = Side(folder, jax.devices(), sizes, rank)
    _, expected, _ = one.draw()
    pool, drawn, weights = many.draw()
    state, loss = many.update(expected)
    state_of_one, loss_of_one = one.update(expected)
    mu, nu = (optax.tree_utils.tree_get(state.opt_state, name) for name in ("mu", "nu"))
    mu_of_one = optax.tree_utils.tree_get(state_of_one.opt_state, "mu")

    def layer(tree: nnx.State, part: str, name: str) -> jax.Array:
        linear = tree["text"]["layers"][part][name]
        if isinstance(linear, nnx.Variable):
            return linear.get_value()
        return (linear["adapter"]["b"] if rank else linear["kernel"]).get_value()

    mlp = "gate_up" if isinstance(many.model_config.text, MoETextConfig) else "gate_proj"
    reference = train_programs(many.learner, many.params, many.mesh).reference(many.params)
    trees = {"params": state.params, "mu": mu, "nu": nu}
    trees |= {"reference": reference, "weights": weights}
    print(
        json.dumps(
            {
                "same_tokens": bool(np.array_equal(drawn.tokens, expected.tokens)),
                "logprob_distance": float(np.abs(drawn.logprobs - expected.logprobs).max()),
                "loss": [loss, loss_of_one],
                # The first moment after one update is a multiple of the gradient.
                "gradient_distance": distance(mu, mu_of_one),
                "mlp": {name: shard(layer(tree, "mlp", mlp)) for name, tree in trees.items()},
                "k_proj": {name: shard(layer(tree, "attn", "k_proj")) for name, tree in trees.items()},
                "embedding": {
                    name: shard(tree["text"]["embedding"].get_value())
                    for name, tree in trees.items()
                    if "embedding" in tree["text"]
                },
                "hidden": shard(many.hidden(expected)),
                "prompt_cache": shard(pool.rows.k),
                "response_cache": shard(pool.cache.v),
                "slots": shard(pool.schedule.completion),
                "sent_across_data": {
                    when: many.sent_across_data(expected, when)
                    for when in ("micro_batch", "update")
                    if "sent" in sys.argv
                },
                "supervised": [side.supervised(expected) if sizes[0] > 1 else [] for side in (many, one)],
                "vocab": many.model_config.text.vocab_size,
                "moved_bytes": many.programs.moved_bytes,
            }
        )
    )


if __name__ == "__main__":
    main()
