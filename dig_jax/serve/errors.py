"""Refusals as OpenAI's clients read them: a status, and a JSON object that says what to change."""

from typing import Any

from starlette.responses import JSONResponse

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class Refused(Exception):
    """A request that is not answered.

    Attributes:
      status: of HTTP.
      code: for programs, in snake case.
      param: the part of the request that is wrong; None where it is none of them.
    """

    def __init__(self, status: int, message: str, code: str, param: str | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


def as_json(refused: Refused) -> dict[str, Any]:
    """The body of an error."""
    kind = _TYPES.get(refused.status, "server_error" if refused.status >= 500 else "invalid_request_error")
    return {"error": {"message": str(refused), "type": kind, "param": refused.param, "code": refused.code}}


def response(refused: Refused) -> JSONResponse:
    """The error as a response; who came too early is told when to come again."""
    headers = {"Retry-After": "1"} if refused.status in (429, 503) else None
    return JSONResponse(as_json(refused), refused.status, headers)
