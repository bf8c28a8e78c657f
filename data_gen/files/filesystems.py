"""Files of folders and buckets, through Beam."""

import tempfile
from pathlib import Path

from apache_beam.io.filesystems import FileSystems


def write(path: str, data: bytes) -> None:
    """Writes a file that is either absent or whole: under another name first where there are folders."""
    if "://" in path:  # an object in a bucket appears when it is complete
        with FileSystems.create(path) as file:
            file.write(data)
        return
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as temporary:
        temporary.write(data)
    Path(temporary.name).replace(path)
