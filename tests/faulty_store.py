"""An S3 server on this machine, and a proxy in front of it that cuts, lies and dawdles."""

from __future__ import annotations

import http.client
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Fault = Callable[[str, str], str]
"""What goes wrong with a request, by its method and path; nothing if it is empty."""


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on; `fault` says what is to go wrong, `seen` what was asked for."""

    daemon_threads = True

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server, self.seen = server, list[str]()
        self.fault: Fault = lambda method, path: ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # whoever was to read it has gone

    def fails(self, times: int, method: str, kind: str, name: str = "") -> None:
        """Lets so many requests of a method go wrong, of objects with a name in their path."""
        left = [times]

        def fault(one: str, path: str) -> str:
            if one != method or name not in path or not left[0]:
                return ""
            left[0] -= 1
            return kind

        self.fault = fault


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: Any) -> None:
        pass

    def _pass_on(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        kind = self.server.fault(self.command, self.path)
        body = self._body()
        if kind == "cut" and self.command == "PUT":
            self.close_connection = True
            return
        if kind == "refused":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if kind == "slow":
            time.sleep(1.5)
        if kind == "wrong" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        server = http.client.HTTPConnection(*self.server.server)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"}
        if kind == "wrong":
            headers = {k: v for k, v in headers.items() if "checksum" not in k.lower()}
        server.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
        answer = server.getresponse()
        data = answer.read()
        server.close()
        self._answer(answer, data, kind)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _answer(self, answer: http.client.HTTPResponse, data: bytes, kind: str) -> None:
        length = answer.headers.get("Content-Length") or str(len(data))
        if kind == "short":
            data = data[: len(data) // 2]
            length = str(len(data))
        if kind == "wrong" and self.command == "GET":
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            lower = name.lower()
            if lower in ("content-length", "transfer-encoding", "connection", "server", "date"):
                continue
            if kind in ("short", "wrong") and "checksum" in lower:
                continue
            self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if kind == "cut" else data)
        if kind == "cut":
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815


@contextmanager
def s3_behind_proxy() -> Iterator[Proxy]:
    """An S3 server with the bucket `bucket`, behind a proxy."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port())
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "key", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=proxy.address, **keys).create_bucket(Bucket="bucket")
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.stop()
