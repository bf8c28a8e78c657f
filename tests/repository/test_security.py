"""What comes from a model folder, a record or a model's mouth is data, never code, and stays in its place.

Elsewhere: pickled weights are refused (models/test_safetensors_io.py), the pixels of a picture are counted
before it is decoded (data/test_records.py), scenes are checked before Blender sees them
(data_gen/test_scene.py), and the report escapes what models say (test_report.py).
"""

import ast
import contextlib
import json
import pathlib
import shutil

import pytest
from etils import epath
from PIL import Image

from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.evaluate import Answer
from dig_jax.report import MetricsWriter
from dig_jax.scratch import ScratchConfig, make_scratch_folder
from tests.helpers.paths import ROOT

SOURCES = [path for package in ("dig_jax", "data_gen", "configs") for path in (ROOT / package).rglob("*.py")]
RUNS_CODE = {"eval", "exec", "__import__", "exec_module", "import_module"}
UNPICKLES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
RISKY_OPTIONS = {"allow_pickle", "trust_remote_code", "shell"}
# Files that a user names on the command line, and modules that a table of ours names.
ALLOWED = {
    ("dig_jax/run/cli.py", "exec_module"),
    ("dig_jax/machines/pyfile.py", "exec_module"),
    ("dig_jax/tasks/registry.py", "import_module"),
    ("dig_jax/benchmarks/registry.py", "import_module"),
    ("data_gen/changes/registry.py", "exec_module"),
}


def risks(path: pathlib.Path) -> set[str]:
    """What in a module could run text as code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & UNPICKLES
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} & UNPICKLES
        elif isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            found |= {called} & RUNS_CODE
            found |= {
                keyword.arg
                for keyword in node.keywords
                if keyword.arg in RISKY_OPTIONS
                and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
            }
    return found


def test_no_module_runs_text_as_code_or_reads_pickles() -> None:
    found = {(str(path.relative_to(ROOT)), risk) for path in SOURCES for risk in risks(path)}
    assert found - ALLOWED == set()


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    make_scratch_folder(tmp_path / "model", ScratchConfig(text_depth=1, vision_depth=1))
    return tmp_path / "model"


def test_code_in_a_model_folder_is_not_loaded(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A tokenizer that asks for Python code of its folder, as `trust_remote_code` would run it."""
    trace = tmp_path / "was_here"
    code = f"import pathlib\npathlib.Path({str(trace)!r}).touch()\nclass Evil: ...\n"
    (model / "evil.py").write_text(code)
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((model / name).read_text())
        settings["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "evil.Evil"}
        (model / name).write_text(json.dumps(settings))
    with contextlib.suppress(ValueError):  # refusing is as good as ignoring
        load_tokenizer(model)
    assert not trace.exists()


def test_a_chat_template_can_not_reach_the_system(model: pathlib.Path, tmp_path: pathlib.Path) -> None:
    trace = tmp_path / "was_here"
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    template += f"{{{{ self.__init__.__globals__.__builtins__.open('{trace}', 'w') }}}}"
    (model / "chat_template.jinja").write_text(template)
    try:
        text = load_tokenizer(model).render([{"role": "user", "content": "hello"}])
    except Exception:
        text = ""
    assert not trace.exists() and "subprocess" not in text


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a/b", "..", "\0"])
def test_the_id_of_a_record_names_no_file(name: str, tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "outer" / "workdir"
    writer = MetricsWriter(
        epath.Path(workdir), first_step=0, evaluated=-1, tensorboard=False, wandb_project=""
    )
    before = set(tmp_path.rglob("*"))
    answer = Answer(name, "[]", {"boxes": []}, {"reward": 0.0}, None)
    writer.sample(1, 0, answer, {"boxes": []}, Image.new("RGB", (8, 8)))
    writer.close()
    new = set(tmp_path.rglob("*")) - before
    assert [path.relative_to(workdir) for path in new] == [pathlib.Path("samples/step000001_00.png")]
    shutil.rmtree(workdir)
