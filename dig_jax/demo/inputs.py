"""The components of the page that say what is asked: two pictures, samples, and how to answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import gradio as gr

from dig_jax.data.example import BadRecord, Example
from dig_jax.demo.house import House
from dig_jax.demo.samples import PAGE

MOST_ANSWERS = 8  # to a question
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def picture_input(label: str, name: str) -> Any:
    """An input for a picture whose file is handed on as it is, and looked at when it is asked about."""
    picture = gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        format="png",
        sources=["upload", "clipboard"],
        height=260,
        min_width=240,
        elem_id=name,
    )
    # Gradio would open the file, and say nothing useful where that fails. (Of a subclass of its component it
    # would write a stub file beside this one.)
    picture.preprocess = lambda payload: None if payload is None else payload.path
    return picture


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The components that say what is asked."""

    first: Any
    second: Any
    known: Any
    settings: list[Any]


def make_inputs(house: House) -> Inputs:
    known = gr.State(None)
    with gr.Row():
        first, second = picture_input("First picture", "first"), picture_input("Second picture", "second")
    if house.samples.sets:
        _samples(house, first, second, known)
    return Inputs(first, second, known, _settings(house))


def _settings(house: House) -> list[Any]:
    defaults, longest = house.session.defaults, house.session.desk.longest
    with gr.Accordion("How to answer", open=False):
        with gr.Row():
            greedy = gr.Checkbox(defaults.temperature == 0, label="Greedy: the likeliest token each time")
            temperature = gr.Slider(0.05, 2, defaults.temperature or 1.0, step=0.05, label="Temperature")
            top_p = gr.Slider(0.05, 1, defaults.top_p, step=0.05, label="Top-p")
        with gr.Row():
            count = gr.Slider(1, MOST_ANSWERS, 1, step=1, label="Answers (n)")
            seed = gr.Number(0, precision=0, label="Seed (empty: a new one each time)")
            most = gr.Number(
                min(longest, house.batcher.room.answer), precision=0, minimum=1, label="Tokens at most"
            )
            budget = gr.Number(
                0,
                precision=0,
                minimum=0,
                label="Tokens of thought (0: as it likes)",
                visible=house.session.opened.tokenizer.opens_thinking,
            )
        question = gr.Textbox(label="Question", placeholder="the model's own question", lines=2)
    return [greedy, temperature, top_p, count, seed, most, budget, question]


def _samples(house: House, first: Any, second: Any, known: Any) -> None:
    names = list(house.samples.sets)
    with gr.Accordion("Samples, whose differences are known", open=True, elem_id="samples"):
        with gr.Row():
            chosen = gr.Dropdown(names, value=names[0], label="Of", scale=3)
            number = gr.Number(1, precision=0, minimum=1, label=_of(house, names[0]), scale=1)
        gallery = gr.Gallery(
            house.samples.page(names[0], 0),
            columns=4,
            height="auto",
            allow_preview=False,
            show_label=False,
            object_fit="contain",
            format="png",
            buttons=[],
            elem_id="gallery",
        )

    def turn(name: str, page: float | None) -> tuple[Any, Any]:
        last = house.samples.pages(name)
        at = min(max(1, int(page or 1)), last)
        return gr.Gallery(house.samples.page(name, at - 1), selected_index=None), gr.Number(
            at, label=_of(house, name)
        )

    def take(name: str, page: float, event: gr.SelectData) -> tuple[Any, Any, Example | None]:
        index = (int(page) - 1) * PAGE + int(event.index)
        try:
            example = house.samples.pair(name, index)
        except (BadRecord, IndexError) as error:
            raise gr.Error(str(error)) from error
        return example.images[0], example.images[1], example

    chosen.input(lambda name: turn(name, 1), chosen, [gallery, number], **QUIET)
    number.submit(turn, [chosen, number], [gallery, number], **QUIET)
    number.blur(turn, [chosen, number], [gallery, number], **QUIET)
    gallery.select(take, [chosen, number], [first, second, known], **QUIET)


def _of(house: House, name: str) -> str:
    return f"Page, of {house.samples.pages(name)}"
