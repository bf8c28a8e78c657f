"""What is wrong with a user's pairs, in the order of the file, and what was done to their pictures."""

from __future__ import annotations

import collections
import dataclasses


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """A place in the user's file: sorted by `section` and `number`; `name` is how a reader finds it."""

    section: int
    number: int
    name: str


@dataclasses.dataclass
class Report:
    """Problems keep a file from being imported; notes say what was done to some of its pairs.

    Attributes:
      problems: (where, what), in the order they were found.
      notes: what -> the places where it was so.
    """

    problems: list[tuple[Place, str]] = dataclasses.field(default_factory=list)
    notes: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))

    def problem(self, place: Place, text: str) -> None:
        self.problems.append((place, text))

    def note(self, place: Place, text: str) -> None:
        self.notes[text].append(place.name)

    def problem_lines(self) -> list[str]:
        """One line per problem, "FILE:LINE: what", from the first line of the file to the last."""
        return [f"{place.name}: {text}" for place, text in sorted(self.problems, key=lambda item: item[0])]

    def note_lines(self) -> list[str]:
        """One line per note, with the number of its places and the first of them."""
        return [
            f"{text}: {len(places)} {'times' if len(places) > 1 else 'time'}, first {places[0]}"
            for text, places in self.notes.items()
        ]
