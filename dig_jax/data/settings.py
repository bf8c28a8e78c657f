"""What is trained on, and how it is read and batched: `config.data`, but for what tasks take from it."""

import dataclasses

from ml_collections import ConfigDict

from dig_jax.machines import checks


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Examples of a run or stage. Defaults live in `configs/base.py`.

    The question, boxes, augmentation and the folder of images are the tasks' to read and to check.

    Attributes:
        train: folders or files to train on.
        train_split: of them.
        num_differences: the numbers of differences of the pairs that are kept; () = all.
        min_pixels, max_pixels: that images are resized to; 0 = those of the model folder.
        buckets: pixels per image of the sizes that batches are padded to; () = derived.
        prompt_lengths: tokens of further such sizes, for texts of very different lengths.
        group_sizes: whether a batch has examples of one bucket alone.
        max_bad_records: unreadable examples that are left out before it is an error.
        prefetch: batches prepared ahead.
    """

    train: tuple[str, ...]
    train_split: str
    num_differences: tuple[int, ...]
    min_pixels: int
    max_pixels: int
    buckets: tuple[int, ...]
    prompt_lengths: tuple[int, ...]
    group_sizes: bool
    max_bad_records: int
    prefetch: int

    @classmethod
    def from_config(cls, config: ConfigDict) -> "DataConfig":
        """The checked settings of a run or stage."""
        return cls(**{field.name: config.data[field.name] for field in dataclasses.fields(cls)})

    def __post_init__(self) -> None:
        pixels = "numbers of pixels, such as (65536, 262144), or () to derive them"
        checks.whole_numbers("data.buckets", self.buckets, 1, pixels)
        lengths = "numbers of tokens, such as (768, 1024), or () for none"
        checks.whole_numbers("data.prompt_lengths", self.prompt_lengths, 1, lengths)
        counts = "numbers of differences, such as (1, 2), or () for all"
        checks.whole_numbers("data.num_differences", self.num_differences, 0, counts)
        for name in ("min_pixels", "max_pixels", "max_bad_records", "prefetch"):
            checks.at_least(f"data.{name}", getattr(self, name), 0)

    def check_training(self) -> None:
        """Refuses to train on nothing, which those who only ask a model do."""
        if not any(self.train):
            raise ValueError("config.data.train is empty: give the folders of datasets to train on")
