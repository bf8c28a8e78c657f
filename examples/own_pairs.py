"""Your own pairs of pictures as a dataset: list them in a file, import it, look at the result.

    python examples/own_pairs.py OUT

draws two small pairs in OUT/pictures, lists them in OUT/pairs.jsonl, makes OUT/dataset of them, and a page to
look at, OUT/pairs.html. With pictures of yours, begin at `pairs.jsonl`; docs/own_pairs.md describes it. Then

    python -m dig_jax.main --config=configs/quickstart.py --workdir=OUT/run \\
        --config.data.train="('OUT/dataset',)" --config.data.eval=OUT/dataset

trains on them, and `python -m dig_jax.evaluate --model=OUT/run --data=OUT/dataset` evaluates.
"""

import json
import pathlib
import sys

from PIL import Image, ImageDraw

from data_gen import import_pairs, preview, verify


def draw(path: pathlib.Path, *, kite: bool) -> None:
    """A sky over a field, with or without a kite."""
    picture = Image.new("RGB", (320, 200), "skyblue")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 150, 320, 200), fill="olive")
    if kite:
        pen.polygon([(60, 30), (84, 60), (60, 90), (36, 60)], fill="crimson")
    picture.save(path)


def main(out: pathlib.Path) -> int:
    """Makes the dataset; returns 0 when every step worked."""
    (out / "pictures").mkdir(parents=True)
    draw(out / "pictures" / "before.png", kite=False)
    draw(out / "pictures" / "after.png", kite=True)
    both = {"image_a": "pictures/before.png", "image_b": "pictures/after.png"}
    pairs = [
        # Boxes are [x0, y0, x1, y1] in pixels; kinds and descriptions may be left out.
        {
            "id": "kite",
            **both,
            "boxes": [[36, 30, 85, 91]],
            "kinds": ["add"],
            "descriptions": ["a kite rose"],
        },
        {"id": "nothing", **both, "image_b": "pictures/before.png", "boxes": [], "split": "test"},
    ]
    (out / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return (
        import_pairs.main([f"--pairs={out / 'pairs.jsonl'}", f"--out={out / 'dataset'}"])
        or verify.main([f"--data={out / 'dataset'}"])
        or preview.main([str(out / "dataset"), f"--out={out / 'pairs.html'}"])
    )


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
