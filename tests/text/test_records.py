"""Records: which field the documents are in, escapes, any division of the file, and every refusal."""

import csv
import importlib.util
import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import CorpusError, MissingExtraError
from minilm.text import records
from minilm.text.corpora import open_corpus
from minilm.text.records import csv_texts, json_texts

TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")), min_size=1
)


def ignore(where, text):
    pass


def divided(text, size):
    return [text[i : i + size] for i in range(0, len(text), size)]


@given(TEXTS, st.integers(1, 50), st.booleans(), st.sampled_from([None, 2]))
def test_json_lines_and_arrays(texts, size, ascii_only, indent):
    rows = [{"id": i, "text": text, "tags": [1, {"a": "b"}]} for i, text in enumerate(texts)]
    lines = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    array = json.dumps(rows, ensure_ascii=ascii_only, indent=indent)
    one = json.dumps(rows[0], ensure_ascii=ascii_only, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_READ_CHARACTERS", 1)  # so that values are cut anywhere
        assert list(json_texts(divided(lines, size), "a", None, ignore)) == texts
        assert list(json_texts(divided(array, size), "a", None, ignore)) == texts
        assert list(json_texts(divided(one, size), "a", None, ignore)) == texts[:1]
    assert list(json_texts([json.dumps(texts)], "a", None, ignore)) == texts, "strings alone"


@given(TEXTS, st.integers(1, 50), st.sampled_from(",;\t"), st.sampled_from(["\r\n", "\n", "\r"]))
def test_csv(texts, size, delimiter, line_end):
    stream = io.StringIO(newline="")
    # Before Python 3.13, csv quotes no line ends but those that it writes itself.
    quoting = csv.QUOTE_ALL if line_end == "\r" else csv.QUOTE_MINIMAL
    writer = csv.writer(stream, quoting=quoting, delimiter=delimiter, lineterminator=line_end)
    writer.writerow(["id", "text"])
    writer.writerows(enumerate(texts))
    assert list(csv_texts(divided(stream.getvalue(), size), "a", None, ignore)) == texts


def test_records_longer_than_what_is_read_at_once():
    texts = ["x" * 200_000, "y" * 10, '\\"' * 150_000]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    assert list(json_texts(divided(lines, 4096), "a", None, ignore)) == texts
    rows = "text\n" + "".join('"' + text.replace('"', '""') + '"\n' for text in texts)
    assert list(csv_texts(divided(rows, 4096), "a", None, ignore)) == texts


def test_blank_lines_of_a_csv_file_are_no_rows():
    assert list(csv_texts(["id,text\n\n1,a\n\n\n2,b\n\n"], "a", None, ignore)) == ["a", "b"]


def test_blank_lines_before_the_header():
    assert list(csv_texts(["\n \r\n\nid,text\n1,a\n"], "a", None, ignore)) == ["a"]
    with pytest.raises(CorpusError, match="a line 4: 3 columns"):
        list(csv_texts(["\n\nid,text\n1,a,b\n"], "a", None, ignore))
    assert list(csv_texts(["\n\n"], "a", None, ignore)) == []


@pytest.mark.parametrize(
    "header", ['"a,b;c;d;e",text', '"a,b,c";text', '"a;""b;""c",text', 'text,"a;b\n;c"']
)
def test_delimiters_in_quotes_are_text(header):
    row = header.replace("text", "once").replace('"a', '"x')
    assert list(csv_texts([f"{header}\n{row}\n"], "a", None, ignore)) == ["once"]


def test_an_empty_file_of_records_is_no_document(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for suffix, row in (("csv", "text\none\n"), ("jsonl", '{"text": "one"}')):
        (folder / f"a.{suffix}").write_text("")
        (folder / f"b.{suffix}").write_bytes(b"\xef\xbb\xbf")
        (folder / f"c.{suffix}").write_text(row)
        assert texts_of(folder / f"*.{suffix}", tmp_path) == ["one"]


def test_half_of_a_surrogate_pair_becomes_the_replacement_character():
    assert list(json_texts([r'{"text": "a\ud800b \ud83d\ude00"}'], "a", None, ignore)) == ["a�b 😀"]


@pytest.mark.parametrize(("asked", "expected"), [(None, "t"), ("text", "t"), ("body", "b")])
def test_the_field(asked, expected):
    notes = []
    line = '{"body": "b", "text": "t"}'
    assert list(json_texts([line], "a", asked, lambda *note: notes.append(note))) == [expected]
    assert notes == [("a", f"documents are the field {asked or 'text'!r} of its records")]


def test_the_only_field_of_text():
    assert list(json_texts(['{"id": 1, "body": "b"}'], "a", None, ignore)) == ["b"]
    assert list(csv_texts(["story\n", "once\n"], "a", None, ignore)) == ["once"]


@pytest.mark.parametrize(
    ("content", "asked", "message"),
    [
        ('{"a": "x", "b": "y"}', None, r"the fields a, b, expected a field text; .*--text-field"),
        ('{"a": "x", "b": "y"}', "c", r"the fields a, b, expected a field c"),
        ("{" + ", ".join(f'"{i}": 1' for i in range(90)) + "}", None, r"18, 19 and 70 more"),
        ('{"text": "x"}\n{"text": 3}', None, r"a\.jsonl record 2: a field text of int"),
        ('{"text": "x"}\n{"t": 3}', None, r"a\.jsonl record 2: no field text"),
        ('{"text": "x"}\n[1]', None, r"record 2: list in place of an object"),
        ('{"text": "x"}\n{"text": "y', None, r"record 2: not JSON \(Unterminated .* at line 2\)"),
        ('{"text": "x"}\n\n{"text": "y\tz"}', None, r"record 2: .*control character at line 3\)"),
        ('{"text": "x"}\n{"text": oops}\n', None, r"record 2: .*Expecting value at line 2\)"),
        ('{"text": "x"}\noops' + " " * 100, None, r"record 2: .*value at line 2\).*--raw-text"),
        ('[{"text": "x"} {"text": "y"}]', None, r"record 2: not JSON \(no comma"),
        ('[{"text": "x"}', None, r"record 2: not JSON \(the array does not end"),
        ('[{"text": "x"}] more', None, r"record 2: not JSON \(text after"),
        ("[" * 100_000, None, r"record 1: not JSON"),
        ('{"text": ' + "9" * 5000 + "}", None, r"record 1: (not JSON|a field text|the fields)"),
        (r'{"text": "a\u0000"}', None, r"record 1: a NUL character.*--clean control"),
    ],
)
def test_refused_json(tmp_path, content, asked, message):
    (tmp_path / "a.jsonl").write_text(content)
    corpus = open_corpus(str(tmp_path / "a.jsonl"), cache=tmp_path, text_field=asked)
    with pytest.raises(CorpusError, match=message):
        list(corpus.chunks())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,body,title\n1,x,y\n", r"the fields id, body, title, expected a field text"),
        ("id,text\n1,x,y\n", r"line 2: 3 columns, expected the 2 of the header"),
        ('id,text\n1,"x', r"line 2: not CSV \(unexpected end of data"),
        ('id,text\n1,"x"y\n', r"line 2: not CSV"),
    ],
)
def test_refused_csv(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(CorpusError, match=message):
        list(open_corpus(str(tmp_path / "a.csv"), cache=tmp_path).chunks())


def test_a_record_of_boundless_length(monkeypatch):
    monkeypatch.setattr(records, "LARGEST_RECORD", 1000)
    endless = ('{"text": "' if i == 0 else "x" * 100 for i in range(10**9))
    with pytest.raises(CorpusError, match="over 1,000 characters"):
        list(json_texts(endless, "a", None, ignore))
    endless = ("text" if i == 0 else "x" * 100 for i in range(10**9))
    with pytest.raises(CorpusError, match="over 1,000 characters"):
        list(csv_texts(endless, "a", None, ignore))


def texts_of(source, tmp_path, **options) -> list[str]:
    corpus = open_corpus(str(source), cache=tmp_path, **options)
    return [chunk.text for chunk in corpus.chunks()]


@pytest.fixture
def parquet():
    return pytest.importorskip("pyarrow.parquet")


def test_parquet(parquet, tmp_path):
    import pyarrow

    texts = [f"story {i} é\r\n" for i in range(1000)]
    table = pyarrow.table({"id": range(1000), "story": texts, "title": ["x"] * 1000})
    parquet.write_table(table, tmp_path / "a.parquet")
    expected = [text.replace("\r", "") for text in texts]
    assert texts_of(tmp_path / "a.parquet", tmp_path, text_field="story") == expected
    with pytest.raises(CorpusError, match=r"the fields id, story, title.*--text-field"):
        texts_of(tmp_path / "a.parquet", tmp_path)
    parquet.write_table(table.select(["id", "story"]), tmp_path / "b.parquet")
    assert texts_of(tmp_path / "b.parquet", tmp_path) == expected
    parquet.write_table(pyarrow.table({"text": [1]}), tmp_path / "c.parquet")
    with pytest.raises(CorpusError, match="row 1: a field text of int"):
        texts_of(tmp_path / "c.parquet", tmp_path)
    repeated = pyarrow.array(["x", "y", "x"]).dictionary_encode()  # as pandas writes a category
    parquet.write_table(pyarrow.table({"id": range(3), "a": repeated}), tmp_path / "d.parquet")
    assert texts_of(tmp_path / "d.parquet", tmp_path) == ["x", "y", "x"]


def test_what_is_null_in_parquet_is_left_out_and_noted(parquet, tmp_path):
    import pyarrow

    folder = tmp_path / "shards"
    folder.mkdir()
    texts = [None, "x", None, "y"]
    parquet.write_table(pyarrow.table({"id": range(4), "story": texts}), folder / "a.parquet")
    nothing = {"id": range(2), "story": pyarrow.nulls(2)}  # a shard whose column has no other type
    parquet.write_table(pyarrow.table(nothing), folder / "b.parquet")
    assert texts_of(folder, tmp_path) == ["x", "y"]
    notes = []
    list(open_corpus(str(folder), cache=tmp_path).chunks(note=lambda *note: notes.append(note)))
    nulls = [where for where, text in notes if text == records.NULL]
    assert nulls == [str(folder / "a.parquet")] * 2 + [str(folder / "b.parquet")] * 2


def test_null_in_json_is_left_out():
    notes = []
    lines = '{"text": null}\n{"text": "x"}\n{"text": null}\n'
    assert list(json_texts([lines], "a", None, lambda *note: notes.append(note))) == ["x"]
    assert notes[1:] == [("a", records.NULL)] * 2
    only = '{"id": 1, "body": null}\n{"id": 2, "body": "b"}\n'
    assert list(json_texts([only], "a", None, ignore)) == ["b"], "the only field that may hold text"


def test_parquet_that_is_none(parquet, tmp_path):
    for content in (b"PAR1", b"PAR1" + bytes(range(256)) * 40 + b"PAR1", b"text\n"):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(CorpusError, match=r"a\.parquet: not read by pyarrow \("):
            texts_of(tmp_path / "a.parquet", tmp_path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find_spec(name)
    )
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r"pip install 'minilm\[parquet\]'"):
        texts_of(tmp_path / "a.parquet", tmp_path)


def test_which_files_are_records(tmp_path):
    (tmp_path / "data").mkdir()
    for name, content in [("a.jsonl", '{"text": "1"}'), ("b.json", '{"text": "2"}'), ("c.py", "3")]:
        (tmp_path / "data" / name).write_text(content)
    mixed = tmp_path / "data"
    assert texts_of(mixed, tmp_path) == ["1", '{"text": "2"}', "3"], "package.json is source code"
    assert texts_of(mixed, tmp_path, text_field="text") == ["1", "2", "3"]
    assert texts_of(mixed / "*.json", tmp_path) == ["2"], "files of one kind"
    assert texts_of(mixed, tmp_path, raw_text=True) == ['{"text": "1"}', '{"text": "2"}', "3"]


def test_options_that_do_not_go_together(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(CorpusError, match=r"--text-field body with plain text"):
        texts_of(tmp_path / "a.txt", tmp_path, text_field="body")
    with pytest.raises(ValueError, match="--raw-text"):
        texts_of(tmp_path / "a.txt", tmp_path, text_field="body", raw_text=True)
