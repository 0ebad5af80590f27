"""The sources of `--data`, opened as a `Corpus`: files, folders, globs, named texts, datasets of the Hub."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import glob
import hashlib
import itertools
import json
import math
import os
import re
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minilm.errors import CorpusError, InputError
from minilm.text import records
from minilm.text.cleaning import ordered_steps
from minilm.text.corpus import Corpus, Document
from minilm.text.decoding import decode
from minilm.text.deduplication import Mode, find_duplicates, method
from minilm.text.download import download
from minilm.text.file_bytes import file_pieces, unreadable
from minilm.text.hugging_face import HubDataset, parse_source
from minilm.text.tar import TAR, tar_documents

LONGEST_NAME = 100  # of a mixture, as a folder's name

NAMED_SOURCES = ("stdlib", "shakespeare")

MIXTURE = "mix:"

SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def open_corpus(
    source: str,
    *,
    cleaning: Sequence[str] = (),
    cache: Path,
    text_field: str | None = None,
    raw_text: bool = False,
    dedup: Mode | None = None,
) -> Corpus:
    """Resolve ``source``: reads file names and sizes, and downloads where necessary.

        stdlib              the running Python's own library sources
        shakespeare         tinyshakespeare, downloaded once to ``cache``/shakespeare.txt
        hf:NAME[:CONFIG]    a Hugging Face dataset; see `minilm.text.hugging_face`
        FILE                one document, or those in its records, or between its separators
        TAR                 the .txt, .json and .jsonl files in it, each as one would be
        FOLDER              every file below it except hidden ones, by relative path
        GLOB                every file that matches, sorted; ** matches any number of folders
        mix:SOURCE=WEIGHT;...   several of them, with how often each is drawn from

    With ``dedup`` documents that are there before are left out (`minilm.text.deduplication`).

    Names have priority: write ./stdlib for a file named stdlib. What ends in .json, .csv or .tsv is
    plain text among files of other kinds, unless ``text_field`` is given.
    Raises CorpusError where the source is missing, empty or unreadable, InputError for an unknown
    cleaning step, MissingExtraError where a package is missing.
    """
    if dedup is not None:
        corpus = open_corpus(
            source, cleaning=cleaning, cache=cache, text_field=text_field, raw_text=raw_text
        )
        return _without_duplicates(corpus, dedup)
    if raw_text and text_field is not None:
        raise InputError("--text-field", "given with --raw-text", "one of the two")
    opened = Corpus("", source, ordered_steps(cleaning), lambda: iter([]), text_field, raw_text)
    if not isinstance(source, str):
        raise CorpusError("--data", repr(source), "a source", _SOURCES_HINT)
    if source == "stdlib":
        return _from_files("stdlib", opened, _stdlib_files())
    if source == "shakespeare":
        return _from_files("shakespeare", opened, [_shakespeare_file(cache)])
    if source.startswith("hf:"):
        return _from_hub(source, opened, cache)
    if source.startswith(MIXTURE):
        return _mixture(opened, cache)
    return _from_path(source, opened)


def _from_path(source: str, opened: Corpus) -> Corpus:
    """A file, a folder or a pattern."""
    if not source or "\0" in source:
        raise CorpusError("--data", repr(source), "a source", _SOURCES_HINT)
    # os.path, not pathlib: its tests are False for a name that is too long or not permitted.
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        files = _files_below(path)
        if not files:
            raise CorpusError(source, "a folder without files", "text files", _SOURCES_HINT)
        return _from_files(path.resolve().name, opened, files)
    if os.path.isfile(path):
        return _from_files(path.stem, opened, [path])
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
        return _from_files(Path(*folders).resolve().name, opened, files)
    similar = difflib.get_close_matches(source, NAMED_SOURCES, n=1)
    unweighted = source.rpartition("=")[0]
    similar = [unweighted] if unweighted and os.path.exists(unweighted) else similar
    raise CorpusError(
        source,
        "no such file or folder",
        "a source of text",
        f"did you mean {similar[0]}?" if similar else _SOURCES_HINT,
    )


_SOURCES_HINT = "--data takes stdlib, shakespeare, hf:NAME, a file, a folder, a glob or mix:"


def parse_mixture(source: str) -> list[tuple[str, float]]:
    """The sources in mix:SOURCE=WEIGHT;..., and their weights. Raises CorpusError for another form."""
    parts = []
    for part in source.removeprefix(MIXTURE).split(";"):
        name, _, text = part.strip().rpartition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not name or not 0 < weight < math.inf or name.startswith(MIXTURE):
            expected = "SOURCE=WEIGHT SOURCE=WEIGHT, or in quotes 'mix:SOURCE=WEIGHT;SOURCE=WEIGHT'"
            raise CorpusError(source, repr(part), f"{expected}, each weight a number above 0")
        parts.append((name, weight))
    names = [absolute_source(name) for name, _ in parts]
    if twice := next((name for k, name in enumerate(names) if name in names[:k]), None):
        raise CorpusError(source, f"{twice} twice", "each source once, with the sum of its weights")
    if sum(weight for _, weight in parts) == math.inf:
        raise CorpusError(source, "weights whose sum is no number", "smaller ones in proportion")
    return parts


def sources_in(source: str) -> list[str]:
    """Those of a mixture, else the source itself. Raises as `parse_mixture`."""
    is_mixture = source.startswith(MIXTURE)
    return [name for name, _ in parse_mixture(source)] if is_mixture else [source]


def absolute_source(name: str) -> str:
    """A source as it is found from any folder: a path made absolute, a name as it is."""
    if name.startswith(MIXTURE):
        parts = (
            f"{absolute_source(part)}={repr(weight).removesuffix('.0')}"  # exactly, as it is resumed
            for part, weight in parse_mixture(name)
        )
        return MIXTURE + ";".join(parts)
    if name in NAMED_SOURCES:
        return name
    if name.startswith("hf:"):
        folder, comma, options = name.removeprefix("hf:").partition(",")
        return f"hf:{os.path.abspath(folder)}{comma}{options}" if os.path.exists(folder) else name
    return os.path.abspath(os.path.expanduser(name))


def is_same_source(one: str, other: str, *, by_weight: bool = True) -> bool:
    """Whether both name the same text: of mixtures in any order, and with weights in proportion.

    ``by_weight``: whether weights matter.
    """
    if not (one.startswith(MIXTURE) and other.startswith(MIXTURE)):
        return absolute_source(one) == absolute_source(other)
    first, second = _shares(one), _shares(other)
    return first.keys() == second.keys() and (
        not by_weight or all(math.isclose(share, second[name]) for name, share in first.items())
    )


def _shares(mixture: str) -> dict[str, float]:
    parts = parse_mixture(mixture)
    total = sum(weight for _, weight in parts)
    return {absolute_source(name): weight / total for name, weight in parts}


def _mixture(corpus: Corpus, cache: Path) -> Corpus:
    parts = tuple(
        (
            open_corpus(
                name,
                cleaning=corpus.cleaning,
                cache=cache,
                text_field=corpus.text_field,
                raw_text=corpus.raw_text,
            ),
            weight,
        )
        for name, weight in parse_mixture(corpus.source)
    )
    return dataclasses.replace(
        corpus,
        name="-".join(part.name for part, _ in parts)[:LONGEST_NAME],
        documents=lambda: itertools.chain.from_iterable(part.documents() for part, _ in parts),
        parts=parts,
    )


def _without_duplicates(corpus: Corpus, mode: Mode) -> Corpus:
    """They are found when the text is first read: of a mixture, in all of its parts."""
    parts = [part for part, _ in corpus.parts]
    find = functools.cache(lambda: find_duplicates(parts or [corpus], mode))
    dedup = method(mode)

    def of_part(number: int) -> NDArray[np.bool_]:
        return find()[number]

    return dataclasses.replace(
        corpus,
        dedup=dedup,
        duplicates=lambda: np.concatenate(find()),
        parts=tuple(
            (
                dataclasses.replace(
                    part, dedup=dedup, duplicates=functools.partial(of_part, number)
                ),
                weight,
            )
            for number, (part, weight) in enumerate(corpus.parts)
        ),
    )


def _from_files(name: str, corpus: Corpus, files: list[Path]) -> Corpus:
    try:
        empty = not any(file.stat().st_size for file in files)
    except OSError as error:
        raise unreadable(error.filename, error) from None
    if empty:
        got = "an empty file" if len(files) == 1 else f"{len(files)} empty files"
        raise CorpusError(corpus.source, got, "text", _SOURCES_HINT)
    formats = [] if corpus.raw_text else _formats(files, corpus.text_field)
    has_records = any(formats) or any(file.suffix.lower() == TAR for file in files)
    if corpus.text_field is not None and not has_records:
        raise CorpusError(
            corpus.source,
            f"--text-field {corpus.text_field} with plain text",
            f"files that end in {', '.join(records.FORMATS)}",
        )
    return dataclasses.replace(
        corpus,
        name=_slug(name),
        documents=functools.partial(_file_documents, files, formats or [""] * len(files)),
    )


def _formats(files: list[Path], text_field: str | None) -> list[str]:
    """Each file's format of records, "" for plain text."""
    endings = [file.suffix.lower() for file in files]
    alike = len(set(endings)) == 1
    return [
        records.FORMATS.get(ending, "")
        if alike or text_field is not None or ending in records.ALWAYS_RECORDS
        else ""
        for ending in endings
    ]


def _file_documents(files: list[Path], formats: list[str]) -> Iterator[Document]:
    for file, format in zip(files, formats, strict=True):
        if file.suffix.lower() == TAR:
            yield from tar_documents(file)
        else:
            yield Document(str(file), file_pieces(file), format)


def _files_below(folder: Path, without: Collection[str] = ()) -> list[Path]:
    """Files sorted by relative path, except hidden ones and those in folders named in ``without``."""

    def fail(error: OSError) -> None:
        raise unreadable(error.filename, error)

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
        for _ in decode(file_pieces(file), str(file)):
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
    for piece in file_pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _from_hub(source: str, corpus: Corpus, cache: Path) -> Corpus:
    dataset = parse_source(source)
    parts = (Path(dataset.name).resolve().name, dataset.configuration)
    name = _slug("-".join(part for part in parts if part))
    documents = functools.partial(_hub_documents, dataset, cache, corpus.text_field, [])
    return dataclasses.replace(corpus, name=name, documents=documents)


def _hub_documents(
    dataset: HubDataset, cache: Path, text_field: str | None, copies: list[Path]
) -> Iterator[Document]:
    """``copies`` outlives a pass: what one pass has copied from a local folder the next ones read."""
    path = dataset.copy_path(cache, text_field)
    if not path.is_file() or (os.path.isdir(dataset.name) and path not in copies):
        dataset.fetch(path, text_field)
    copies.append(path)
    with contextlib.suppress(OSError):
        os.utime(path)  # of the copies of datasets, the one used last
    for number, line in enumerate(_file_lines(path)):
        where = f"{dataset.source} row {number}"
        try:
            row = json.loads(line)
            is_text = not isinstance(row, dict) or "text" in row
            text = row["text"].encode() if is_text else line  # of a conversation
        except (ValueError, TypeError, KeyError, AttributeError):
            raise CorpusError(
                path, f"line {number + 1} is damaged", "rows of a dataset", "delete this copy"
            ) from None
        yield Document(where, [text], "" if is_text else "json")


def _file_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            yield from stream
    except OSError as error:
        raise unreadable(path, error) from None


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
