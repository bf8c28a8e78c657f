"""The page: what is on it, and what happens when somebody uses it.

Each answer is a request to the batcher, so those of several tabs are decoded together. What belongs to a tab
(its history, the sample that was chosen) is in gradio's state of that tab.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from dig_jax.data.example import Example
from dig_jax.demo import looks
from dig_jax.demo.house import Chosen, House, ask, report
from dig_jax.demo.inputs import QUIET, Inputs, make_inputs
from dig_jax.demo.looks import Entry
from dig_jax.demo.pictures import MAX_MEGABYTES

STATIC = Path(__file__).with_name("static")
BUSY = "The model is answering \u2026"
KEPT = 20  # questions of a tab's history: each keeps two pictures
STEP_SECONDS = 5.0  # between two looks at which checkpoint answers


def make_page(house: House) -> gr.Blocks:
    """The page, to be launched."""
    with gr.Blocks(title=f"dig_jax: {house.name}", analytics_enabled=False) as page:
        head = gr.HTML(house.head)  # called whenever the page is opened
        if house.session.step is not None:
            gr.Timer(STEP_SECONDS).tick(house.head, None, head, **QUIET)
        inputs = make_inputs(house)
        with gr.Row():
            go = gr.Button("Find the differences", variant="primary", elem_id="go")
            stop = gr.Button("Stop", elem_id="stop")
        line = gr.HTML(looks.status(" ".join(house.notes)), elem_id="status")
        viewer = gr.HTML(
            {},
            html_template=(STATIC / "viewer.html").read_text(),
            css_template=(STATIC / "viewer.css").read_text(),
            js_on_load=(STATIC / "viewer.js").read_text(),
            apply_default_css=False,
            elem_id="viewer",
            pictures=[],
        )
        told = gr.HTML("", elem_id="answers")
        with gr.Accordion("History", open=False):
            past = gr.Radio([], label="Earlier answers of this page", elem_id="history")
        entries, current = gr.State([]), gr.State(None)
        _wire(house, inputs, Outputs(go, stop, line, viewer, told, past, entries, current))
    return page


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The components that tell what came of it."""

    go: Any
    stop: Any
    line: Any
    viewer: Any
    told: Any
    past: Any
    entries: Any
    current: Any


def _wire(house: House, inputs: Inputs, out: Outputs) -> None:
    """What happens when somebody asks, looks back, or reports."""

    async def answer(
        first: str | None, second: str | None, known: Example | None, entries: list[Entry], *settings: Any
    ) -> AsyncIterator[dict[Any, Any]]:
        entry, first_time, number = None, True, entries[-1].number + 1 if entries else 1
        try:
            async for entry in ask(house, (first, second), known, Chosen(*settings), number):
                shown: dict[str, Any] = {"value": looks.viewed(entry)}
                if first_time:
                    shown["pictures"] = list(entry.urls)
                first_time = False
                yield {
                    out.viewer: gr.HTML(**shown),
                    out.told: looks.answers_page(entry),
                    out.line: looks.status(
                        "" if entry.progress.complete else "The model is answering \u2026"
                    ),
                    out.current: entry,
                }
        except ValueError as error:
            # Of an answer that failed under way nothing is left that looks as if it went on.
            yield {out.line: looks.status(str(error), "error"), **({out.told: ""} if entry else {})}
            return
        assert entry is not None
        kept = [*entries, entry][-KEPT:]
        yield {out.entries: kept, out.past: _history(kept)}

    def look_back(number: int | None, entries: list[Entry]) -> tuple[Any, str, Entry | None]:
        entry = next((entry for entry in entries if entry.number == number), None)
        if entry is None:
            return gr.skip(), gr.skip(), gr.skip()
        viewer = gr.HTML(value=looks.viewed(entry), pictures=list(entry.urls))
        return viewer, looks.answers_page(entry), entry

    def save(entry: Entry | None, event: gr.EventData) -> str:
        return report(house, entry, event._data)

    going = out.go.click(
        answer,
        [inputs.first, inputs.second, inputs.known, out.entries, *inputs.settings],
        [out.viewer, out.told, out.line, out.current, out.entries, out.past],
        concurrency_limit=None,  # the batcher has its own
        **QUIET,
    )
    out.stop.click(lambda: looks.status("Stopped."), None, out.line, cancels=[going], **QUIET)
    out.past.input(look_back, [out.past, out.entries], [out.viewer, out.told, out.current], **QUIET)
    out.viewer.submit(save, out.current, out.line, **QUIET)


def launch(page: gr.Blocks, host: str, port: int) -> str:
    """Begins to serve the page, in a thread; its address.

    Args:
      page: from `make_page`.
      host: address to listen at.
      port: 0 takes a free one.

    Raises:
      OSError: the port is taken.
    """
    if port == 0:
        with socket.create_server((host, 0)) as free:
            port = free.getsockname()[1]
    system = ["system-ui", "-apple-system", "Segoe UI", "Helvetica", "Arial", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "Liberation Mono", "monospace"]
    page.queue(default_concurrency_limit=8)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        max_file_size=f"{MAX_MEGABYTES}mb",
        footer_links=[],
        theme=gr.themes.Soft(font=system, font_mono=mono),  # its own would be fetched from Google
        css_paths=STATIC / "page.css",
    )
    return url


def _history(entries: list[Entry]) -> Any:
    choices = [(entry.label, entry.number) for entry in reversed(entries)]
    return gr.Radio(choices, value=entries[-1].number)
