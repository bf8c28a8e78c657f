"""The committed sample: 16 pairs that tests, notebooks and Pythons without bpy can read."""

from data_gen.records.dataset import Dataset
from data_gen.verify import main as verify
from dig_jax.data.records import open_pairs
from tests.helpers.paths import ASSETS

SAMPLE = ASSETS / "sample_pairs"


def test_it_is_small():
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*")) < 2_000_000


def test_its_sixteen_pairs_pass_the_check(capsys):
    assert verify([f"--data={SAMPLE}"]) == 0
    assert "all 16 pairs pass" in capsys.readouterr().out


def test_training_reads_it():
    pairs = open_pairs(SAMPLE, "train")
    assert len(pairs) == 12 and pairs[0].image_a.shape == (176, 176, 3)
    assert all(len(pairs[index].boxes) == len(pairs[index].kinds) for index in range(len(pairs)))


def test_it_says_how_it_was_made():
    metadata = Dataset(SAMPLE).metadata()
    assert metadata["preset"]["name"] == "rich" and metadata["renderer"]["blender"]
    assert "python -m data_gen --preset=rich" in (SAMPLE / "README.md").read_text()
