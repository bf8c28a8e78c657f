"""The benchmark of experts: both sides agree, and are timed."""

import json
from pathlib import Path

import pytest

from bench import experts, timing


@pytest.mark.slow
def test_a_tiny_layer_is_the_same_on_both_sides_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(timing, "bind", lambda threads: [])  # it would hold for the tests that follow
    experts.main(["--tiny", "--threads=1", "--rounds=1", f"--json={tmp_path / 'found.json'}"])
    found = json.loads((tmp_path / "found.json").read_text())
    assert [line["what"] for line in found] == [
        f"experts of {tokens} tokens, forward{more}, against transformers"
        for tokens in (4, 32)
        for more in ("", " and backward")
    ]
    assert all(line["ratio"] > 0 for line in found)
