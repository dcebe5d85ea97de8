"""A client of the S3 server on loopback that the fixture `s3` starts (conftest.py)."""

from typing import Any

import boto3

BUCKET = "photos"


def s3_client() -> Any:
    """Return a client of the server that the environment names."""
    return boto3.client("s3")


def put(objects: dict[str, bytes]) -> None:
    """Store objects by key."""
    client = s3_client()
    for key, data in objects.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=data)
