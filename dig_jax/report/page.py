"""report.html: one self-contained page of a run, for a browser on a laptop or a phone."""

import html
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from dig_jax.report.answers import group_table, over_training, worst_of
from dig_jax.report.curves import line_chart
from dig_jax.report.found import direction, found_charts, found_tables
from dig_jax.report.overlay import Pictures
from dig_jax.report.series import Records, band, points
from dig_jax.report.shown import Shown
from dig_jax.report.style import STYLE
from dig_jax.report.summary import before_and_after, read_config, stage_names
from dig_jax.report.writer import (
    GROUPS_FILE,
    METRICS_FILE,
    SAMPLES_FILE,
    SLICES_FILE,
    WORST_FILE,
    read_evals,
    read_lines,
)

# Charts of any run, behind those that its tasks declare; the rest of the metrics follow, folded away.
TRAINING_CHARTS = (
    (
        "Response tokens",
        (("mean", "rollout/response_length_mean"), ("longest", "rollout/response_length_max")),
    ),
    (
        "Share of completions and groups",
        (("cut off", "rollout/truncated"), ("groups that earn alike", "rollout/zero_std_groups")),
    ),
    ("KL to the reference", (("KL", "grpo/kl"),)),
    ("KL to the teacher", (("KL", "distill/kl"),)),
    (
        "Share that the teacher judges",
        (
            ("tokens alike", "distill/agreement"),
            ("completions without an advantage", "distill/zero_advantage"),
            ("of these with a signal", "distill/zero_advantage_signal"),
        ),
    ),
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


def write_report(workdir: epath.PathLike, out: epath.Path | None = None) -> epath.Path:
    """Writes `out`, or workdir/report.html, from the files of the run; parts it has not yet are left out.

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
    slices, groups = read_lines(workdir / SLICES_FILE), read_lines(workdir / GROUPS_FILE)
    folder, marks = (workdir / SAMPLES_FILE).parent, _stage_marks(metrics, names)
    pictures, main = Pictures(folder), shown.of_set(shown.main).main
    terms = [*shown.of_set(shown.main).metrics]
    trained = dict.fromkeys(name for one in shown.training.values() for name in ("reward", *one.metrics))
    body = [
        _header(workdir.name, config, names, metrics),
        _before_and_after(evals, names, shown),
        section("Learning curves", _charts(evals, metrics, marks, shown)),
        section(
            "What was found, by kind and size" if slices else "",
            found_tables(slices, main) + found_charts(slices, marks) if slices else "",
        ),
        section(
            "A group of sampled answers", group_table(groups[-1], pictures, [*trained]) if groups else ""
        ),
        section(
            f"Answers on held-out {shown.examples}, over training",
            over_training(read_lines(workdir / SAMPLES_FILE), folder, pictures, terms),
        ),
        section(
            "The worst answers of the newest evaluation",
            worst_of(read_lines(workdir / WORST_FILE), folder, pictures, terms),
        ),
        _settings(config),
        pictures.store(),
    ]
    return write_page(out or workdir / "report.html", f"dig_jax: {workdir.name}", body)


def write_page(path: epath.Path, title: str, body: Sequence[str]) -> epath.Path:
    """Writes a page that needs nothing but itself; a reader sees the old one or the new one, never a part."""
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{''.join(body)}</main></body></html>\n"
    )
    # A lone surrogate, which a byte-level tokenizer can produce, has no UTF-8 form.
    unfinished = path.parent / f".{path.name}.tmp"
    unfinished.write_bytes(page.encode("utf-8", "replace"))
    unfinished.replace(path)
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
            f'<td class="{direction(change)}">{change:+.3f}</td></tr>'
        )
    return section(
        "Held out, before and after",
        f'<div class="wide"><table><thead><tr><th></th>{head}<td>change</td></tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
    )


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
    first = [*shown.charts_of_parts(), *own.items(), *TRAINING_CHARTS]
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
    series = [(label, points(records, key)) for label, key in lines]
    bands = {label: around for label, key in lines if (around := band(records, key))}
    return line_chart(title, series, x_label="step", marks=marks, bands=bands)


def _settings(config: dict[str, Any]) -> str:
    if not config:
        return ""
    text = html.escape(json.dumps(config, indent=2))
    return f"<section><details><summary>Settings</summary><pre>{text}</pre></details></section>\n"


def section(title: str, content: str) -> str:
    """A part of a page; "" where it has no content."""
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>\n" if content else ""
