"""report.html: one self-contained page of a run, for a browser on a laptop or a phone."""

import base64
import html
import json
import math
from collections.abc import Sequence
from typing import Any

from etils import epath

from dig_jax.report.curves import line_chart
from dig_jax.report.shown import Shown
from dig_jax.report.style import STYLE
from dig_jax.report.summary import before_and_after, read_config, stage_names
from dig_jax.report.writer import METRICS_FILE, SAMPLES_FILE, read_evals, read_lines

Records = list[dict[str, Any]]

# Charts of any run, behind those that its tasks declare; the rest of the metrics follow, folded away.
_TRAINING_CHARTS = (
    (
        "Response tokens",
        (("mean", "rollout/response_length_mean"), ("longest", "rollout/response_length_max")),
    ),
    ("KL to the reference", (("KL", "grpo/kl"),)),
    ("Entropy", (("entropy", "grpo/entropy"),)),
    ("Supervised loss", (("answer", "sft/answer_loss"), ("cells", "sft/aux_loss"))),
    ("Seconds per step", (("step", "time/step"),)),
    # Of models with experts: `update.experts`, `update.replay`.
    (
        "Experts: largest share of a layer's choices",
        (("GRPO", "grpo/expert_share_max"), ("supervised", "sft/expert_share_max")),
    ),
    (
        "Experts: evenness of their load",
        (("GRPO", "grpo/expert_entropy"), ("supervised", "sft/expert_entropy")),
    ),
    ("Experts: share unused", (("GRPO", "grpo/experts_unused"), ("supervised", "sft/experts_unused"))),
    (
        "Sampler against trainer: gap of log-probs",
        (("router's own experts", "moe/gap_live_mean"), ("the sampler's", "moe/gap_replayed_mean")),
    ),
    (
        "Sampler against trainer: flipped choices",
        (
            ("answers", "moe/flipped_responses"),
            ("prompts", "moe/flipped_prompts"),
            ("tokens", "moe/flipped_tokens"),
        ),
    ),
)
_TEXT_SHOWN = 2000  # characters of an answer on the page; samples.jsonl has all of it


def write_report(workdir: epath.PathLike) -> epath.Path:
    """Writes workdir/report.html from the files of the run; parts it does not have yet are left out.

    The page needs nothing but itself: pictures and charts are inside. All text from models and configs is
    escaped.

    Returns:
      The path of the page.
    """
    workdir = epath.Path(workdir)
    config = read_config(workdir)
    names, shown = stage_names(config), Shown.read(workdir)
    metrics = read_lines(workdir / METRICS_FILE)
    evals = read_evals(workdir, shown.main)
    samples = read_lines(workdir / SAMPLES_FILE)
    body = [
        _header(workdir.name, config, names, metrics),
        _before_and_after(evals, names, shown),
        _section("Learning curves", _charts(evals, metrics, _stage_marks(metrics, names), shown)),
        _section(
            f"Answers on held-out {shown.examples}",
            _samples(samples, workdir, [*shown.of_set(shown.main).metrics]),
        ),
        _settings(config),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>dig_jax: {html.escape(workdir.name)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{''.join(body)}</main></body></html>\n"
    )
    path = workdir / "report.html"
    # A lone surrogate, which a byte-level tokenizer can produce, has no UTF-8 form.
    path.write_bytes(page.encode("utf-8", "replace"))
    return path


def _header(name: str, config: dict[str, Any], stages: list[str], metrics: Records) -> str:
    done = metrics[-1]["step"] if metrics else 0
    if stages:
        current = stages[int(metrics[-1]["stage"]) - 1] if metrics else stages[0]
        facts = [f"stages {', '.join(stages)}", f"{done} steps, the last in {current}"]
    else:
        of = f" of {config['num_steps']}" if "num_steps" in config else ""
        facts = [*([str(config["algorithm"])] if "algorithm" in config else []), f"{done}{of} steps"]
    seconds = sum(line.get("time/step") or 0 for line in metrics)
    if seconds:
        facts.append(f"{seconds / 60:.1f} minutes of training steps")
    words = " &middot; ".join(html.escape(fact) for fact in facts)
    return f"<header><h1>{html.escape(name)}</h1><p>{words}</p></header>\n"


def _before_and_after(evals: Records, stages: list[str], shown: Shown) -> str:
    headings, rows = before_and_after(evals, stages, shown)
    if not rows:
        return ""
    head = "".join(f"<td>{html.escape(heading)}</td>" for heading in headings)
    body = ""
    for held_out, words, (*earlier, last) in rows:
        name = f"{shown.label(held_out)}: {words}".removeprefix(": ")
        cells = "".join(f"<td>{value:.3f}</td>" for value in earlier)
        change = last - earlier[0]
        body += (
            f"<tr><th>{html.escape(name)}</th>{cells}<td><b>{last:.3f}</b></td>"
            f'<td class="{_direction(change)}">{change:+.3f}</td></tr>'
        )
    return _section(
        "Held out, before and after",
        f'<div class="wide"><table><thead><tr><th></th>{head}<td>change</td></tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
    )


def _direction(change: float) -> str:
    return "better" if change > 0 else "worse" if change < 0 else "same"


def _stage_marks(metrics: Records, names: list[str]) -> list[tuple[float, str]]:
    """The step at which each stage began, and its name."""
    began: dict[float, int] = {}
    for line in metrics if names else []:
        began.setdefault(line["stage"], line["step"] - 1)
    return [(step, names[int(number) - 1]) for number, step in began.items()]


def _charts(evals: Records, metrics: Records, marks: list[tuple[float, str]], shown: Shown) -> str:
    charts = []
    for held_out in shown.sets(evals):
        what = f"Held out ({shown.label(held_out)})".removesuffix(" ()")
        for title, lines in shown.of_set(held_out).held_out_charts():
            of_set = [(label, f"{held_out}/{key}") for label, key in lines]
            charts.append(_chart(f"{what}: {title}", of_set, evals, marks))
    # Of two tasks with the same chart one is enough.
    own = dict(chart for declared in shown.training.values() for chart in declared.training_charts())
    first = [*shown.charts_of_parts(), *own.items(), *_TRAINING_CHARTS]
    charts += [_chart(title, lines, metrics, marks) for title, lines in first]
    main = {key for _, lines in first for _, key in lines}
    names = sorted({name for line in metrics for name in line} - main - {"step", "stage"})
    rest = "".join(_chart(name, [(name, name)], metrics, marks) for name in names)
    if rest:
        rest = f'<details><summary>All other metrics</summary><div class="charts">{rest}</div></details>'
    return f'<div class="charts">{"".join(charts)}</div>{rest}' if any(charts) or rest else ""


def _chart(
    title: str, lines: Sequence[tuple[str, str]], records: Records, marks: list[tuple[float, str]]
) -> str:
    series = [(label, _points(records, key)) for label, key in lines]
    return line_chart(title, series, x_label="step", marks=marks)


def _points(records: Records, key: str) -> list[tuple[float, float]]:
    values = ((record["step"], record.get(key)) for record in records)
    return [(step, y) for step, y in values if isinstance(y, int | float) and math.isfinite(y)]


def _samples(samples: Records, workdir: epath.Path, terms: Sequence[str]) -> str:
    """The first and the last picture of every pair, side by side."""
    by_pair: dict[str, Records] = {}
    for sample in samples:
        by_pair.setdefault(sample["id"], []).append(sample)
    groups = []
    for answers in by_pair.values():
        shown = answers if len(answers) < 2 else [answers[0], answers[-1]]
        figures = "".join(_figure(sample, (workdir / SAMPLES_FILE).parent, terms) for sample in shown)
        groups.append(f'<div class="samples">{figures}</div>')
    return "".join(groups)


def _figure(sample: dict[str, Any], folder: epath.Path, names: Sequence[str]) -> str:
    picture = folder / sample["picture"]
    if not picture.exists():
        return ""
    data = base64.b64encode(picture.read_bytes()).decode()
    terms = " &middot; ".join(f"{name} {sample[name]:.2f}" for name in names if sample.get(name) is not None)
    text = sample["text"]
    cut = text if len(text) <= _TEXT_SHOWN else text[:_TEXT_SHOWN] + " ..."
    return (
        f'<figure><img alt="What was asked; true boxes in green, predicted boxes in red" loading="lazy" '
        f'src="data:image/png;base64,{data}"><figcaption><b>step {sample["step"]}</b> {terms}'
        f"<pre>{html.escape(cut)}</pre></figcaption></figure>"
    )


def _settings(config: dict[str, Any]) -> str:
    if not config:
        return ""
    text = html.escape(json.dumps(config, indent=2))
    return f"<section><details><summary>Settings</summary><pre>{text}</pre></details></section>\n"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>\n" if content else ""
