"""What a server allows: the flags of the command, checked."""

import dataclasses
import pathlib

MEGABYTE = 2**20
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """What is served to whom, and how much of it.

    Attributes:
      name: of the model, as clients ask for it.
      host: address to listen at.
      image_root: folder below which `file://` pictures are read; None refuses them.
      remote_images: whether pictures are fetched from public http(s) addresses.
      max_body_mb: of a request, in MB of 2^20 bytes.
      max_held_mb: of all requests together: bodies that are read, and pictures until they are answered.
      max_image_pixels: of a picture, known from its header.
      max_images: of a request.
      max_choices: answers to a request (`n`).
      waiting: requests that may wait for a row.
      timeout_seconds: from the first byte of a request to the last of its answer.
      body_seconds: in which a request must have come in.
      api_key: that clients must send; "" for none.
    """

    name: str
    host: str = "127.0.0.1"
    image_root: pathlib.Path | None = None
    remote_images: bool = False
    max_body_mb: float = 32
    max_held_mb: float = 1024
    max_image_pixels: int = 33_554_432
    max_images: int = 16
    max_choices: int = 16
    waiting: int = 128
    timeout_seconds: float = 600
    body_seconds: float = 60
    api_key: str = ""

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if not isinstance(value, bool) and isinstance(value, int | float) and not value > 0:
                raise ValueError(f"--{key}={value}: expected more than 0")
        if self.max_held_mb < self.max_body_mb:
            raise ValueError(
                f"--max_held_mb={self.max_held_mb:g} is less than --max_body_mb={self.max_body_mb:g}: no"
                " request of that size could be read"
            )
        if self.image_root is not None and not self.image_root.is_dir():
            raise ValueError(f"--image_root={self.image_root}: no such folder")

    @property
    def host_names(self) -> tuple[str, ...] | None:
        """Names that requests may ask for in `Host`; None: any.

        At the loopback address a page of the web could otherwise reach the server through a name of its own
        that leads there.
        """
        return LOOPBACK if self.host in LOOPBACK else None
