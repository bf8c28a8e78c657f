"""What is right of a conversation."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Answer:
    """The last answer of a conversation."""

    text: str
