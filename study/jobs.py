"""The study as a list of jobs: commands, and what each of them needs first."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from study.arms import ARMS, DATA, FINAL

MISMATCHED = ("full", "control")  # arms, beside the warm-up, that the control for comparison is made of


@dataclasses.dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: of its log, and in messages.
        command: its arguments; run in the root of the checkout.
        needs: names of the jobs it waits for.
        alone: it uses all cores, and no other job runs meanwhile.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    alone: bool = False


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the files of a study are."""

    out: Path
    data: Path

    def run(self, name: str, seed: int) -> Path:
        """The workdir of an arm or a warm-up."""
        return self.out / "runs" / f"{name}_{seed}"

    def answers(self, name: str, seed: int, mismatched: bool = False) -> Path:
        """The scored answers of a run's end to the final pairs."""
        return self.out / "answers" / f"{name}_{seed}{'_mismatched' if mismatched else ''}.json"


def plan(place: Place, arms: Sequence[str], seeds: Sequence[int], quick: bool) -> list[Job]:
    """All jobs of a study; those that others need come first."""
    jobs = [render(place.data, folder) for folder in DATA if not (place.data / folder).exists()]
    rendered = tuple(job.name for job in jobs)
    warmups = list(dict.fromkeys(ARMS[arm].warmup for arm in arms))
    for seed in seeds:
        model = place.out / "models" / f"seed{seed}"
        make = python("dig_jax.scratch", out=model, seed=seed)
        jobs.append(Job(f"model_{seed}", make))
        for name in warmups:
            jobs.append(_train(place, name, seed, quick, (f"model_{seed}", *rendered), {"model_path": model}))
            jobs.append(_evaluate(place, name, seed, quick))
    for name in arms:
        for seed in seeds:
            warmup = ARMS[name].warmup
            start = {"model_path": place.out / "models" / f"seed{seed}", "init_from": place.run(warmup, seed)}
            jobs.append(_train(place, name, seed, quick, (f"{warmup}_{seed}",), start))
            jobs.append(_evaluate(place, name, seed, quick))
    for name in dict.fromkeys(("warmup", *MISMATCHED)):
        if name in (*warmups, *arms):
            jobs += [_evaluate(place, name, seed, quick, mismatched=True) for seed in seeds]
    return jobs


def python(module: str, *arguments: str, **options: object) -> tuple[str, ...]:
    """A command of this Python."""
    return (sys.executable, "-m", module, *arguments, *(f"--{key}={value}" for key, value in options.items()))


def render(data: Path, folder: str) -> Job:
    """The pairs of a folder of `DATA`."""
    command = python("data_gen", preset="tiny", out=data / folder, **DATA[folder])
    return Job(f"data_{folder}", command, alone=True)


def _train(
    place: Place, name: str, seed: int, quick: bool, needs: tuple[str, ...], settings: Mapping[str, object]
) -> Job:
    order = ARMS[name].order if name in ARMS else ("warmup",)
    folders = {"warmup": "single", **{folder: folder for folder in DATA}}
    settings = {
        "seed": seed,
        **{f"evals.{name}.data": place.data / name for name in ("mixed", "single")},
        **{f"curriculum.stages.{s}.data.train": (str(place.data / folders[s]),) for s in order},
        **settings,
    }
    options = {f"config.{key}": value for key, value in settings.items()}
    config = f"study/config.py:{name}{',quick' if quick else ''}"
    command = python("dig_jax.main", config=config, workdir=place.run(name, seed), **options)
    return Job(f"{name}_{seed}", command, needs)


def _evaluate(place: Place, name: str, seed: int, quick: bool, mismatched: bool = False) -> Job:
    command = python(
        "dig_jax.evaluate",
        *(["--mismatched"] if mismatched else []),
        "--greedy",  # a run begun before there was a choice does not say so
        model=place.run(name, seed),
        data=place.data / FINAL,
        out=place.answers(name, seed, mismatched),
        num_pairs=8 if quick else 0,
        group_size=0 if mismatched else 4,
    )
    return Job(f"answers_{name}_{seed}{'_mismatched' if mismatched else ''}", command, (f"{name}_{seed}",))
