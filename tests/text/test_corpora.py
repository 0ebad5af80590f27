"""Corpora: what each kind of source resolves to, in which order, and every refusal."""

import io
import os
import sysconfig
import tarfile
from pathlib import Path

import pytest

from minilm.errors import CorpusError, InputError
from minilm.text import corpora
from minilm.text.corpora import open_corpus, parse_mixture


def documents_of(corpus, note=lambda where, text: None) -> list[str]:
    texts, current = [], ""
    for chunk in corpus.chunks(note=note):
        assert chunk.text
        current += chunk.text
        if chunk.ends_document:
            texts.append(current)
            current = ""
    assert current == "", "the last chunk ends a document"
    return texts


def write(folder: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_a_file_is_one_document_whose_line_ends_are_newlines(tmp_path):
    (tmp_path / "my notes.v2.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n\xef\xbb\xbf")
    corpus = open_corpus(str(tmp_path / "my notes.v2.txt"), cache=tmp_path)
    notes = []
    texts = documents_of(corpus, lambda where, text: notes.append((where, text)))
    assert texts == ["one\ntwo\nthree\n\ufeff"]
    assert documents_of(corpus) == texts, "a second pass is the same"
    [(where, text)] = notes
    assert (where, "--raw-text keeps them" in text) == (corpus.source, True)
    raw = open_corpus(str(tmp_path / "my notes.v2.txt"), cache=tmp_path, raw_text=True)
    assert documents_of(raw) == ["\ufeffone\r\ntwo\rthree\n\ufeff"]
    assert corpus.name == "my-notes.v2"
    assert corpus.source == str(tmp_path / "my notes.v2.txt")


def test_a_file_of_a_byte_order_mark_alone_is_no_document(tmp_path):
    write(tmp_path / "texts", a_txt=b"\xef\xbb\xbf", b_txt="b")
    assert documents_of(open_corpus(str(tmp_path / "texts"), cache=tmp_path)) == ["b"]


def test_a_large_document_comes_in_bounded_chunks(tmp_path):
    text = "".join(f"line {i} of some text é\n" for i in range(150_000))
    (tmp_path / "large.txt").write_text(text, newline="")
    chunks = list(open_corpus(str(tmp_path / "large.txt"), cache=tmp_path).chunks())
    assert "".join(chunk.text for chunk in chunks) == text
    assert len(chunks) == 4
    assert [chunk.ends_document for chunk in chunks] == [False, False, False, True]
    assert all(len(chunk.text) <= 2**20 for chunk in chunks)
    assert all(chunk.text.startswith("\nline ") for chunk in chunks[1:])


def test_a_folder_is_its_files_by_relative_path_without_the_hidden(tmp_path):
    folder = tmp_path / "texts"
    write(folder, b_txt="b", a_txt="a", sub__c_md="c", sub__deep__d="d", empty="")
    write(folder, sub_b="sub.b")
    (folder / ".hidden").write_text("no")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("no")
    corpus = open_corpus(str(folder), cache=tmp_path)
    # By posix path: "sub.b" < "sub/c.md". The empty file is no document.
    assert documents_of(corpus) == ["a", "b", "sub.b", "c", "d"]
    assert corpus.name == "texts"


def test_a_glob_matches_files_only_sorted(tmp_path):
    write(tmp_path / "texts", b_txt="b", a_txt="a", c_md="c", sub__d_txt="d")
    (tmp_path / "texts" / "folder.txt").mkdir()
    corpus = open_corpus(str(tmp_path / "texts" / "*.txt"), cache=tmp_path)
    assert documents_of(corpus) == ["a", "b"]
    assert corpus.name == "texts"
    assert documents_of(open_corpus(f"{tmp_path}/**/*.txt", cache=tmp_path)) == ["a", "b", "d"]


def test_a_file_whose_name_is_a_pattern_is_a_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("brackets")
    assert documents_of(open_corpus(str(tmp_path / "a[1].txt"), cache=tmp_path)) == ["brackets"]


def test_the_home_folder_and_the_current_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    assert documents_of(open_corpus("~/a.txt", cache=tmp_path)) == ["a"]
    assert open_corpus(".", cache=tmp_path).name == tmp_path.name.replace("[", "-")


def test_stdlib_is_the_running_library_and_nothing_else(tmp_path):
    corpus = open_corpus("stdlib", cache=tmp_path)
    library = Path(sysconfig.get_path("stdlib"))
    names = [Path(d.where).relative_to(library).as_posix() for d in corpus.documents()]
    assert names == sorted(names)
    assert {"abc.py", "json/decoder.py", "unittest/case.py"} <= set(names)
    forbidden = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}
    assert not [name for name in names if forbidden & set(name.split("/")[:-1])]
    assert all(name.endswith(".py") for name in names)
    assert corpus.name == "stdlib"


def test_stdlib_skips_files_that_are_not_text(tmp_path, monkeypatch):
    write(tmp_path, a_py="a", bad_py=b"# latin-1: \xe9", nul_py=b"\0", b_txt="b", test__t_py="t")
    write(tmp_path, tests__t_py="t", package__m_py="m")
    monkeypatch.setattr(corpora.sysconfig, "get_path", lambda name: str(tmp_path))
    assert documents_of(open_corpus("stdlib", cache=tmp_path)) == ["a", "m"]


def test_stdlib_without_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora.sysconfig, "get_path", lambda name: str(tmp_path / "none"))
    with pytest.raises(CorpusError):
        open_corpus("stdlib", cache=tmp_path)
    monkeypatch.setattr(corpora.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(CorpusError, match=r"no Python sources.*--data FILE"):
        open_corpus("stdlib", cache=tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.txt", "no such file or folder"),
        ("x" * 5000, "no such file or folder"),
        ("stdlb", "did you mean stdlib?"),
        ("shakespear", "did you mean shakespeare?"),
        ("", "expected a source"),
        ("a\0b", "expected a source"),
        ("empty.txt", "an empty file"),
        ("void", "a folder without files"),
        ("hollow", "2 empty files"),
        ("*.nothing", "matches no file"),
        ("pipe", "not a regular file"),
        ("hf:", "no dataset name"),
    ],
)
def test_refusals(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, empty_txt="", hollow__a="", hollow__b="")
    (tmp_path / "void" / ".hidden").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CorpusError) as caught:
        open_corpus(source, cache=tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"), [(b"ok\0", "NUL byte at byte 2"), (b"\xff", "UTF-8 .* at byte 0")]
)
def test_a_binary_file_in_a_folder_is_named(tmp_path, content, message):
    write(tmp_path / "texts", a="fine", b=content)
    with pytest.raises(CorpusError, match=f"texts/b: .*{message}"):
        documents_of(open_corpus(str(tmp_path / "texts"), cache=tmp_path))


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    corpus = open_corpus(str(tmp_path / "a.txt"), cache=tmp_path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(CorpusError, match=r"a\.txt: cannot be read \(No such file"):
        documents_of(corpus)


def test_a_file_that_disappears_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "_files_below", lambda folder: [tmp_path / "gone.txt"])
    with pytest.raises(CorpusError, match=r"gone\.txt: cannot be read \(No such file"):
        open_corpus(str(tmp_path), cache=tmp_path)


def test_cleaning_accepts_what_would_be_refused(tmp_path):
    write(tmp_path / "texts", a=b"caf\xe9 \r\n\0", b="\0\x01", c="<p>c</p>")
    corpus = open_corpus(
        str(tmp_path / "texts"), cleaning=["whitespace", "html", "control", "encoding"],
        cache=tmp_path,
    )  # fmt: skip
    assert corpus.cleaning == ("encoding", "html", "control", "whitespace")
    assert documents_of(corpus) == ["café\n", "c\n"]
    with pytest.raises(InputError, match="'nfd', expected one of"):
        open_corpus(str(tmp_path / "texts"), cleaning=["nfd"], cache=tmp_path)


def test_observed_blocks_are_the_raw_bytes_in_order(tmp_path):
    write(tmp_path / "texts", a=b"one \r\n", b="", c="é")
    blocks = []
    corpus = open_corpus(str(tmp_path / "texts"), cleaning=["whitespace"], cache=tmp_path)
    list(corpus.chunks(blocks.append))
    assert b"".join(blocks) == "one \r\né".encode()


def test_a_tar_is_read_as_the_files_in_it(tmp_path: Path) -> None:
    """As webdataset has them: several files of a sample, of which those of text are read."""
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "shards" / f"{shard}.tar", "w") as archive:
            for number in range(3):
                for ending, content in {
                    "jpg": b"\xff\xd8",
                    "json": b'{"text": "record %d %d"}' % (shard, number),
                    "txt": b"text %d %d" % (shard, number),
                }.items():
                    member = tarfile.TarInfo(f"folder/{number:04}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
            link = tarfile.TarInfo("link.txt")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    corpus = open_corpus(str(tmp_path / "shards"), cache=tmp_path)
    chunks = list(corpus.chunks())
    assert [chunk.text for chunk in chunks] == [
        f"{kind} {shard} {number}"
        for shard in range(2)
        for number in range(3)
        for kind in ("record", "text")
    ]
    assert all(chunk.ends_document for chunk in chunks)
    whole = (tmp_path / "shards" / "1.tar").read_bytes()
    members = whole.rstrip(b"\0")
    end = -(-len(members) // 512) * 512
    header = whole.index(b"folder/0001.txt")
    broken_tars = {
        "a header": whole[:700],
        "no tar": b"no tar" * 200,
        "in a later header": whole[: header + 100],
        "in the data of a later member": whole[: header + 515],
        "before the end": whole[:header],
        "without an end": whole[:end],
        "joined with another": whole + whole,
        "a damaged header": whole[:header] + b"x" * 512 + whole[header + 512 :],
        "a damaged size": whole[: header + 124] + b"77777777777" + whole[header + 135 :],
    }
    for content in broken_tars.values():
        (tmp_path / "broken.tar").write_bytes(content)
        broken = open_corpus(str(tmp_path / "broken.tar"), cache=tmp_path)
        with pytest.raises(CorpusError, match=r"broken\.tar"):
            list(broken.chunks())


def test_weights_have_a_sum() -> None:
    with pytest.raises(CorpusError, match="weights whose sum is no number"):
        parse_mixture("mix:a.txt=1e308;b.txt=1e308")
