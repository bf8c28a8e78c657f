"""All commands by one name: `dig COMMAND --flags`, as `python -m MODULE --flags`.

dig                              the commands, with an example of each
dig evaluate --help              what `python -m dig_jax.evaluate --help` says, and the example
eval "$(dig --completion=bash)"  completes commands, flags and files; zsh too. Into ~/.bashrc or ~/.zshrc
"""

import ast
import dataclasses
import importlib.util
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Command:
    """One of the commands.

    Attributes:
      name: behind `dig`.
      module: that is run.
      does: in a few words.
      example: its flags.
      flags_in: module that defines its flags, where that is not the one that is run.
    """

    name: str
    module: str
    does: str
    example: str
    flags_in: str = ""


COMMANDS = (
    Command(
        "render",
        "data_gen",
        "renders a dataset of pairs",
        "--preset=stage1 --num_pairs=1600 --out=data/stage1",
        "data_gen.order.options",
    ),
    Command(
        "import",
        "data_gen.import_pairs",
        "makes a dataset of your own pairs",
        "--pairs=pairs.jsonl --out=data/own",
    ),
    Command(
        "align",
        "data_gen.align",
        "makes alignment records of rendered scenes",
        "--data=data/stage1 --out=data/align",
    ),
    Command(
        "convert", "data_gen.convert", "writes a dataset for other programs", "--data=DIR --to=coco --out=DIR"
    ),
    Command("verify", "data_gen.verify", "checks every pair of a dataset", "--data=data/stage1"),
    Command("preview", "data_gen.preview", "a gallery of a dataset", "data/stage1 --out=pairs.html"),
    Command(
        "train",
        "dig_jax.main",
        "trains; run again, it resumes",
        "--config=configs/stage1.py --workdir=runs/stage1",
    ),
    Command("report", "dig_jax.report", "the page of runs, side by side", "runs/stage1 runs/stage2"),
    Command(
        "examples",
        "dig_jax.report.examples",
        "what a benchmark asks, and what was answered",
        "--benchmark=refcoco --data_root=benchmarks --out=refcoco.html",
    ),
    Command("evaluate", "dig_jax.evaluate", "scores a model", "--model=runs/stage1 --data=data/stage1"),
    Command("generate", "dig_jax.generate", "one answer", "--model=runs/stage1 --image=a.png --image=b.png"),
    Command("serve", "dig_jax.serve", "a server for OpenAI's clients", "--model=runs/stage1 --port=8000"),
    Command("demo", "dig_jax.demo", "a page in the browser", "--model=runs/stage1"),
    Command(
        "score", "dig_jax.score", "scores saved answers", "--predictions=answers.jsonl --data=data/stage1"
    ),
    Command(
        "export",
        "dig_jax.export",
        "writes a Hugging Face folder",
        "--workdir=runs/stage1 --out=models/stage1",
    ),
    Command(
        "compile",
        "dig_jax.compile",
        "does it fit the hardware?",
        "--config=configs/stage3.py --topology=v5p:2x2x4",
    ),
    Command("scratch", "dig_jax.scratch", "a small untrained model", "--out=models/scratch"),
    Command(
        "assemble",
        "dig_jax.assemble",
        "a start model of published parts",
        "--clip=DIR --dino=DIR --qwen=DIR --out=DIR",
    ),
    Command("study", "study", "runs the learning study", "--out=runs/study"),
)

# Packages that only some commands need -> the extra of pyproject.toml that has them.
EXTRAS = {
    "fastapi": "serve",
    "gcsfs": "gcs",
    "gradio": "demo",
    "libtpu": "tpu",
    "matplotlib": "study",
    "prometheus_client": "serve",
    "uvicorn": "serve",
}

SHELLS = {
    "bash": """_dig() {
  local word="${COMP_WORDS[COMP_CWORD]}"
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "$(dig --words)" -- "$word"))
  elif [[ "$word" == -* ]]; then
    COMPREPLY=($(compgen -W "$(dig --words="${COMP_WORDS[1]}")" -- "$word"))
    compopt -o nospace
  else
    COMPREPLY=($(compgen -f -- "$word"))
    compopt -o filenames
  fi
}
complete -F _dig dig
""",
    "zsh": """_dig() {
  if (( CURRENT == 2 )); then
    compadd -- ${(f)"$(dig --words)"}
  elif [[ "$PREFIX" == -* ]]; then
    compadd -S '' -- ${(f)"$(dig --words="$words[2]")"}
  else
    _files
  fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _dig dig
""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; ends as the one that it runs does, with code 2 where there is none of that name."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    option, _, given = args[0].partition("=")
    if option == "--completion":
        if given not in SHELLS:
            return _wrong(f"--completion={given}: expected one of {', '.join(SHELLS)}")
        print(SHELLS[given], end="")
        return 0
    if option == "--words":
        print("\n".join(words(given)))
        return 0
    command = _command(args[0])
    if command is None:
        return _wrong(f"there is no command {args[0]!r}: expected one of {', '.join(words(''))}")
    return _run(command, args[1:])


def overview() -> str:
    """The help: every command with an example."""
    lines = [__doc__.strip(), ""]
    for command in COMMANDS:
        lines += [f"  {command.name:<10}{command.does}", f"  {'':<10}  dig {command.name} {command.example}"]
    return "\n".join(lines)


def words(name: str) -> list[str]:
    """What can follow `dig`, or `dig NAME`: commands, or flags with their "="; nothing for an unknown name.

    Flags are read from the source: completing would else import JAX for seconds at every key.
    """
    if not name:
        return [command.name for command in COMMANDS]
    command = _command(name)
    return [] if command is None else _flags(command.flags_in or command.module)


def _command(name: str) -> Command | None:
    return next((command for command in COMMANDS if command.name == name), None)


def _run(command: Command, args: list[str]) -> int:
    sys.argv = [f"dig {command.name}", *args]
    try:
        runpy.run_module(command.module, run_name="__main__", alter_sys=False)
    except ModuleNotFoundError as error:
        if (extra := EXTRAS.get((error.name or "").partition(".")[0])) is None:
            raise
        return _wrong(f"{error.name} is not installed: pip install 'dig_jax[{extra}]'")
    finally:
        if {"--help", "-h"} & set(args):
            print(f"\nexample:\n  dig {command.name} {command.example}")
    return 0


def _wrong(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _flags(module: str) -> list[str]:
    """Flags that the source of a module defines, by argparse or absl, and those that its docstring names."""
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    if spec is None or spec.origin is None:
        return []
    tree = ast.parse(Path(spec.origin).read_text())
    found: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        called, value = ast.unparse(node.func).rpartition(".")[2], str(node.args[0].value)
        switch = called == "DEFINE_bool" or any(
            isinstance(option.value, ast.Constant) and option.value.value == "store_true"
            for option in node.keywords
        )
        if called in ("add", "add_argument") and value.startswith("--"):
            found.append(value + "=" * (not switch))
        elif called.startswith("DEFINE_"):
            found.append(f"--{value}" + "=" * (not switch))
    named = re.findall(r"--[a-z_]+=", ast.get_docstring(tree) or "")  # some are made in a loop
    return list(dict.fromkeys(found + named))


if __name__ == "__main__":
    sys.exit(main())
