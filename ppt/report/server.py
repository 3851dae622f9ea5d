"""The desk over HTTP, for the browser on this machine alone.

It listens on 127.0.0.1. Every path begins with a token that nobody else knows; the Host must be this very
one, so that no foreign name can be pointed here; a request from a page of another origin is refused, and none
is ever told that it may. Of the disk it hands out the files beside the page, by their names.
"""

import hmac
import json
import secrets
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ppt.report.desk import Desk, Refused
from ppt.report.sidecars import OURS

LOOPBACK = "127.0.0.1"
LARGEST = 4_000_000
"""Bytes of a request: a mask of many parts has some."""
_TYPES = {"js": "text/javascript; charset=utf-8", "jpg": "image/jpeg"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TIMEOUT = 30


class Server(ThreadingHTTPServer):
    """Serves one desk and its page at `url`. port: 0 takes a free one. Raises OSError where it is taken."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, desk: Desk, page: bytes, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        self.desk = desk
        self.page = page
        super().__init__((LOOPBACK, port), _Handler)
        self.place = f"{LOOPBACK}:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """What to open in a browser."""
        return f"http://{self.place}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "ppt", ""
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        folder, _, name = path.rpartition("/")
        files = self.server.desk.files
        if path == "":
            self._answer(200, "text/html; charset=utf-8", self.server.page)
        elif path == "review":
            self._answer(200, "application/jsonl", self.server.desk.decisions())
        elif folder == files.name and OURS.fullmatch(name) and (files / name).is_file():
            self._answer(200, _TYPES[name.rpartition(".")[2]], (files / name).read_bytes())
        else:
            self._refuse(404, "there is nothing here")

    def do_POST(self) -> None:
        path = self._path()
        if path is None:
            return
        desk = self.server.desk
        known: dict[str, Callable[[Any], Any]] = {"decide": desk.decide, "mask": desk.masks}
        if self.headers.get("Origin") != f"http://{self.server.place}":
            self._refuse(403, "only the page itself may ask this")
        elif path not in known:
            self._refuse(404, "there is nothing here")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(415, "expected JSON")
        else:
            self._do(known[path])

    def _do(self, what: Callable[[Any], Any]) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > LARGEST:
            return self._refuse(413, f"expected at most {LARGEST} bytes")
        try:
            answer = what(json.loads(self.rfile.read(int(length))))
        except (Refused, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            self._refuse(400, str(error))
        except OSError as error:
            self._refuse(500, str(error))
        else:
            self._answer(200, "application/json", json.dumps(answer).encode())

    def _path(self) -> str | None:
        """What is asked for, without the token; None where the request was refused."""
        host, site = self.headers.get("Host"), self.headers.get("Sec-Fetch-Site", "none")
        _, token, *rest = [*self.path.split("/", 2), ""][:3]
        if host != self.server.place:
            self._refuse(403, "this is not the host that was asked for")
        elif site not in ("none", "same-origin"):
            self._refuse(403, "another page may not ask this")
        elif not hmac.compare_digest(token.encode(), self.server.token.encode()) or "/" not in self.path[1:]:
            self._refuse(404, "there is nothing here")
        else:
            return "".join(rest)
        return None

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True
        self._answer(status, "application/json", json.dumps({"error": why}).encode())

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the path holds the token."""
