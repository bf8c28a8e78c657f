"""Buckets for tests: `gs://name/path` is a file of a local folder, through the layers of a real bucket."""

import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import fsspec
from etils.epath import backend
from fsspec.implementations.local import LocalFileSystem


class FakeBuckets(LocalFileSystem):
    """Google's storage on a local folder. Like it, it has no folders of its own: parents come with a file."""

    protocol = ("gcs", "gs")
    cachable = False
    root: Path

    def __init__(self, **options: Any):
        super().__init__(auto_mkdir=True)

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        path = str(path)
        for prefix in ("gs://", "gcs://"):
            if path.startswith(prefix):
                path = f"{cls.root}/{path.removeprefix(prefix)}"
        return super()._strip_protocol(path)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Writes a file; with "create" in one step, content and all, that fails where there is one."""
        if mode != "create":
            super().pipe_file(path, value, mode=mode, **options)
            return
        target = Path(self._strip_protocol(path))
        draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        draft.write_bytes(value)
        try:
            os.link(draft, target)
        finally:
            draft.unlink()

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        """Moves one file, as a copy and a removal; folders cannot be moved in one step."""
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if Path(source).is_dir():
            raise NotImplementedError("a bucket has no folders to move")
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        Path(source).unlink()


def install(root: Path) -> None:
    """Makes `gs://` paths those of `root`, for this process."""
    FakeBuckets.root = root
    fsspec.register_implementation("gcs", FakeBuckets, clobber=True)
    fsspec.register_implementation("gs", FakeBuckets, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
