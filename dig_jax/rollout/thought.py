"""Tells the thought of an answer from what follows it, while its text comes in.

What follows the first `</think>` is the content, without the line ends around that tag.
"""

from dig_jax.data.tokenizer import THINK_END


class Thought:
    """Tells a thought from the content behind it, while the text comes in.

    Args:
      opened: the prompt has begun a thought. Else all text is content.
    """

    def __init__(self, opened: bool):
        self._thinks = opened
        self._held = ""  # white space that may be the last of a part, or the beginning of the tag
        self._begun = not opened  # whether the content has more than line ends

    def add(self, text: str) -> tuple[str, str]:
        """What is certain after `text`, beyond what was told before: of the thought, and of the content."""
        if not self._thinks:
            return "", self._content(text)
        text = self._held + text
        before, tag, after = text.partition(THINK_END)
        if tag:
            self._thinks, self._held = False, ""
            return before.rstrip("\n"), self._content(after)
        certain = text[: len(text) - _overlap(text)].rstrip("\n")
        self._held = text[len(certain) :]
        return certain, ""

    def end(self) -> tuple[str, str]:
        """What was held back of a thought that was cut."""
        held, self._held = self._held, ""
        return held, ""

    def _content(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip("\n")
            self._begun = bool(text)
        return text


def _overlap(text: str) -> int:
    """How many characters at the end of `text` may begin the tag."""
    return next((n for n in range(len(THINK_END) - 1, 0, -1) if text.endswith(THINK_END[:n])), 0)
