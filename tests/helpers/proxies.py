"""A real nginx or Caddy before a server of the tests."""

import http.client
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.processes import running

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
CADDY = shutil.which(
    "caddy", path=os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
)
_CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {server}
}}
"""


@contextmanager
def running_nginx(folder: Path, server: str, port: int) -> Iterator[None]:
    """Run nginx with one server block until the end of the block; ``port`` is where it listens."""
    assert NGINX is not None
    file = folder / "nginx.conf"
    file.write_text(_CONFIGURATION.format(folder=folder, server=server), encoding="utf-8")
    command = [NGINX, "-p", str(folder), "-c", str(file), "-e", "stderr"]
    with running(command, folder, port):
        yield


@contextmanager
def running_caddy(folder: Path, site: str, port: int) -> Iterator[None]:
    """Run Caddy with one site until the end of the block; ``port`` is where it listens."""
    assert CADDY is not None
    file = folder / "Caddyfile"
    # nothing but the site: no administration, no certificates of others, no redirects
    options = "{\n admin off\n auto_https off\n default_sni photos.example\n}"
    file.write_text(f"{options}\n{site}", encoding="utf-8")
    command = [CADDY, "run", "--config", str(file), "--adapter", "caddyfile"]
    with running(command, folder, port, HOME=str(folder), XDG_DATA_HOME=str(folder / "data")):
        yield


def make_certificate(folder: Path) -> None:
    """Write a certificate and its key for photos.example."""
    names = ("-keyout", folder / "photos.key", "-out", folder / "photos.crt")
    subject = ("-subj", "/CN=photos.example", "-days", "2")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *subject],
        check=True,
        capture_output=True,
    )


def through(port: int, *, tls: bool = False) -> http.client.HTTPConnection:
    """Return a connection to nginx."""
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
