"""The tokenizer of a model folder, and what the rest of the program must know about its special tokens."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from dig_jax.machines import textfile
from dig_jax.machines.folder import local_copy

END_OF_TURN = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
IMAGE_PLACEHOLDER = "<|image_pad|>"
THINK_END = "</think>"
CLOSE_THINKING = f"\n{THINK_END}\n\n"  # as the chat template writes it between reasoning and answer
# Tokens that stand for vision input. They make no sense in an answer, marked special or not.
_VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", IMAGE_PLACEHOLDER, "<|video_pad|>")

# Those that a tokenizer is read from.
_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "chat_template.jinja", "chat_template.json", "config.json"),
)

Message = Mapping[
    str, Any
]  # {"role": ..., "content": str or [{"type": "image"} | {"type": "text", "text": ...}]}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A loaded tokenizer.

    Attributes:
      hf: the transformers tokenizer underneath.
      eos_ids: ids that end a response; the first is the end-of-turn token written after an answer.
      pad_id: fills the tail of token arrays.
      vocab_size: number of ids the tokenizer knows. The embedding table may be longer: its tail is padding,
        and ids from `vocab_size` on must never be sampled.
      suppressed: ids below `vocab_size` that must never be sampled either: image, video, vision and padding
        tokens, and every other special token that does not end a response. Sorted.
      image_token_id: the placeholder that image features replace.
      opens_thinking: the chat template's generation prompt already ends in an open "<think>".
      think_end_id: the token "</think>"; None where it is none.
      template: the file of the chat template, for errors.
    """

    hf: Any  # a PreTrainedTokenizerBase: not named, because transformers is imported on loading only
    eos_ids: tuple[int, ...]
    pad_id: int
    vocab_size: int
    suppressed: tuple[int, ...]
    image_token_id: int
    opens_thinking: bool
    think_end_id: int | None
    template: str

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`. Special tokens written in it are recognised; none are added."""
        return self.hf.encode(text, add_special_tokens=False)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each: fast tokenizers read them on all cores."""
        if not texts:
            return []
        found = self.hf(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        ids: list[list[int]] = found["input_ids"]
        return ids

    def fingerprint(self) -> str:
        """A hash of what decides the tokens of a conversation: vocabulary, rules, template, libraries."""
        import tokenizers
        import transformers

        backend = getattr(self.hf, "backend_tokenizer", None)
        rules = backend.to_str() if backend is not None else sorted(self.hf.get_vocab().items())
        libraries = transformers.__version__, tokenizers.__version__
        values = type(self.hf).__name__, rules, self.hf.chat_template, self.hf.special_tokens_map, libraries
        return hashlib.sha256(repr(values).encode()).hexdigest()

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens. "<think>" and "</think>" are not special and stay."""
        return self.hf.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def decode_answer(self, ids: Sequence[int]) -> str:
        """The text of `ids` from the last "</think>" on, that tag included; "" where there is none.

        It decodes no more than that, of a long thought nearly always nothing. The tag is its own token, but a
        model may also spell it.
        """
        ids = list(ids)
        start = len(ids) - 1 - ids[::-1].index(self.think_end_id) if self.think_end_id in ids else 0
        rest = ids[start:]
        if self._spelling.isdisjoint(rest):
            return ""
        text = self.decode(rest)
        return text[text.rindex(THINK_END) :] if THINK_END in text else ""

    @functools.cached_property
    def _spelling(self) -> frozenset[int]:
        """The tokens that "</think>" may begin in; no byte of other characters is the byte of "<"."""
        return frozenset(id for token, id in self.hf.get_vocab().items() if THINK_END[0] in token)

    def render(self, messages: Sequence[Message]) -> str:
        """Chat-template text of `messages`, up to and including the opening of the assistant's turn."""
        return _rendered(self.hf, messages, True, self.template)


class TextStream:
    """The text of an answer while its tokens still come in.

    A token may end in the middle of a character's UTF-8 bytes: its text is held back until the rest is there,
    so that what was given out never changes. All parts together are `Tokenizer.decode` of all tokens.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._held: list[int] = []

    def add(self, ids: Sequence[int]) -> str:
        """The text that is certain after `ids`, beyond what was given out before."""
        certain = ""
        for id in ids:
            self._held.append(id)
            text = self._tokenizer.decode(self._held)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):
                certain += text
                self._held.clear()
        return certain

    def end(self) -> str:
        """The text of what is held back, when no more tokens come."""
        text = self._tokenizer.decode(self._held)
        self._held.clear()
        return text


def load_tokenizer(model: epath.PathLike) -> Tokenizer:
    """Loads the tokenizer and chat template of a Hugging Face folder, local or in a bucket.

    Raises:
      FileNotFoundError: the folder or its tokenizer files are not there.
      ValueError: a file is damaged, a Git LFS pointer, or of another model than the rest; the tokenizer lacks
        a chat template or a token that the models need, or has tokens that the model has no rows for.
    """
    # Its advice to install PyTorch does not apply: only the tokenizer is used.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer  # 1.5 s and many modules: on use, not on import

    path = epath.Path(model)
    if not any((path / name).exists() for name in ("tokenizer.json", "vocab.json")):
        raise FileNotFoundError(
            f"{path} has no tokenizer (tokenizer.json); expected a Hugging Face model folder."
        )
    for name in _FILES:
        if (path / name).exists():
            textfile.check_fetched(path / name)
    try:
        with (
            local_copy(path, ("*.json", "*.txt", "*.jinja")) as local,
            textfile.without_marks(local, _FILES) as folder,
            _without_advice(),
        ):
            hf = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged file raises whatever its reader raises, a bare Exception included
        raise ValueError(f"{path}: its tokenizer cannot be loaded ({error})") from error
    template = path / "chat_template.jinja"
    if not template.exists():
        template = path / "chat_template.json"  # where hub repositories keep the template with images
        if template.exists():
            hf.chat_template = textfile.field(textfile.read_json(template), "chat_template", str, template)
            if hf.chat_template is None:
                raise ValueError(f"{template}: missing key 'chat_template'; expected the template's text")
        else:
            template = path / "tokenizer_config.json"
    if not isinstance(hf.chat_template, str) or not hf.chat_template:
        raise ValueError(
            f"{path}: the tokenizer has no chat template (chat_template.jinja, or chat_template in"
            " chat_template.json or tokenizer_config.json)."
        )

    if not isinstance(hf.model_max_length, int | float):  # compared with, whenever text is encoded
        where = f"{path / 'tokenizer_config.json'}: model_max_length"
        raise ValueError(f"{where} is {hf.model_max_length!r}; expected a number")
    vocab = hf.get_vocab()
    if missing := [token for token in (END_OF_TURN, END_OF_TEXT, IMAGE_PLACEHOLDER) if token not in vocab]:
        raise ValueError(
            f"{path}: the tokenizer has no {', '.join(missing)}; is it the tokenizer of a Qwen-VL model?"
        )
    eos_ids = (vocab[END_OF_TURN], vocab[END_OF_TEXT])
    pad_id = vocab[END_OF_TEXT] if hf.pad_token_id is None else hf.pad_token_id
    special = {id for id, token in hf.added_tokens_decoder.items() if token.special}
    special |= {vocab[token] for token in _VISION_TOKENS if token in vocab} | {pad_id}
    _check_ids(vocab, path / "tokenizer.json")
    _check_fits(vocab, path / "config.json")
    return Tokenizer(
        hf=hf,
        eos_ids=eos_ids,
        pad_id=pad_id,
        vocab_size=max(vocab.values()) + 1,
        suppressed=tuple(sorted(special - set(eos_ids))),
        image_token_id=vocab[IMAGE_PLACEHOLDER],
        opens_thinking=_opens_thinking(hf, str(template)),
        think_end_id=vocab.get(THINK_END),
        template=str(template),
    )


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Drops the warning that a config.json is of none of transformers' models: the tokenizer does not ask."""
    source = logging.getLogger("transformers.configuration_utils")

    def keep(record: logging.LogRecord) -> bool:
        return "You are using a model of type" not in record.getMessage()

    source.addFilter(keep)
    try:
        yield
    finally:
        source.removeFilter(keep)


def _check_ids(vocab: Mapping[str, int], file: epath.Path) -> None:
    """Refuses a tokenizer that numbers its added tokens otherwise than its own file does.

    transformers does so, silently, where tokenizer_config.json has an `added_tokens_decoder` of other tokens.

    Raises:
      ValueError: names the tokens.
    """
    if not file.exists():
        return
    added = textfile.read_json(file).get("added_tokens") or []
    wrong = [token for token in added if vocab.get(token["content"]) != token["id"]]
    if wrong:
        first = wrong[0]
        raise ValueError(
            f"{file}: {len(wrong)} added tokens, such as {first['content']!r} ({first['id']}), are not in the"
            f" tokenizer under that id (but under {vocab.get(first['content'])}): tokenizer_config.json, its"
            " added_tokens_decoder above all, is not of the same model"
        )


def _check_fits(vocab: Mapping[str, int], config: epath.Path) -> None:
    """Refuses a tokenizer that the model beside it has no rows for, or whose images it takes for words.

    Raises:
      ValueError: names the tokens, or the setting.
    """
    if not config.exists():
        return
    settings = textfile.read_json(config)
    # Older files have the decoder's settings at the top.
    text = textfile.field(settings, "text_config", dict, config)
    key = "vocab_size" if text is None else "text_config.vocab_size"
    rows = textfile.field(settings if text is None else text, key, int, config)
    beyond = sorted((id, token) for token, id in vocab.items() if rows is not None and id >= rows)
    if beyond:
        raise ValueError(
            f"{config.parent}: the tokenizer has {len(beyond)} tokens that the model has no row for, such as"
            f" {beyond[0][1]!r} ({beyond[0][0]}): {key} in config.json is {rows}. Use the"
            " tokenizer that came with the weights, or resize the model's embeddings first"
        )
    image = textfile.field(settings, "image_token_id", int, config)
    if image is not None and image != vocab[IMAGE_PLACEHOLDER]:
        raise ValueError(
            f"{config}: image_token_id is {image}, but {IMAGE_PLACEHOLDER} of the tokenizer beside it is"
            f" {vocab[IMAGE_PLACEHOLDER]}: they are of two models"
        )


def _rendered(hf: Any, messages: Sequence[Message], prompt: bool, template: str) -> str:
    try:
        return hf.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt)
    except Exception as error:  # whatever the template's code does, down to `raise_exception`
        raise ValueError(
            f"{template}: the chat template cannot render a user's turn ({type(error).__name__}: {error});"
            " use the one that came with the model"
        ) from error


def _opens_thinking(hf: Any, template: str) -> bool:
    """Whether the generation prompt leaves "<think>" open. An empty, closed block means no thinking."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]  # as questions are asked
    without, whole = (_rendered(hf, messages, prompt, template) for prompt in (False, True))
    opening = whole[len(without) :]
    return opening.rfind("<think>") > opening.rfind("</think>")
