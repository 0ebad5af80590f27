"""Downloads against a local server: a good file, and every way it can go wrong."""

import hashlib
import http.client
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from minilm.errors import CorpusError, InputError
from minilm.text import corpora
from minilm.text.download import download

BODY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 3000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[: len(BODY) // 2] if self.path == "/truncated" else BODY)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_good_file_arrives_whole(server, tmp_path, capfd):
    path = tmp_path / "new" / "text.txt"
    download(server.url + "/good", SHA256, path)
    assert path.read_bytes() == BODY
    assert [file.name for file in path.parent.iterdir()] == ["text.txt"]
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


@pytest.mark.parametrize(
    ("page", "sha256", "reason"),
    [
        ("/good", "0" * 64, f"content with SHA-256 {SHA256}"),
        ("/truncated", SHA256, f"ended after {len(BODY) // 2} bytes of {len(BODY)}"),
        ("/missing", SHA256, "the server answered 404"),
    ],
)
def test_a_bad_answer_is_one_line_and_leaves_the_old_file(server, tmp_path, page, sha256, reason):
    path = tmp_path / "text.txt"
    path.write_text("old")
    with pytest.raises(CorpusError, match=reason) as caught:
        download(server.url + page, sha256, path)
    assert "--data FILE" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_connection(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(CorpusError, match=r"no connection .*refused.*--data FILE"):
            download(url, SHA256, tmp_path / "text.txt")
    with pytest.raises(CorpusError, match="no connection"):
        download("nonsense", SHA256, tmp_path / "text.txt")


def test_a_connection_that_breaks(server, tmp_path, monkeypatch):
    def read(*_):
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(http.client.HTTPResponse, "read", read)
    with pytest.raises(CorpusError, match=r"the connection broke \(reset by peer\)"):
        download(server.url + "/good", SHA256, tmp_path / "text.txt")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written .*MINILM_CACHE"):
        download(server.url + "/good", SHA256, tmp_path / "file" / "text.txt")


def test_shakespeare_is_downloaded_once_and_again_when_damaged(server, tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "SHAKESPEARE_SHA256", SHA256)
    monkeypatch.setenv("MINILM_SHAKESPEARE_URL", server.url + "/good")
    for _ in range(2):
        corpus = corpora.open_corpus("shakespeare", cache=tmp_path)
        assert "".join(chunk.text for chunk in corpus.chunks()).encode() == BODY
    assert (corpus.name, corpus.source) == ("shakespeare", "shakespeare")
    assert server.requests == ["/good"]
    (tmp_path / "shakespeare.txt").write_text("damaged")
    corpora.open_corpus("shakespeare", cache=tmp_path)
    assert (tmp_path / "shakespeare.txt").read_bytes() == BODY
    assert server.requests == ["/good", "/good"]


def test_shakespeare_without_network_points_to_a_local_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MINILM_SHAKESPEARE_URL", "http://127.0.0.1:1/")
    with pytest.raises(CorpusError, match=r"no connection .*--data FILE"):
        corpora.open_corpus("shakespeare", cache=tmp_path)
