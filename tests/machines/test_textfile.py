"""Text that a user hands over: with a byte-order mark it is read, in another encoding the line is named."""

import pytest
from etils import epath

from dig_jax.data.images import ImageConfig
from dig_jax.data.tokenizer import load_tokenizer
from dig_jax.generate import model_sampling
from dig_jax.machines import textfile
from dig_jax.models.families import load_config
from dig_jax.run import model_folder
from tests.helpers.paths import ASSETS

PLAIN = epath.Path(ASSETS) / "quickstart_warmup"


def test_the_mark_that_windows_puts_before_utf8_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "settings.json"
    path.write_bytes(b"\xef\xbb\xbf" + '{"name": "caf\u00e9"}'.encode())
    assert textfile.read_text(path) == '{"name": "caf\u00e9"}'
    assert textfile.read_json(path) == {"name": "caf\u00e9"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{}".encode("utf-16"), "line 1: expected UTF-8 text, but it is UTF-16"),
        ("{}\n{}".encode("utf-16-be"), "is not JSON"),  # all of it could be ASCII with zeros
        ('{"a": 1,\n"b": "caf\u00e9"}'.encode("latin-1"), "line 2: expected UTF-8 text, but byte 0xe9"),
        (b"[1, 2]", "expected a JSON object"),
        (b"{broken", "is not JSON"),
        (b'{"a": ' * 100_000, "is not JSON: nested too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "limit"),
    ],
)
def test_what_is_no_json_in_utf8_is_named_with_its_file(tmp_path, data, message):
    path = tmp_path / "settings.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="settings.json") as error:
        textfile.read_json(path)
    assert message in str(error.value)


def test_a_model_folder_that_an_editor_on_windows_has_saved_is_read_alike(tmp_path):
    """And what is copied from it, into workdirs and exports, is read by transformers again."""
    plain, marked, copied = PLAIN, epath.Path(tmp_path / "marked"), epath.Path(tmp_path / "copied")
    model_folder.copy_model_files(plain, marked)
    for path in marked.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_tokenizer(marked).encode("A cube.") == load_tokenizer(plain).encode("A cube.")
    assert load_config(marked) == load_config(plain)
    assert ImageConfig.from_folder(marked) == ImageConfig.from_folder(plain)
    assert model_sampling(marked, False) == model_sampling(plain, False)
    model_folder.copy_model_files(marked, copied)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == {
        name: (plain / name).read_bytes() for name in model_folder.MODEL_FILES if (plain / name).exists()
    }
