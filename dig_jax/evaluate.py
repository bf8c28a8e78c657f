"""Held-out evaluation: `python -m dig_jax.evaluate --model=DIR --data=DIR [--out=FILE]`.

Draws completions of every pair, with `--greedy` greedy answers as well, and prints the figures; `--out`
writes them as JSON too, with an answer to every pair. The model is a Hugging Face folder or a training
workdir. Question, answer length, reward and sampling are its run's own, in a workdir or a folder that was
exported from one, else those of `--config`; a model that others published, with no `--config`, samples as
they say. Figures of sampled answers end in `_sampled`.

With `--benchmarks=NAME,NAME` it measures public sets instead: `--benchmarks=pope --help` lists its flags.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from dig_jax import settings
from dig_jax.data.encode import Batch
from dig_jax.data.example import Example
from dig_jax.data.loader import ExampleLoader
from dig_jax.data.tokenizer import Tokenizer
from dig_jax.machines import agreement, gathering, parallel
from dig_jax.machines.folder import writable_file, write_result
from dig_jax.measure import command
from dig_jax.measure.figures import figures_of, standard_errors
from dig_jax.models.hf.published_sampling import model_sampling
from dig_jax.rollout.drawer import Limits, answering_form
from dig_jax.rollout.engine import sample_keys
from dig_jax.rollout.programs import rollout_programs
from dig_jax.rollout.sampler import Completions, Sampler
from dig_jax.rollout.sampling import RolloutConfig, Sampling
from dig_jax.rollout.thinking import make_budget, truncation_warning
from dig_jax.run import cli, loading, model_folder
from dig_jax.run.evaluations import Entry, EvalConfig
from dig_jax.run.loading import Opened
from dig_jax.tasks.task import Task

Terms = dict[str, np.ndarray]  # name -> a value of each of n completions


@dataclasses.dataclass(frozen=True)
class Draws:
    """How held-out answers are drawn.

    Attributes:
        temperature, top_p, top_k: of the sampled completions; those of the rollout, so that what is measured
            is the policy that trains.
        group_size: sampled completions per pair; 0 for greedy answers alone.
        greedy: whether the greedy answer to each pair is drawn as well.
        max_new_tokens: of one answer.
        thinking_budget: tokens of thought after which it is closed; 0 lets the model think.
        slots: completions of a pair decoded at a time; 0 for all.
        rows: pairs decoded at a time, over all devices; 0 for all of a batch.
        seed: of the sampling noise.
    """

    temperature: float
    top_p: float
    top_k: int
    group_size: int
    greedy: bool
    max_new_tokens: int
    thinking_budget: int
    slots: int
    rows: int
    seed: int

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Draws":
        """Those of a run's evaluations; its stages may sample otherwise, and are all measured alike."""
        rollout, held_out = RolloutConfig.from_config(config), EvalConfig.from_config(config)
        return cls(
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
            max_new_tokens=rollout.max_new_tokens,
            group_size=held_out.group_size,
            greedy=held_out.greedy,
            thinking_budget=held_out.thinking_budget,
            slots=rollout.slots,
            rows=rollout.rows,
            seed=config.seed,
        )

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuses, before anything is loaded or compiled, what this model can not do.

        Raises:
            ValueError: it does not think, but has a budget of thought, or one that leaves no room to answer.
        """
        if self.thinking_budget:
            make_budget(tokenizer, self.thinking_budget, self.max_new_tokens)

    def ways(self, sampler: Sampler[Task]) -> "dict[str, tuple[int, Sampling]]":
        """Completions per pair and their distribution, by the ending that their figures' names have."""
        ways = {}
        if self.greedy or not self.group_size:
            ways[""] = (1, sampler.sampling(0.0))
        if self.group_size:
            ways["_sampled"] = (self.group_size, sampler.sampling(self.temperature, self.top_p, self.top_k))
        return ways


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer to an example.

    Attributes:
        id: of the example.
        text: the answer.
        read: what was read from it, as `Scores.read` says.
        terms: of the score, the reward among them.
        example: for pictures; None where another process has it.
        truth: what is right, from the task.
        length: its tokens.
        finished: whether it ended; False means cut at the most tokens allowed.
        thought_closed: whether the thinking budget closed its thought.
    """

    id: str
    text: str
    read: Mapping[str, Any]
    terms: dict[str, float]
    example: Example | None
    truth: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    length: int = 0
    finished: bool = True
    thought_closed: bool = False


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Figures of one evaluation, and an answer to every example.

    Attributes:
        metrics: of the sampled completions, as `f1_sampled`, and of greedy answers, as `f1`: see
            `figures_of`. The greedy reward is `reward_greedy`.
        answers: the greedy ones where there are any, else the first sampled ones, in the order of the split;
            on process 0 alone.
    """

    metrics: dict[str, float]
    answers: list[Answer]


def evaluate(
    sampler: Sampler[Task],
    params: nnx.State,
    loader: ExampleLoader,
    *,
    num_examples: int,
    draws: Draws,
) -> Evaluation:
    """Evaluates `params` on the first `num_examples` examples of an unshuffled loader.

    The noise of the sampled completions depends on the seed and the example only, so two evaluations of one
    run differ by the model and nothing else.

    Args:
        sampler: draws and scores completions.
        params: the policy.
        loader: held-out examples in a fixed order; its last batch may run over the end and is cut.
        num_examples: how many to score.
        draws: how.
    """
    key = jax.random.key(draws.seed)
    weights = sampler.weights(params)
    size = loader.batch_size
    owners = sampler.owners(size)
    ways = draws.ways(sampler)

    def complete(batch: Batch, first: int, group: int, sampling: Sampling) -> Completions:
        pairs = first + np.arange(size)[:, None]
        return sampler.complete(
            weights,
            batch,
            sample_keys(key, 0, pairs * group + np.arange(group)),
            Limits(sampling, draws.max_new_tokens, min(draws.slots, group), min(draws.rows, size)),
            slice_prompts=size,
            thinking_budget=draws.thinking_budget,
        )

    answers: list[Answer] = []
    parts: dict[str, list[Terms]] = {ending: [] for ending in ways}
    for first in range(0, num_examples, size):
        batch = loader.batch(first // size)
        agreement.agree_on_rows(batch.ids, batch.rows, loader.batch_size)
        ids = gathering.gather_texts(batch.ids, batch.rows, owners)
        own_truths = [json.dumps(sampler.task.truth(example)) for example in batch.examples]
        truths = [*map(json.loads, gathering.gather_texts(own_truths, batch.rows, owners))]
        for number, (ending, (group, sampling)) in enumerate(ways.items()):
            completions = complete(batch, first, group, sampling)
            parts[ending].append(_terms(completions))
            if number == 0 and jax.process_index() == 0:
                answers += _answers(batch, ids, truths, completions, sampler.first_texts(completions))
    metrics: dict[str, float] = {}
    for ending, (group, _) in ways.items():
        terms = {
            name: np.concatenate([part[name] for part in parts[ending]])[: num_examples * group]
            for name in parts[ending][0]
        }
        figures = figures_of(sampler.task, terms) | standard_errors(sampler.task, terms, group)
        metrics |= {_named(name, ending): value for name, value in figures.items()}
    return Evaluation(metrics, answers[:num_examples])


def _named(figure: str, ending: str) -> str:
    name = figure.removesuffix("_se")
    own = "reward_greedy" if (name, ending) == ("reward", "") else name + ending
    return own + figure.removeprefix(name)


def _answers(
    batch: Batch, ids: list[str], truths: list[Any], completions: Completions, texts: list[str]
) -> list[Answer]:
    """The first answer to each example of a batch, of which this process has some."""
    examples = dict(zip(batch.rows.tolist(), batch.examples, strict=True))
    rollout, scores = completions.rollout, completions.scores
    group = rollout.finished.shape[1]
    return [
        Answer(
            id,
            texts[row],
            scores.read[row * group],
            {name: float(values[row * group]) for name, values in scores.all_terms.items()},
            examples.get(row),
            truths[row],
            length=int(rollout.mask[row, 0].sum()),
            finished=bool(rollout.finished[row, 0]),
            thought_closed=completions.thought_closed is not None
            and bool(completions.thought_closed[row, 0]),
        )
        for row, id in enumerate(ids)
    ]


def _terms(completions: Completions) -> Terms:
    """What the figures are made of: the terms of the scores, and `length`, `truncated`, `thought_closed`."""
    rollout: Any = completions.rollout  # NumPy arrays
    closed = completions.thought_closed
    drawn: Terms = {
        "length": rollout.mask.sum(axis=-1).reshape(-1),
        "truncated": ~rollout.finished.reshape(-1),
    }
    if closed is not None:
        drawn["thought_closed"] = closed.reshape(-1)
    return completions.scores.all_terms | drawn


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    argv = sys.argv[1:] if argv is None else argv
    if any(argument.startswith(("--benchmarks", "--compare")) for argument in argv):
        command.main(argv)
        return
    args = parse_arguments(argv)
    with cli.user_errors():
        opened = loading.open_model(model_folder.find_model(args.model))
        config = cli.config_of(opened.folder, args.config) if args.config else opened.config
        asked = Entry("", args.task or config.task, args.data, args.split, 1, args.num_pairs)
        config = asked.config(config)
        cli.take_user_files(config, args.task_file, args.reward_file)
        config.data.train = (args.data,)
        settings.check(config)
    with cli.processes(args, config.distributed.silence_seconds):
        _evaluate_and_print(args, opened, config)


def _evaluate_and_print(args: argparse.Namespace, opened: Opened, config: ConfigDict) -> None:
    writes, model, tokenizer = jax.process_index() == 0, opened.folder, opened.tokenizer
    with cli.user_errors():
        # Before the time that all else takes.
        out = writable_file(args.out, "--out") if args.out and writes else None
        mesh = parallel.make_mesh(config.mesh)
        draws = _draws(args, config, opened)
        sampling_mesh = parallel.rollout_mesh(config.rollout.mesh, mesh)
        task = loading.make_task(config, model, tokenizer)
        loader = loading.eval_loader(
            config, task, args.data, args.split, model, tokenizer, sampling_mesh, args.mismatched
        )
        graphdef, params = loading.load_policy(config, opened, mesh)
        form = answering_form(config, sampling_mesh)
        programs = rollout_programs(graphdef, params, sampling_mesh, form)
        sampler = Sampler(programs, tokenizer, task)
        result = evaluate(
            sampler,
            params,
            loader,
            num_examples=min(args.num_pairs or loader.num_examples, loader.num_examples),
            draws=draws,
        )
    if not writes:
        return
    if warning := truncation_warning(f"held-out {task.unit}", result.metrics.get("truncated_sampled", 0.0)):
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(result.metrics), flush=True)  # whatever becomes of the file
    if out is not None:
        with cli.user_errors():
            answers = [_record(answer, draws) for answer in result.answers]
            how = dataclasses.asdict(draws)
            record = {"metrics": result.metrics, "draws": how, "answers": answers}
            write_result(out, json.dumps(record, indent=2) + "\n")


def _draws(args: argparse.Namespace, config: ConfigDict, opened: Opened) -> Draws:
    """What the flags ask for; else as the model's run or --config samples, else as it was published."""
    draws = Draws.from_config(config)
    names = ("temperature", "top_p", "top_k", "seed", "group_size", "greedy", "max_new_tokens")
    given = {name: getattr(args, name) for name in (*names, "thinking_budget")}
    given = {name: value for name, value in given.items() if value is not None}
    source = "--config" if args.config else "the model's run"
    if not args.config and opened.run is None:
        source = "the model as published"
        if not given.keys() >= {"temperature", "top_p", "top_k"}:
            published: dict[str, Any] = {**model_sampling(opened.files, opened.tokenizer.opens_thinking)}
            draws = dataclasses.replace(draws, **published)
    draws = dataclasses.replace(draws, **given)
    if draws.group_size < 0 or draws.max_new_tokens < 1:
        raise ValueError(
            f"--group_size={draws.group_size}, --max_new_tokens={draws.max_new_tokens}: expected 0 or more"
            " completions of 1 token or more"
        )
    if draws.group_size and not draws.temperature > 0:
        raise ValueError(
            f"--temperature={draws.temperature}: must be above 0; --group_size=0 is greedy alone"
        )
    draws.check(opened.tokenizer)
    if draws.group_size and jax.process_index() == 0:
        print(
            f"{draws.group_size} completions per pair of at most {draws.max_new_tokens} tokens, temperature"
            f" {draws.temperature:g}, top_p {draws.top_p:g}, top_k {draws.top_k} (where no flag says"
            f" otherwise, those of {source})",
            file=sys.stderr,
        )
    return draws


def _record(answer: Answer, draws: Draws) -> dict[str, Any]:
    record = {"id": answer.id, "text": answer.text, **answer.read, **answer.terms}
    record |= {"length": answer.length, "finished": answer.finished}
    if draws.thinking_budget:
        record["thinking_closed_at"] = draws.thinking_budget if answer.thought_closed else None
    return record


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ends the program with code 2 where one is wrong."""
    parser = argparse.ArgumentParser(
        prog="dig_jax.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="Hugging Face folder or workdir")
    add("--data", required=True, help="dig_pairs dataset, or what else the task can open")
    add("--split", default="test")
    add("--task", help="what is asked (default: config.task)")
    add("--task_file", help=cli.TASK_FILE_HELP)
    add("--reward_file", help=cli.REWARD_FILE_HELP)
    add("--config", help="config file, or FILE:ARGUMENT (default: the run's settings, else configs/base.py)")
    add("--num_pairs", type=int, default=0, help="0 is the whole split")
    add("--group_size", type=int, help="sampled completions per pair; 0 is greedy answers alone")
    add("--greedy", action=argparse.BooleanOptionalAction, help="greedy answers beside the sampled ones")
    cli.add_sampling_flags(parser, temperature="of the samples (default: see above)")
    add("--max_new_tokens", type=int, help="of one answer (default: rollout.max_new_tokens)")
    add(
        "--mismatched",
        action="store_true",
        help="replace image A of every pair by that of another: a model that compares must fail on these",
    )
    add("--out", help="JSON file for the figures, how they were drawn, and an answer to every pair")
    cli.add_process_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
