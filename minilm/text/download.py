"""Download a file and verify its SHA-256."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from minilm.errors import CorpusError, InputError
from minilm.files import atomic_writer
from minilm.progress import progress_bar

TIMEOUT_SECONDS = 30
BLOCK_BYTES = 2**16


def download(url: str, sha256: str, path: Path) -> None:
    """Fetch ``url`` to ``path``, atomically and only if its SHA-256 is ``sha256`` (hexadecimal).

    Raises CorpusError if the download fails or has another hash, InputError if ``path`` cannot be
    written; ``path`` is then unchanged.
    """
    try:
        response = urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        raise _failed(url, f"the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _failed(url, f"no connection ({error.reason})") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _failed(url, f"no connection ({error})") from None
    with response:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_writer(path) as stream:
                digest = hashlib.sha256()
                length = response.headers.get("Content-Length", "")
                expected = int(length) if length.isdigit() else None
                received = 0
                with progress_bar(total=expected, unit="B", unit_scale=True, desc=path.name) as bar:
                    while block := _read(response, url):
                        stream.write(block)
                        digest.update(block)
                        received += len(block)
                        bar.update(len(block))
                if expected is not None and received != expected:
                    raise _failed(url, f"the connection ended after {received} bytes of {expected}")
                if digest.hexdigest() != sha256:
                    raise _failed(
                        url, f"content with SHA-256 {digest.hexdigest()}", f"SHA-256 {sha256}"
                    )
        except OSError as error:
            raise InputError(
                path,
                f"cannot be written ({error.strerror or error})",
                "a writable folder with free space",
                "set MINILM_CACHE to one",
            ) from None


def _read(response: http.client.HTTPResponse, url: str) -> bytes:
    try:
        return response.read(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(url, f"the connection broke ({error or type(error).__name__})") from None


def _failed(url: str, got: str, expected: str = "a complete download") -> CorpusError:
    return CorpusError(url, got, expected, "or pass a local text file with --data FILE")
