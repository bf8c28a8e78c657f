"""Ask a model for the differences of two pictures, and draw what it boxed.

    python examples/answer_two_pictures.py MODEL A.png B.png OUT.png [QUESTION]

MODEL is the workdir of a run, such as runs/quickstart, which is asked as it was trained, or a Hugging Face
folder, such as assets/quickstart_warmup, whose question was "Find differences.". docs/python.md says more.
"""

import math
import sys

from PIL import Image, ImageDraw

import dig_jax


def main(model: str, first: str, second: str, out: str, question: str | None = None) -> None:
    """Prints the answer while it comes, and writes the second picture with its boxes."""
    session = dig_jax.load_model(model)
    stream = session.stream([first, second], question, temperature=0)
    for piece in stream:
        print(piece, end="", flush=True)
    print()

    reply = stream.reply  # there once all pieces were taken
    assert reply is not None
    for note in reply.notes:
        print(f"note: {note}")
    probability = math.exp(sum(reply.logprobs) / len(reply.logprobs))
    print(f"{len(reply.boxes)} boxes; the tokens had a probability of {probability:.2f} on average")

    picture = Image.open(second).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for box in reply.boxes:  # x0, y0, x1, y1 in 0..1 of width and height
        pen.rectangle((box * (picture.size * 2)).round().tolist(), outline="red")
    picture.save(out)


if __name__ == "__main__":
    if not 5 <= len(sys.argv) <= 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
