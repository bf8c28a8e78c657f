"""Runs the study of object crops: `python -m study.align --out=runs/align_study [--arms=... --seeds=N]`.

Renders the scenes where they are absent, makes the questions and their variants, trains every arm, asks its
end all held-out questions, and after each seed writes results.json and tables.md, with the verdict by the
rule of docs/align_study.md. All of it is resumed: the same command goes on after a stop. `--quick` does the
same with two steps and few scenes: it shows that everything works, and nothing else.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_gen.files.userfiles import user_path
from dig_jax.machines.folder import write_json, write_result
from study import align_measure, align_tables
from study.align_arms import ANSWER_STEP, ARMS, DIG, IMAGE, PROMPTS, TEXT, seeds_of
from study.jobs import Job, python, render
from study.run import Failed, Runner

ITEMS = "T-C:4,C-T:2,I-C:2,C-I:1,T-I:1,I-T:1,exist:1"
BENCHMARKS = "align_phrases,align_crops,align_choices,align_objects"
PAIRS = {"objects": "4-6", "differences": "4", "num_pairs": 3000, "test_pairs": 1300, "seed": 161}
QUICK_PAIRS = PAIRS | {"num_pairs": 24, "test_pairs": 12}
VARIANTS = {
    "text": {"kinds": ",".join(TEXT)},
    "image": {"kinds": ",".join(IMAGE)},
    "noise": {"kinds": ",".join(IMAGE), "crops": "noise"},
    "words": {"kinds": ",".join(IMAGE), "crops": "words"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 done, 1 a job failed, 2 wrong arguments, 130 stopped."""
    args = _arguments(argv)
    place, data = args.out.resolve(), args.data.resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not args.only_report:
            _run(args, place, data)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    report(place)
    return 0


def _run(args: argparse.Namespace, place: Path, data: Path) -> None:
    runner = Runner(place, args.jobs)
    runner.run(data_jobs(data, args.quick))
    most = max(len(seeds_of(arm, args.seeds)) for arm in args.arms)
    prompts: dict[str, int] = {}
    for seed in range(most):
        model = place / "models" / f"seed{seed}"
        runner.run([_model(model, data, seed)])
        if not prompts:
            counts = {name: align_measure.tokens(model, data / name, ANSWER_STEP) for name in VARIANTS}
            prompts = {arm: batch(arm, counts) for arm in ARMS}
            write_json(place / "tokens.json", {"tokens per question": counts, "prompts per batch": prompts})
        arms = [arm for arm in args.arms if seed in seeds_of(arm, args.seeds)]
        runner.run(
            [job for arm in arms for job in arm_jobs(place, data, arm, seed, prompts[arm], args.quick)]
        )
        report(place)
        if args.dig:
            chosen = [arm for arm in DIG if arm in arms]
            folders = [name for name in ("single", "double", "mixed") if not (args.pairs / name).exists()]
            pairs = [render(args.pairs.resolve(), name) for name in folders]
            runner.run(
                [*pairs, *(dig_job(place, args.pairs.resolve(), arm, seed, args.quick) for arm in chosen)]
            )
            report(place)


def report(place: Path) -> None:
    """Writes what there is so far."""
    records = align_measure.records(place)
    write_json(place / "results.json", records)
    write_result(place / "tables.md", align_tables.markdown(records))
    print(f"{len(records)} runs; tables: {place / 'tables.md'}", flush=True)


def batch(arm: str, tokens: Mapping[str, Mapping[str, float]]) -> int:
    """Prompts of a batch that has as many tokens as one of A1, as near as whole prompts allow (control E1).

    Args:
        arm: which.
        tokens: dataset -> kind -> mean tokens of a question and its answer.
    """

    def mean(name: str) -> float:
        of_kind = {**tokens["text"], **tokens[ARMS[name].crops]}
        shares = ARMS[name].shares
        return sum(share * of_kind[kind] for kind, share in shares.items()) / sum(shares.values())

    return round(PROMPTS * mean("A1") / mean(arm))


def data_jobs(data: Path, quick: bool) -> list[Job]:
    """Scenes, questions and their variants, those that are not there yet."""
    pairs = python("data_gen", preset="tiny", out=data / "pairs", **(QUICK_PAIRS if quick else PAIRS))
    align = ("data_gen.align", f"--items={ITEMS}", "--picture=last", "--model_side=96", "--crop_side=48")
    commands = {"pairs": pairs, "items": python(*align, data=data / "pairs", out=data / "items", seed=2)}
    for name, options in VARIANTS.items():
        commands[name] = python("study.align_data", data=data / "items", out=data / name, **options)
    return [
        Job(f"data_{name}", command, alone=True)
        for name, command in commands.items()
        if not (data / name).exists()
    ]


def _model(model: Path, data: Path, seed: int) -> Job:
    flags = ("--family=clip_dino_qwen", f"--words_of={data / 'items'}", "--image_size=96")
    return Job(model.name, python("dig_jax.scratch", *flags, out=model, seed=seed))


def arm_jobs(place: Path, data: Path, arm: str, seed: int, prompts: int, quick: bool) -> list[Job]:
    """A run, and the questions to its end."""
    name, crops = f"{arm}_{seed}", ARMS[arm].crops
    settings = {
        "seed": seed,
        "model_path": place / "models" / f"seed{seed}",
        "evals.boxes.data": data / "text",
        **{f"batch.{key}": prompts for key in ("prompts", "update_prompts", "micro_prompts")},
    }
    for kind in ARMS[arm].shares:
        folder = data / ("text" if kind in TEXT else crops)
        settings[f"mixture.{kind.replace('-', '_')}.data.train"] = (str(folder),)
    config = f"study/align_config.py:{arm}{',quick' if quick else ''}"
    options = {f"config.{key}": value for key, value in settings.items()}
    train = python("dig_jax.main", config=config, workdir=place / "runs" / name, **options)
    ask = python(
        "dig_jax.evaluate",
        "--greedy",
        model=place / "runs" / name,
        benchmarks=BENCHMARKS,
        data_root=data / "items",
        out=place / "answers" / name,
    )
    return [Job(name, train), Job(f"answers_{name}", ask, (name,))]


def dig_job(place: Path, pairs: Path, arm: str, seed: int, quick: bool) -> Job:
    """Pairs, from the end of an arm: supervised answers, then GRPO."""
    settings = {
        "seed": seed,
        "model_path": place / "models" / f"seed{seed}",
        "init_from": place / "runs" / f"{arm}_{seed}",
        **{f"evals.{name}.data": pairs / name for name in ("mixed", "single")},
    }
    for stage, folder in (
        ("warmup", "single"),
        ("single", "single"),
        ("double", "double"),
        ("mixed", "mixed"),
    ):
        settings[f"curriculum.stages.{stage}.data.train"] = (str(pairs / folder),)
    options = {f"config.{key}": value for key, value in settings.items()}
    config = f"study/align_config.py:dig{',quick' if quick else ''}"
    workdir = place / "runs" / f"dig_{arm}_{seed}"
    return Job(workdir.name, python("dig_jax.main", config=config, workdir=workdir, **options))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m study.align", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", type=user_path, required=True, help="folder of the study")
    add("--data", type=user_path, default=Path("data/align_study"), help="made there where absent")
    add("--pairs", type=user_path, default=Path("data/scratch"), help="of --dig; rendered where absent")
    add("--arms", default=",".join(ARMS), help="default: %(default)s")
    add("--seeds", type=int, help="of each arm at most (default: 5 of A0, A1 and E3, 3 of the others)")
    add("--dig", action=argparse.BooleanOptionalAction, default=True, help="go on with pairs and GRPO")
    add("--jobs", type=int, default=1, help="runs side by side (default: %(default)s)")
    add("--quick", action="store_true", help="two steps of each run, to see that it works")
    add("--only-report", action="store_true", help="of the runs that are done; run nothing")
    args = parser.parse_args(argv)
    args.arms = args.arms.split(",")
    if unknown := [arm for arm in args.arms if arm not in ARMS]:
        parser.error(f"no arm {unknown[0]!r}; study/align_arms.py has {', '.join(ARMS)}")
    for name in ("jobs", "seeds"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name}={value}: at least 1")
    return args


if __name__ == "__main__":
    sys.exit(main())
