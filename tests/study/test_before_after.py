"""The table of a model before and after training, from folders of results as the command writes them."""

import types

from etils import epath

from dig_jax.benchmarks import registry
from dig_jax.measure import folder
from study import before_after
from tests.helpers import made_benchmark
from tests.measure.test_results import MODEL, result, right, summary


def test_both_models_are_asked_alike_and_stand_in_one_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(registry.MODULES, "squares", made_benchmark.__name__)
    monkeypatch.setattr(before_after, "PAIRS", {"squares": "own squares"})
    monkeypatch.setattr(before_after, "PUZZLES", {"squares": "foreign squares"})
    asked = []

    def measure(flags):
        given = types.SimpleNamespace(**dict(flag[2:].partition("=")[::2] for flag in flags))
        asked.append((given.model, given.data_root, given.benchmarks, given.config, "--greedy" in flags))
        found = result(right(8 if given.model == "old" else 10))
        epath.Path(given.out).mkdir(parents=True)
        folder.write(epath.Path(given.out), given.model, MODEL, found, summary(found))

    monkeypatch.setattr(before_after.command, "main", measure)
    flags = ["--before=old", "--after=new", "--pairs=a", "--puzzles=b", f"--out={tmp_path}", "--config=c.py"]
    before_after.main(flags)
    models, data = ("old", "old", "new", "new"), ("a", "b") * 2
    assert asked == [
        (model, where, "squares", "c.py", True) for model, where in zip(models, data, strict=True)
    ]
    table = (tmp_path / "before_after.md").read_text()
    assert "| own squares | 12 | acc | 66.7 | 83.3 | +16.667 |" in table
    assert "| overall | 24 |" in table and "0 : 4, p = 0.12 |" in table
    assert "| after, foreign squares | majority 50.0 | 0.0% | 0.0% | 2.5 |" in table
    assert table in capsys.readouterr().out
