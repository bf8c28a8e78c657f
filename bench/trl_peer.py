"""TRL's side of `bench/grpo_step.py`: GRPO steps on command, in an environment without dig_jax.

The model folder, the images and the settings come from the other side as one JSON line on standard input.
From then on this program writes {"ready": true} when it is about to start a step, waits for a line, runs
the step and writes its times: {"step_s": ..., "cpu_s": ..., "rollout_s": ..., "decoded": ...}, where `cpu_s`
is of all threads and `decoded` the number of tokens of the longest completion. Everything else goes to
standard error.
"""

import json
import os
import re
import sys
import tempfile
import time
from typing import Any

import datasets
import torch
import transformers
import trl
from PIL import Image
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from trl import GRPOConfig, GRPOTrainer


class ImageProcessor(Qwen3VLProcessor):
    """Qwen3VLProcessor for images only: its video processor needs torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.vision_start_token, self.vision_end_token = "<|vision_start|>", "<|vision_end|>"
        for name in ("image", "video", "vision_start", "vision_end"):
            setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(getattr(self, f"{name}_token")))
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=tokenizer.chat_template)


class OnCommand(transformers.TrainerCallback):
    """Holds every step back until a line arrives, and reports its times."""

    def __init__(self, protocol: Any):
        self._protocol = protocol
        self._start = self._cpu_start = 0.0
        self.rollout_s = 0.0
        self.decoded = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        _write(self._protocol, {"ready": True})
        if not sys.stdin.readline():
            sys.exit("the other side is gone")
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        taken = {
            "step_s": time.perf_counter() - self._start,
            "cpu_s": time.process_time() - self._cpu_start,
            "rollout_s": self.rollout_s,
        }
        _write(self._protocol, taken | {"decoded": self.decoded})


class TimedTrainer(GRPOTrainer):
    """GRPOTrainer that notes how long sampling took and how many tokens it decoded."""

    on_command: OnCommand

    def _generate(self, prompts: list) -> tuple:
        start = time.perf_counter()
        generated = super()._generate(prompts)
        self.on_command.rollout_s = time.perf_counter() - start
        self.on_command.decoded = max(len(ids) for ids in generated[1])
        return generated


def box_reward(completions: list, **kwargs: Any) -> list[float]:
    """Share of digits, plus one where a box parses: enough to give a random policy unequal rewards."""
    texts = [completion[0]["content"] for completion in completions]
    box = re.compile(r"\[\s*\d+\s*(,\s*\d+\s*){3}\]")
    return [sum(c.isdigit() for c in text) / max(1, len(text)) + bool(box.search(text)) for text in texts]


def main() -> None:
    """Reads the job, makes the trainer and lets it run."""
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)

    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    images = Qwen2VLImageProcessorPil.from_pretrained(job["model"])
    processor = ImageProcessor(images, tokenizer)
    model = Qwen3VLForConditionalGeneration.from_pretrained(job["model"], dtype=torch.float32)
    pairs = [[Image.open(path).convert("RGB") for path in pair] for pair in job["pairs"]]
    with tempfile.TemporaryDirectory() as folder:
        on_command = OnCommand(protocol)
        trainer = TimedTrainer(
            model=model,
            reward_funcs=[box_reward],
            args=_settings(job, folder),
            train_dataset=_dataset(job["question"], pairs),
            processing_class=processor,
            callbacks=[on_command],
        )
        trainer.on_command = on_command
        _write(
            protocol,
            {
                "parameters": model.num_parameters(),
                "prompt_tokens": _count_tokens(processor, job["question"], pairs[0]),
                "versions": {m.__name__: m.__version__ for m in (trl, torch, transformers)},
            },
        )
        trainer.train()


def _settings(job: dict[str, Any], folder: str) -> GRPOConfig:
    return GRPOConfig(
        output_dir=folder,
        max_steps=job["steps"],
        per_device_train_batch_size=job["prompts"] * job["group"],
        num_generations=job["group"],
        max_completion_length=job["new_tokens"],
        temperature=1.0,
        beta=job["kl_coef"],
        loss_type="dapo",  # TRL's name for the mean over all tokens
        epsilon=job["clip_low"],
        epsilon_high=job["clip_high"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type="constant",
        weight_decay=job["weight_decay"],
        max_grad_norm=job["clip_norm"],
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )


def _dataset(question: str, pairs: list[list[Any]]) -> datasets.Dataset:
    turns = [[{"role": "user", "content": question}]] * len(pairs)
    features = datasets.Features(
        {
            "prompt": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
            "images": datasets.List(datasets.Image()),
        }
    )
    return datasets.Dataset.from_dict({"prompt": turns, "images": pairs}, features=features)


def _count_tokens(processor: ImageProcessor, question: str, images: list[Any]) -> int:
    content = [{"type": "image", "image": image} for image in images] + [{"type": "text", "text": question}]
    turns = [[{"role": "user", "content": content}]]
    encoded = processor.apply_chat_template(
        turns, tokenize=True, return_dict=True, add_generation_prompt=True
    )
    return len(encoded["input_ids"][0])


def _write(stream: Any, value: dict) -> None:
    print(json.dumps(value), file=stream, flush=True)


if __name__ == "__main__":
    main()
