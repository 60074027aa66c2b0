"""``make_server``: a page served on this machine, from memory, by Python's own http.server.

It gives the files of the page and nothing else, and takes nothing. Not here: what is on the page (``site``).
"""

import errno
import hashlib
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from crispseg.errors import UsageError
from crispseg.web.site import Site

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}
HEADERS = {
    "Cache-Control": "no-cache",  # the next page on this port may be of another network
    "Cross-Origin-Opener-Policy": "same-origin",  # with the next one: memory that threads share
    "Cross-Origin-Embedder-Policy": "require-corp",
    "X-Content-Type-Options": "nosniff",
}
LOCAL = ("127.0.0.1", "localhost", "::1")


def make_server(site: Site, host: str = "127.0.0.1", port: int = 7860) -> ThreadingHTTPServer:
    """Return a server of a page that listens at ``host`` and ``port`` (0: any that is free); ``serve_forever`` runs it.

    At an address of this machine alone, it answers to that address's names only, so that no other site can read it
    through a name that it has made to mean this machine. UsageError if the port is in use or the host is none of here.
    """
    names = {*LOCAL, host} if host in LOCAL else None

    class Handler(_Handler):
        files, allowed = site, names

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return Server((host, port), Handler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} of {host} is in use; give another by --port") from error
        raise UsageError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from error


def address(server: ThreadingHTTPServer) -> str:
    """Where a browser on this machine finds the page."""
    host, port = server.server_address[:2]
    shown = "127.0.0.1" if host == "0.0.0.0" else f"[{host!s}]" if ":" in str(host) else host
    return f"http://{shown!s}:{port}/"


class _Handler(BaseHTTPRequestHandler):
    files: Site
    allowed: set[str] | None
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "crispseg", ""

    def do_GET(self) -> None:
        """Answer with a file of the page."""
        asked = urlsplit(self.path).path.lstrip("/") or "index.html"
        if self.allowed is not None and _host(self.headers.get("Host", "")) not in self.allowed:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"", {})
        elif asked not in self.files:
            self._answer(HTTPStatus.NOT_FOUND, b"no such file\n", {"Content-Type": "text/plain"})
        else:
            data = self.files[asked]
            tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            if self.headers.get("If-None-Match") == tag:
                self._answer(HTTPStatus.NOT_MODIFIED, b"", {"ETag": tag})
            else:
                kind = TYPES.get(PurePosixPath(asked).suffix, "application/octet-stream")
                self._answer(HTTPStatus.OK, data, {"Content-Type": kind, "ETag": tag})

    do_HEAD = do_GET  # noqa: N815 (http.server calls it by this name)

    def _answer(self, status: HTTPStatus, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**HEADERS, **headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal has the address, and it is to stay in sight."""


def _host(header: str) -> str:
    """The host in a Host header, without its port."""
    name = urlsplit(f"//{header}").hostname
    return name or ""
