"""Our float32 model gives the numbers of transformers' of each family: logits, gradients, cached decoding.

Gates: logits 1e-5 absolute, gradients 1e-4 relative L2 per tensor. bfloat16 is compared in
test_parity_bfloat16.py, the parts of a model in qwen3_vl/test_parity_modules.py; each family's
test_parity_mutations.py shows that the gates notice the mistakes that ports make.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.models.nn.multimodal import VisionLanguageModel
from tests.models.conftest import Example
from tests.models.parity import (
    BATCHES,
    CONFIGS,
    MID_BUCKET,
    MORE_CONFIGS,
    Case,
    case,
    check_gradients,
    check_logits,
    random_model,
    reference_of,
    run_ours,
    run_theirs,
)
from tests.models.qwen3_vl.configs import MID_CONFIG

NAMES = [*CONFIGS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_CONFIGS)]
NEW = 6  # tokens to decode


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_logits_and_gradients_of_a_batch(name, batch):
    pair = case(name)
    examples = pair.examples(batch)
    ours, theirs = run_ours(pair.model, pair.make.pad(*examples)), run_theirs(pair.reference, examples)
    check_logits(ours.logits, theirs.logits)
    assert abs(ours.loss - theirs.loss) < 1e-5
    check_gradients(ours.gradients, theirs.gradients)


@pytest.mark.parametrize("name", NAMES)
def test_prefill_and_steps_past_the_images_equal_the_full_pass_of_both(name):
    """Two continuations of each prompt, in one batch of prompts with three, no and one image."""
    pair = case(name)
    model, examples = pair.model, pair.examples("unequal rows")
    prompts = pair.make.pad(*examples)
    new = np.random.default_rng(0).integers(0, 300, (len(examples), 2, NEW)).astype(np.int32)

    hidden, prompt_cache = jax.jit(VisionLanguageModel.prefill)(model, prompts)
    last = hidden[jnp.arange(len(examples)), prompts.length - 1]
    steps = [jnp.broadcast_to(last[:, None], (len(examples), 2, last.shape[-1]))]
    cache = model.init_response_cache(len(examples), 2, NEW)
    decode = jax.jit(VisionLanguageModel.decode)
    for step in range(NEW):
        states, cache = decode(model, new[..., step], step, prompt_cache, cache)
        steps.append(states)
    stepwise = np.asarray(model.logits(jnp.stack(steps, axis=2)))  # [B,2,NEW+1,V]

    for which in range(2):
        longer = [
            Example(np.concatenate([example.ids, tokens]), example.images)
            for example, tokens in zip(examples, new[:, which], strict=True)
        ]
        ours = run_ours(model, pair.make.pad(*longer)).logits
        theirs = pair.reference.logits(*longer)
        for full in (ours, theirs):
            check_logits(stepwise[:, which], [row[-NEW - 1 :] for row in full])


@pytest.mark.parametrize("name", ["three taps", "windows"])
def test_decoding_equals_their_generate(name):
    """Twelve greedy tokens past three images, with the cache of either side."""
    pair, new = case(name), 12
    model, reference = pair.model, pair.reference
    examples = pair.examples("unequal rows", seed=3)
    reference.model.model.rope_deltas = None
    generated = reference.model.generate(
        **reference.inputs(*examples),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = generated.sequences[:, -new:].numpy()
    theirs = np.stack([step.numpy() for step in generated.logits], axis=1)  # [B,new,V]

    prompts = pair.make.pad(*examples)
    hidden, prompt_cache = jax.jit(VisionLanguageModel.prefill)(model, prompts)
    ours = [model.logits(hidden[jnp.arange(len(examples)), prompts.length - 1])]
    cache = model.init_response_cache(len(examples), 1, new)
    decode = jax.jit(VisionLanguageModel.decode)
    for step in range(new - 1):
        states, cache = decode(model, tokens[:, None, step], step, prompt_cache, cache)
        ours.append(model.logits(states[:, 0]))
    check_logits(np.stack(ours, axis=1), theirs)


@pytest.mark.slow
def test_logits_and_gradients_of_a_model_of_full_depth():
    """143 million parameters in 28 decoder layers and 24 vision blocks; measured 5e-6 and 3e-6."""
    model = random_model(MID_CONFIG)
    pair = Case(model, reference_of(model))
    examples = pair.mid_examples()
    ours = run_ours(model, pair.make.pad(*examples, **MID_BUCKET))
    theirs = run_theirs(pair.reference, examples)
    check_logits(ours.logits, theirs.logits)
    check_gradients(ours.gradients, theirs.gradients)
