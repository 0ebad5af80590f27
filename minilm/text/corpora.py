"""Corpora: the sources of `--data`, as ordered sets of documents that can be streamed repeatedly.

Only the current chunk is in memory, so a corpus may be larger than memory. Sources yield raw bytes,
which `Corpus.chunks` decodes and cleans.
"""

from __future__ import annotations

import difflib
import functools
import glob
import hashlib
import importlib
import importlib.util
import os
import re
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minilm.errors import CorpusError, InputError, MissingExtraError
from minilm.text.chunking import split_into_chunks
from minilm.text.cleaning import clean, ordered_steps
from minilm.text.download import download
from minilm.text.utf8 import decode

BLOCK_BYTES = 2**20

NAMED_SOURCES = ("stdlib", "shakespeare")

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@dataclass(frozen=True)
class Document:
    """The raw bytes of one document, in blocks; ``where`` names it in messages."""

    where: str
    blocks: Iterable[bytes]


@dataclass(frozen=True)
class Chunk:
    """A non-empty chunk of a document's cleaned text; `minilm.text.chunking` chooses its end."""

    text: str
    ends_document: bool


@dataclass(frozen=True)
class Corpus:
    """An ordered set of documents.

    ``name`` is a valid folder name; ``source`` is the user's text; ``cleaning`` are the steps in the
    order of application; ``documents`` starts a new pass over the raw bytes.
    """

    name: str
    source: str
    cleaning: tuple[str, ...]
    documents: Callable[[], Iterator[Document]]

    def chunks(self, observe: Callable[[bytes], object] | None = None) -> Iterator[Chunk]:
        """Yield the cleaned text, the same in each call; documents without text are skipped.

        ``observe`` is called with every raw block that is read.
        Raises CorpusError for a file that cannot be read or is not text.
        """
        for document in self.documents():
            blocks = document.blocks if observe is None else _observe(document.blocks, observe)
            text = decode(
                blocks,
                document.where,
                replace_invalid="encoding" in self.cleaning,
                allow_nul="control" in self.cleaning,
            )
            previous = None
            for chunk in split_into_chunks(clean(text, self.cleaning)):
                if previous is not None:
                    yield Chunk(previous, ends_document=False)
                previous = chunk
            if previous is not None:
                yield Chunk(previous, ends_document=True)


def open_corpus(source: str, *, cleaning: Sequence[str] = (), cache: Path) -> Corpus:
    """Resolve ``source``: reads file names and sizes, and downloads where necessary.

        stdlib              the running Python's own library sources
        shakespeare         tinyshakespeare, downloaded once to ``cache``/shakespeare.txt
        hf:NAME[:CONFIG]    column "text" of a Hugging Face dataset's train split, or hf:FOLDER
        FILE                one document
        FOLDER              every file below it except hidden ones, by relative path
        GLOB                every file that matches, sorted; ** matches any number of folders

    Names have priority: write ./stdlib for a file named stdlib.
    Raises CorpusError where the source is missing, empty or unreadable, InputError for an unknown
    cleaning step, MissingExtraError where a package is missing.
    """
    steps = ordered_steps(cleaning)
    if source == "stdlib":
        return _from_files("stdlib", source, steps, _stdlib_files())
    if source == "shakespeare":
        return _from_files("shakespeare", source, steps, [_shakespeare_file(cache)])
    if source.startswith("hf:"):
        return _from_hugging_face(source, steps)
    if not source or "\0" in source:
        raise CorpusError("--data", repr(source), "a source", _SOURCES_HINT)
    # os.path, not pathlib: its tests are False for a name that is too long or not permitted.
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        files = _files_below(path)
        if not files:
            raise CorpusError(source, "a folder without files", "text files", _SOURCES_HINT)
        return _from_files(path.resolve().name, source, steps, files)
    if os.path.isfile(path):
        return _from_files(path.stem, source, steps, [path])
    if os.path.exists(path):
        raise CorpusError(
            source,
            "not a regular file",
            "a file, which can be read more than once",
            "save the text to a file first",
        )
    if any(character in source for character in "*?["):
        matches = sorted(glob.glob(str(path), recursive=True))
        files = [Path(match) for match in matches if os.path.isfile(match)]
        if not files:
            raise CorpusError(
                source, "a pattern that matches no file", "text files", "quote it from the shell"
            )
        folders = [name for name in path.parts if not any(c in name for c in "*?[")]
        return _from_files(Path(*folders).resolve().name, source, steps, files)
    similar = difflib.get_close_matches(source, NAMED_SOURCES, n=1)
    raise CorpusError(
        source,
        "no such file or folder",
        "a source of text",
        f"did you mean {similar[0]}?" if similar else _SOURCES_HINT,
    )


_SOURCES_HINT = "--data takes stdlib, shakespeare, hf:NAME, a file, a folder or a glob"


def _from_files(name: str, source: str, cleaning: tuple[str, ...], files: list[Path]) -> Corpus:
    try:
        empty = not any(file.stat().st_size for file in files)
    except OSError as error:
        raise _unreadable(error.filename, error) from None
    if empty:
        got = "an empty file" if len(files) == 1 else f"{len(files)} empty files"
        raise CorpusError(source, got, "text", _SOURCES_HINT)
    return Corpus(_slug(name), source, cleaning, functools.partial(_file_documents, files))


def _file_documents(files: list[Path]) -> Iterator[Document]:
    for file in files:
        yield Document(str(file), _file_blocks(file))


def _file_blocks(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: object, error: OSError) -> CorpusError:
    return CorpusError(
        file,
        f"cannot be read ({error.strerror or error})",
        "a readable file",
        "fix it or leave it out with a glob",
    )


def _observe(blocks: Iterable[bytes], observe: Callable[[bytes], object]) -> Iterator[bytes]:
    for block in blocks:
        observe(block)
        yield block


def _files_below(folder: Path, without: Collection[str] = ()) -> list[Path]:
    """Files sorted by relative path, except hidden ones and those in folders named in ``without``."""

    def fail(error: OSError) -> None:
        raise _unreadable(error.filename, error)

    files = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in without]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    files = [file for file in files if os.path.isfile(file)]
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix())


# Installed packages (on Debian in dist-packages) differ between machines, and tests contain files that
# are broken on purpose.
_NOT_STDLIB = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}
)


def _stdlib_files() -> list[Path]:
    folder = Path(sysconfig.get_path("stdlib"))
    files = [
        file
        for file in _files_below(folder, without=_NOT_STDLIB)
        if file.suffix == ".py" and _is_text(file)
    ]
    if not files:
        raise CorpusError(
            "stdlib",
            f"no Python sources in {folder}",
            "the running Python's library",
            "pass text of your own with --data FILE",
        )
    return files


def _is_text(file: Path) -> bool:
    try:
        for _ in decode(_file_blocks(file), str(file)):
            pass
    except CorpusError:
        return False
    return True


def _shakespeare_file(cache: Path) -> Path:
    path = cache / "shakespeare.txt"
    if not path.is_file() or _sha256(path) != SHAKESPEARE_SHA256:
        url = os.environ.get("MINILM_SHAKESPEARE_URL", SHAKESPEARE_URL)
        download(url, SHAKESPEARE_SHA256, path)
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _file_blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _from_hugging_face(source: str, cleaning: tuple[str, ...]) -> Corpus:
    name, configuration = source.removeprefix("hf:"), ""
    if not os.path.exists(name):
        name, _, configuration = name.partition(":")
    if not name:
        raise CorpusError(source, "no dataset name", "hf:NAME or hf:NAME:CONFIG")
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError("datasets", "datasets", source)
    full_name = "-".join(word for word in (Path(name).resolve().name, configuration) if word)
    documents = functools.partial(_hugging_face_documents, source, name, configuration or None)
    return Corpus(_slug(full_name), source, cleaning, documents)


def _hugging_face_documents(
    source: str, name: str, configuration: str | None
) -> Iterator[Document]:
    datasets = importlib.import_module("datasets")
    number = 0
    try:
        rows = datasets.load_dataset(name, configuration, split="train", streaming=True)
        for number, row in enumerate(rows):
            text = row.get("text")
            if not isinstance(text, str):
                got = (
                    f"a column text of {type(text).__name__}"
                    if "text" in row
                    else "the columns " + ", ".join(map(str, row))
                )
                raise CorpusError(
                    f"{source} row {number}",
                    got,
                    "a column text of strings",
                    "export the text to files and pass their folder",
                )
            yield Document(f"{source} row {number}", [text.encode()])
    except InputError:
        raise
    # The library and its network code raise exceptions without a common base class.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CorpusError(
            f"{source} row {number}" if number else source,
            f"{type(error).__name__} ({reason})",
            "a dataset with a train split that can be read",
            "check its name and configuration (hf:NAME:CONFIG) and the network",
        ) from error


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
