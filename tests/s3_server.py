"""An S3 server on loopback; import `s3_bucket` and `s3_server`, and the fixture `s3` is the URL of
an empty bucket for any process.
"""

import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "photos"


@pytest.fixture(scope="session", name="s3_endpoint")
def s3_server() -> Iterator[str]:
    """The address of a server that runs as long as the tests."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(name="s3")
def s3_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket; keys, region and endpoint are in the environment."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(
        urllib.request.Request(f"{s3_endpoint}/moto-api/reset", method="POST"), timeout=10
    ).close()
    s3_client().create_bucket(Bucket=BUCKET)
    return f"s3://{BUCKET}"


def s3_client() -> Any:
    """Return a client of the server that the environment names."""
    return boto3.client("s3")


def put(objects: dict[str, bytes]) -> None:
    """Store objects by key."""
    client = s3_client()
    for key, data in objects.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=data)
