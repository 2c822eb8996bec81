"""Where shards lie: a folder, or a bucket of S3 and what speaks its language (``AWS_ENDPOINT_URL``).

Whatever is written is there as a whole or not at all.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from cxrnet.core.atomic import whole_file
from cxrnet.errors import CxrnetError

S3 = "s3://"

_DENIED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")


class Storage(Protocol):
    """Files by their names below a root, which are paths with forward slashes.

    Its methods raise :class:`CxrnetError` where the storage can't be reached or read, and ``FileNotFoundError`` where
    it has no such file.
    """

    def read(self, name: str) -> bytes:
        """Read a small file."""
        ...

    def sizes(self, below: str) -> dict[str, int]:
        """List the files below a folder, with their lengths in bytes; none where there is no such folder."""
        ...

    def fetch(self, name: str, file: Path) -> None:
        """Copy a file to this disk."""
        ...

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """Store a file, which ``write`` writes to the path that it gets."""
        ...


def resolved(root: str) -> str:
    """Return a root as one storage is called in all manifests: absolute, without a slash at its end."""
    return S3 + root.removeprefix(S3).strip("/") if root.startswith(S3) else str(Path(root).resolve())


def storage_of(root: str) -> Storage:
    """Open the storage at a root, a folder or ``s3://<bucket>/<folder>``.

    Raises:
        CxrnetError: the root names no bucket, or boto3 isn't installed.
    """
    return _Bucket(root) if root.startswith(S3) else _Folder(Path(root))


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes:
        with _read(self.root / name):
            return (self.root / name).read_bytes()

    def sizes(self, below: str) -> dict[str, int]:
        folder = self.root / below
        with _read(folder):
            found = (path for path in folder.rglob("*") if path.suffix != ".partial" and path.is_file())
            return {path.relative_to(self.root).as_posix(): path.stat().st_size for path in found}

    def fetch(self, name: str, file: Path) -> None:
        with _read(self.root / name):
            shutil.copyfile(self.root / name, file)

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        try:
            with whole_file(self.root / name) as partial:
                write(partial)
        except OSError as error:
            raise CxrnetError(
                f"shards: '{self.root / name}' can't be written ({error.strerror}); give a folder that can, with room"
            ) from error


@contextmanager
def _read(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(str(path)) from error
    except OSError as error:
        raise CxrnetError(f"shards: '{path}' can't be read ({error.strerror}); get the right to read it") from error


class _Bucket:
    def __init__(self, root: str) -> None:
        self.bucket, _, folder = root.removeprefix(S3).strip("/").partition("/")
        self.prefix = f"{folder}/" if folder else ""
        if not self.bucket:
            raise CxrnetError(f"shards: '{root}' names no bucket; give s3://<bucket>/<folder>")
        _client(os.getpid())

    def read(self, name: str) -> bytes:
        with self._asked(name) as client:
            body: bytes = client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read()
            return body

    def sizes(self, below: str) -> dict[str, int]:
        with self._asked(below) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.prefix}{below}")
            listed = [each for page in pages for each in page.get("Contents", ())]
        return {each["Key"].removeprefix(self.prefix): each["Size"] for each in listed}

    def fetch(self, name: str, file: Path) -> None:
        with self._asked(name) as client, file.open("wb") as opened:
            shutil.copyfileobj(client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"], opened, 2**20)

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        with TemporaryDirectory(prefix="cxrnet-shard-") as scratch:
            file = Path(scratch) / "file"
            write(file)
            with self._asked(name) as client, file.open("rb") as opened:
                client.put_object(Bucket=self.bucket, Key=self.prefix + name, Body=opened)

    @contextmanager
    def _asked(self, name: str) -> Iterator[Any]:
        """Yield the client of this process; say in one line what it met."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        place = f"{S3}{self.bucket}/{self.prefix}{name}"
        try:
            yield _client(os.getpid())
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise CxrnetError(
                f"shards: '{place}': there are no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or AWS_PROFILE"
            ) from error
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if code in ("NoSuchKey", "404"):
                raise FileNotFoundError(place) from error
            if code == "NoSuchBucket":
                raise CxrnetError(f"shards: there is no bucket '{self.bucket}'; make it, or give another") from error
            what = "access is denied; see to the credentials and rights" if code in _DENIED else "S3 refuses"
            raise CxrnetError(f"shards: '{place}': {what} ({code})") from error
        except BotoCoreError as error:  # no connection, a name that nobody knows, a server that is silent
            raise CxrnetError(
                f"shards: '{place}': S3 can't be reached ({str(error).splitlines()[0]}); see to the network and "
                "AWS_ENDPOINT_URL"
            ) from error


@cache
def _client(process: int) -> Any:  # noqa: ANN401, ARG001 (boto3 makes its classes as it runs; the key of the cache)
    """Make the client of a process; a worker that was forked must not use that of its parent."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise CxrnetError("shards: S3 needs boto3; pip install 'cxrnet[s3]'") from error
    settings = Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 4, "mode": "standard"})
    return boto3.session.Session().client("s3", config=settings)
