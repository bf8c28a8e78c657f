"""Pictures that a request names: data URLs, files below one folder, and public addresses where allowed.

What a request names is not trusted. Files are read below the folder the server was started with, whatever
links and dots lead elsewhere; an address is looked up once, refused unless it is public, and connected to as
it was looked up, so that a name can not lead to another place the second time; redirects are not followed.
A picture's size is read from its header before a pixel is decoded, and only common formats are opened.
"""

import base64
import binascii
import http.client
import io
import ipaddress
import os
import pathlib
import socket
import ssl
import stat
import urllib.parse
import warnings

from PIL import Image

from dig_jax.serve.errors import Refused
from dig_jax.serve.settings import MEGABYTE, ServeSettings

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # what PIL reads itself: no EPS, which runs a program
FETCH_SECONDS = 10.0
_EMBEDDING = ipaddress.ip_network("64:ff9b::/96")  # addresses of IPv4 that a gateway translates


def load(url: str, param: str, settings: ServeSettings) -> bytes:
    """The bytes of a picture file, of an allowed format and number of pixels.

    Args:
      url: `data:`, `file://`, or `http(s)://`.
      param: where in the request it stands, for errors.
      settings: of the server.

    Raises:
      Refused: it is not allowed, not there, no picture (400), or too large (413).
    """
    scheme = url[:8].partition(":")[0].lower()
    if scheme == "data":
        data = _of_data(url, param)
    elif scheme == "file":
        data = _of_file(url, param, settings)
    elif scheme in ("http", "https"):
        data = _of_address(url, param, settings)
    else:
        raise _refused("expected a URL that begins with data:, file:// or https://", param)
    _check(data, param, settings)
    return data


def _refused(message: str, param: str) -> Refused:
    return Refused(400, f"{param}: {message}", "invalid_image_url", param)


def _of_data(url: str, param: str) -> bytes:
    head, comma, payload = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise _refused("expected data:image/png;base64,... (or another kind of picture)", param)
    if "%" in payload:
        payload = urllib.parse.unquote(payload)
    try:
        return base64.b64decode("".join(payload.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"not base64 ({error})", param) from None


def _of_file(url: str, param: str, settings: ServeSettings) -> bytes:
    root = settings.image_root
    if root is None:
        raise _refused("file:// pictures are read where the server was started with --image_root", param)
    parsed = urllib.parse.urlsplit(url)
    path = urllib.parse.unquote(parsed.path)
    if parsed.netloc not in ("", "localhost") or "\0" in path:
        raise _refused("expected file:///path/of/the/picture", param)
    real, inside = os.path.realpath(path), os.path.realpath(root)
    if not pathlib.PurePath(real).is_relative_to(inside):  # the same words whether or not it is there
        raise _refused("this file is not below the folder of --image_root", param)
    try:
        # Not through a link that was put there meanwhile, and without waiting for a pipe.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(f"the file can not be opened ({error.strerror})", param) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _refused("not a file", param)
    with open(descriptor, "rb") as file:
        if status.st_size > settings.max_body_mb * MEGABYTE:
            raise _too_many_bytes(param, settings)
        return file.read(status.st_size)


def _too_many_bytes(param: str, settings: ServeSettings) -> Refused:
    return Refused(
        413,
        f"{param}: the picture is larger than {settings.max_body_mb:g} MB (--max_body_mb)",
        "image_too_large",
        param,
    )


def _of_address(url: str, param: str, settings: ServeSettings) -> bytes:
    if not settings.remote_images:
        raise _refused(
            "pictures are not fetched from addresses (the server was started without --remote_images): send"
            " data:image/png;base64,...",
            param,
        )
    try:
        parsed = urllib.parse.urlsplit(url)
        secure = parsed.scheme.lower() == "https"
        host, port = parsed.hostname, parsed.port or (443 if secure else 80)
        target = urllib.parse.quote(parsed.path or "/", safe="/%:@!$&'()*+,;=~-._")
        target += f"?{parsed.query}" if parsed.query else ""
        if not host or parsed.username is not None or not target.isprintable() or " " in target:
            raise ValueError("expected https://host/path")
    except ValueError as error:
        raise _refused(f"not an address ({error})", param) from None
    try:
        address = _public_address(host, port)
        connection = _Connection(host, port, address, secure)
        try:
            connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "dig_jax"})
            answer = connection.getresponse()
            if answer.status != 200:  # redirects too: they could lead anywhere
                raise _refused(f"{host} answered with status {answer.status}", param)
            most = int(settings.max_body_mb * MEGABYTE)
            data = answer.read(most + 1)
        finally:
            connection.close()
    except _NotPublic:
        raise _refused(f"{host} is no public address", param) from None
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise _refused(f"it can not be fetched from {host} ({type(error).__name__})", param) from None
    if len(data) > most:
        raise _too_many_bytes(param, settings)
    return data


class _NotPublic(Exception):
    """An address in this machine, its network, or one of no use."""


def is_public(address: str) -> bool:
    """Whether an IP address is of the internet: not private, loopback or link-local, nor made of one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        for inner in (ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())):
            if inner is not None and not is_public(str(inner)):
                return False
        if ip in _EMBEDDING:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast


def _public_address(host: str, port: int) -> str:
    """An address of a host, looked up once. Raises _NotPublic where one of them is not public."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not found or not all(map(is_public, found)):
        raise _NotPublic
    return found[0]


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was looked up before, for a host of that name."""

    def __init__(self, host: str, port: int, address: str, secure: bool):
        super().__init__(host, port, timeout=FETCH_SECONDS)
        self._address = address
        self._secure = secure

    def connect(self) -> None:
        """Connects to the address."""
        self.sock = socket.create_connection((self._address, self.port), FETCH_SECONDS)
        if self._secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _check(data: bytes, param: str, settings: ServeSettings) -> None:
    """Refuses what is no picture of an allowed format, or has too many pixels; decodes nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is the server's own
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        width, height = settings.max_image_pixels, 2
    except Exception as error:  # PIL's readers raise OSError, SyntaxError, ValueError, struct.error, ...
        raise _refused(f"no readable picture of the kinds {', '.join(FORMATS)} ({error})", param) from None
    if width * height > settings.max_image_pixels:
        raise Refused(
            413,
            f"{param}: the picture has more than {settings.max_image_pixels} pixels (--max_image_pixels)",
            "image_too_large",
            param,
        )
