"""Answers a prompt about images: `python -m dig_jax.generate --model=DIR --image=A --image=B --prompt=TEXT`.

The model is a Hugging Face folder or a training workdir. Images are shown in the order given, before the
text. `--json` prints one line `{"tokens": [...], "logprobs": [...], "text": "..."}` with the log-probs of the
untempered model, the end token included. The default is greedy and the same as
`transformers.generate(do_sample=False)`.
"""

import argparse
import json
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath
from flax import nnx

from dig_jax import checkpoint, cli, loading, parallel
from dig_jax.data.images import ImageConfig, load_image, preprocess
from dig_jax.data.prompts import QUESTION, prompt_ids
from dig_jax.data.tokenizer import Tokenizer, load_tokenizer
from dig_jax.models.qwen3_vl import hf
from dig_jax.models.qwen3_vl.inputs import Prompts, make_prompts
from dig_jax.rollout.engine import rollout, sample_keys
from dig_jax.rollout.sampling import Sampling


def build_prompt(
    files: epath.Path, tokenizer: Tokenizer, image_paths: list[str], text: str, image_config: ImageConfig
) -> Prompts:
    """One prompt [1, ...] of images and text, at exactly the size it needs."""
    config = hf.load_config(files)
    images = [preprocess(load_image(path), image_config) for path in image_paths]
    ids = prompt_ids(tokenizer, text, [grid for _, grid in images], config.vision.spatial_merge_size)
    num_patches = sum(len(patches) for patches, _ in images)
    return make_prompts([ids], [images], config, prompt_length=len(ids), num_patches=num_patches)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="dig_jax.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="Hugging Face folder or workdir")
    parser.add_argument(
        "--image", action="append", default=[], help="image file; repeat for several, in order"
    )
    parser.add_argument(
        "--prompt", default=QUESTION, help="the text after the images (default: the DiG question)"
    )
    parser.add_argument("--max_new_tokens", type=int, default=2048)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--top_p", type=float, default=1.0, help="1 is off")
    parser.add_argument("--top_k", type=int, default=0, help="0 is off")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--json", action="store_true", help="print tokens, log-probs and text as one JSON line"
    )
    args = parser.parse_args(argv)
    with cli.user_errors():
        model = checkpoint.find_model(args.model)
        config = cli.config_of(model)
        files = checkpoint.hf_files(model)
        tokenizer = load_tokenizer(files)
        image_config = loading.image_config(config, files)
        prompts = build_prompt(files, tokenizer, args.image, args.prompt, image_config)
        sampling = Sampling(
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            eos_ids=tokenizer.eos_ids,
            suppressed=tokenizer.suppressed,
            vocab_size=tokenizer.vocab_size,
            pad_id=tokenizer.pad_id,
        )
        mesh = parallel.make_mesh(config.mesh, jax.devices()[:1])
        graphdef, params = loading.load_params(config, model, model, mesh)
    answer = jax.jit(rollout, static_argnames=("sampling", "max_new_tokens"))(
        nnx.merge(graphdef, params),
        prompts,
        sample_keys(jax.random.key(args.seed), 0, np.zeros((1, 1), int)),
        sampling=sampling,
        max_new_tokens=args.max_new_tokens,
    )
    length = int(answer.mask.sum())
    tokens = np.asarray(answer.tokens[0, 0, :length]).tolist()
    text = tokenizer.decode(tokens)
    logprobs = np.asarray(answer.model_logprobs[0, 0, :length]).tolist()
    print(json.dumps({"tokens": tokens, "logprobs": logprobs, "text": text}) if args.json else text)


if __name__ == "__main__":
    main()
