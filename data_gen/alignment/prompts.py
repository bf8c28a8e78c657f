"""What users say, about ten ways per kind; evaluation always says the first one.

"{exp}" is a phrase, "{box}" a box, "<object>" a crop. The paper tells one prompt (section 4.2), the first of
T-C; all others are ours.
"""

from __future__ import annotations

import random

PROMPTS: dict[str, tuple[str, ...]] = {
    "T-C": (
        "Output the coordinate of {exp}",
        "Where is {exp}?",
        "Locate {exp}.",
        "Find {exp} and give its coordinate.",
        "Give the bounding box of {exp}.",
        "Point out {exp} with a box.",
        "In which region is {exp}?",
        "Please box {exp}.",
        "Tell me the location of {exp}.",
        "What are the coordinates of {exp}?",
    ),
    "C-T": (
        "Describe the object at {box}.",
        "What is at {box}?",
        "Name the object in the region {box}.",
        "Give a phrase that means the object at {box} alone.",
        "Which object does the box {box} hold?",
        "How would you refer to the object at {box}?",
        "Tell me what {box} shows.",
        "Say what stands at {box}.",
    ),
    "I-C": (
        "Output the coordinate of this object: <object>",
        "Where is this object: <object>?",
        "Locate <object> in the image.",
        "Find <object> and give its coordinate.",
        "Give the bounding box of <object>.",
        "In which region is <object>?",
        "Box the object that <object> shows.",
        "Tell me the location of this object: <object>",
    ),
    "C-I": (
        "Which crop shows the region {box}?",
        "Which of these is at {box}?",
        "Pick the crop of the object at {box}.",
        "What does the box {box} hold?",
        "Choose the crop that belongs to {box}.",
        "One of these was cut from {box}. Which one?",
        "Match the region {box} with a crop.",
        "Which crop is of {box}?",
    ),
    "T-I": (
        "Which crop shows {exp}?",
        "Which of these is {exp}?",
        "Pick the crop of {exp}.",
        "Choose the crop that shows {exp}.",
        "One of these is {exp}. Which one?",
        "Which crop is of {exp}?",
        "Select {exp} among the crops.",
        "Match {exp} with a crop.",
    ),
    "I-T": (
        "What is the relation of <object> to <object>?",
        "Where is <object> relative to <object>?",
        "How does <object> stand to <object>?",
        "Describe where <object> is, seen from <object>.",
        "Where does <object> stand with respect to <object>?",
        "Say how <object> lies to <object>.",
    ),
    "color": ("What color is <object>?", "Which color does <object> have?", "Name the color of <object>."),
    "material": (
        "What is <object> made of?",
        "Which material is <object>?",
        "Name the material of <object>.",
    ),
    "shape": ("What shape is <object>?", "What kind of object is <object>?", "Name the shape of <object>."),
    "texture": (
        "What is the texture of <object>?",
        "Which pattern does <object> have?",
        "Name the pattern of <object>.",
    ),
    "size": ("How large is <object>?", "What size is <object>?", "Name the size of <object>."),
    "exist": (
        "Is there {exp} in the image?",
        "Does the image show {exp}?",
        "Can you see {exp}?",
        "Is {exp} in the picture?",
    ),
    "count": ("How many {exp} are there?", "How many {exp} does the image show?", "Count the {exp}."),
    "description": (
        "Describe the image and give the coordinate of each object.",
        "Describe the image with a box for every object.",
        "What does the image show, and where?",
        "List all objects with their coordinates, in sentences.",
        "Give a detailed description with coordinates.",
    ),
}


def prompt(name: str, rng: random.Random | None, **words: str) -> str:
    """One of the prompts of that name, drawn; without `rng`, as for evaluation, the first."""
    texts = PROMPTS[name]
    return (rng.choice(texts) if rng else texts[0]).format(**words)
