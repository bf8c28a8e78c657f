"""Held-out evaluation: `python -m dig_jax.evaluate --model=DIR --data=DIR [--out=FILE]`.

Answers every pair greedily, and with sampled completions, and prints the figures; `--out` also writes them as
JSON. The model is a Hugging Face folder or a training workdir. Question, answer length and reward are the
workdir's own; for a Hugging Face folder they are those of `--config` (default configs/base.py).
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from dig_jax import cli, loading, model_folder, parallel, settings
from dig_jax.data.loader import Batch, PairLoader
from dig_jax.data.records import Pair
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.folder import writable_file, write_json
from dig_jax.rewards.reward import METRICS, Scores
from dig_jax.rollout.engine import sample_keys
from dig_jax.rollout.programs import rollout_programs
from dig_jax.sampler import Completions, Limits, Sampler


@dataclasses.dataclass(frozen=True)
class Answer:
    """One greedy answer.

    Attributes:
        id: of the pair.
        text: the answer.
        boxes: those read from it, float32 [N, 4].
        terms: of the reward.
        pair: for pictures; None where another process has it.
    """

    id: str
    text: str
    boxes: np.ndarray
    terms: dict[str, float]
    pair: Pair | None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Figures of one evaluation, and the greedy answers they come from.

    Attributes:
        metrics: means over the pairs. `format`, `f1`, `iou`, `precision`, `recall`, `count_accuracy` and
            `reward_greedy` of the greedy answers, `f1_at_<M>` over the pairs with M differences; with sampled
            completions also `reward_sampled` and `f1_sampled`.
        answers: the greedy answers, in the order of the split; on process 0 alone.
    """

    metrics: dict[str, float]
    answers: list[Answer]


def evaluate(
    sampler: Sampler,
    params: nnx.State,
    loader: PairLoader,
    *,
    num_pairs: int,
    group_size: int,
    max_new_tokens: int,
    slots: int,
    rows: int,
    seed: int,
) -> Evaluation:
    """Evaluates `params` on the first `num_pairs` pairs of an unshuffled loader.

    The noise of the sampled completions depends on the seed and the pair only, so two evaluations of one run
    differ by the model and nothing else.

    Args:
        sampler: draws and scores completions.
        params: the policy.
        loader: held-out pairs in a fixed order; its last batch may run over the end and is cut.
        num_pairs: how many pairs to score.
        group_size: sampled completions per pair; 0 evaluates greedily only.
        max_new_tokens: of one answer.
        slots: completions of a pair decoded at a time; 0 for all.
        rows: pairs decoded at a time, over all devices; 0 for all of a batch.
        seed: of the sampling noise.
    """
    key = jax.random.key(seed)
    weights = sampler.weights(params)
    size = loader.batch_size
    owners = sampler.owners(size)

    def complete(batch: Batch, first: int, group: int, temperature: float) -> Completions:
        pairs = first + np.arange(size)[:, None]
        return sampler.complete(
            weights,
            batch,
            sample_keys(key, 0, pairs * group + np.arange(group)),
            Limits(sampler.sampling(temperature), max_new_tokens, min(slots, group), min(rows, size)),
            slice_prompts=size,
        )

    answers: list[Answer] = []
    greedy, sampled = [], []
    for first in range(0, num_pairs, size):
        batch = loader.batch(first // size)
        completions = complete(batch, first, group=1, temperature=0.0)
        greedy.append(completions.scores)
        ids = parallel.gather_texts(batch.ids, batch.rows, owners)
        if jax.process_index() == 0:
            answers += _answers(batch, ids, completions.scores, sampler.texts(completions))
        if group_size:
            sampled.append(complete(batch, first, group=group_size, temperature=1.0).scores)
    metrics = greedy_metrics(_terms(greedy, num_pairs))
    if group_size:
        terms = _terms(sampled, num_pairs * group_size)
        metrics |= {"reward_sampled": float(terms["reward"].mean()), "f1_sampled": float(terms["f1"].mean())}
    return Evaluation(metrics, answers[:num_pairs])


def _answers(batch: Batch, ids: list[str], scores: Scores, texts: list[str]) -> list[Answer]:
    """The answers to all pairs of a batch, of which this process has some."""
    pairs = dict(zip(batch.rows.tolist(), batch.pairs, strict=True))
    return [
        Answer(id, text, boxes, {name: float(getattr(scores, name)[row]) for name in METRICS}, pairs.get(row))
        for row, (id, text, boxes) in enumerate(zip(ids, texts, scores.boxes, strict=True))
    ]


def _terms(parts: list[Scores], count: int) -> dict[str, np.ndarray]:
    return {name: np.concatenate([getattr(part, name) for part in parts])[:count] for name in METRICS}


def greedy_metrics(terms: dict[str, np.ndarray]) -> dict[str, float]:
    """Means of the terms [n] of `METRICS` over the pairs; see `Evaluation.metrics`."""
    num_true = terms["num_true"]
    metrics = {name: terms[name].mean() for name in ("format", "f1", "iou", "precision", "recall")}
    # Text that is no list names no number, not even the 0 of an identical pair.
    metrics["count_accuracy"] = ((terms["num_predicted"] == num_true) & (terms["format"] == 1)).mean()
    metrics["reward_greedy"] = terms["reward"].mean()
    for count in np.unique(num_true):
        metrics[f"f1_at_{count}"] = terms["f1"][num_true == count].mean()
    return {name: float(value) for name, value in metrics.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="dig_jax.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="Hugging Face folder or workdir")
    parser.add_argument("--data", required=True, help="dig_pairs dataset")
    parser.add_argument("--split", default="test")
    parser.add_argument(
        "--config", help="config file (default: the workdir's settings, else configs/base.py)"
    )
    parser.add_argument("--num_pairs", type=int, default=0, help="0 is the whole split")
    parser.add_argument("--group_size", type=int, help="sampled completions per pair; 0 is greedy only")
    parser.add_argument(
        "--mismatched",
        action="store_true",
        help="replace image A of every pair by that of another: a model that compares must fail on these",
    )
    parser.add_argument("--out", help="JSON file for the figures and every greedy answer")
    cli.add_process_flags(parser)
    args = parser.parse_args(argv)
    with cli.user_errors():
        out = writable_file(args.out, "--out") if args.out else None  # before the time that all else takes
        model = model_folder.find_model(args.model)
        config = cli.config_of(model, args.config)
        config.data.train, config.data.eval_split = (args.data,), args.split
        settings.check(config)
    with cli.processes(args, config.distributed.silence_seconds):
        _evaluate_and_print(args, model, config, out)


def _evaluate_and_print(
    args: argparse.Namespace, model: epath.Path, config: ConfigDict, out: epath.Path | None
) -> None:
    with cli.user_errors():
        mesh = parallel.make_mesh(config.mesh)
        tokenizer = load_tokenizer(model_folder.hf_files(model))
        sampling_mesh = parallel.rollout_mesh(config.rollout.mesh, mesh)
        loader = loading.eval_loader(config, args.data, model, tokenizer, sampling_mesh, args.mismatched)
        graphdef, params = loading.load_policy(config, model, model, mesh)
        programs = rollout_programs(graphdef, params, sampling_mesh)
        sampler = Sampler(programs, tokenizer, settings.reward_config(config))
        result = evaluate(
            sampler,
            params,
            loader,
            num_pairs=min(args.num_pairs or loader.num_pairs, loader.num_pairs),
            group_size=config.eval.group_size if args.group_size is None else args.group_size,
            max_new_tokens=config.rollout.max_new_tokens,
            slots=config.rollout.slots,
            rows=config.rollout.rows,
            seed=config.seed,
        )
    if jax.process_index() > 0:
        return
    print(json.dumps(result.metrics), flush=True)  # whatever becomes of the file
    if out is not None:
        with cli.user_errors():
            answers = [
                {"id": answer.id, "text": answer.text, "boxes": answer.boxes.tolist(), **answer.terms}
                for answer in result.answers
            ]
            write_json(out, {"metrics": result.metrics, "answers": answers})


if __name__ == "__main__":
    main()
