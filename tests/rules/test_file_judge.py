"""Uploads: correct files pass in any chunks, what only pretends does not, and nothing of a file is held."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from collections.abc import AsyncGenerator, Coroutine, Iterable
from io import BytesIO
from typing import Any

import pytest
from files import (
    BOUNDARY,
    CONTENT_TYPE,
    FILES,
    OFFICE,
    OPEN,
    archive,
    field,
    file,
    form,
    mp3,
    mp4,
    office,
    opendocument,
    part,
    png,
    webp,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser as StarletteParser
from werkzeug.formparser import MultiPartParser as WerkzeugParser

from portalshield.rules.archives import DIRECTORY_BYTES, ArchiveFault, holds_archive, judge_archive
from portalshield.rules.magic import HEAD_BYTES, KINDS
from portalshield.rules.multipart import FormScanner, MultipartFault
from portalshield.rules.uploads import FileJudge, compile_rules, filename_fault

LIMIT = 100_000
RULES = compile_rules(KINDS, LIMIT, 3)
NAMES = frozenset(("tenant_id",))
PDF = FILES["application/pdf"][1]
ZIP = FILES["application/zip"][1]


def scanned(chunks: Iterable[bytes], **more: Any) -> FormScanner:
    """Feed a form to its end."""
    rules = more.get("rules", RULES)
    scanner = FormScanner(BOUNDARY.encode(), names=NAMES, parts=FileJudge(rules, NAMES))
    for chunk in chunks:
        scanner.feed(chunk)
    scanner.close()
    return scanner


def outcome(chunks: Iterable[bytes], **more: Any) -> str | None:
    """The code of the refusal, or None."""
    try:
        scanned(chunks, **more)
    except MultipartFault as fault:
        return fault.code
    return None


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def verdict(body: bytes, **more: Any) -> str | None:
    """The verdict, which must be the same in one chunk and in small ones."""
    found = {outcome(cut(body, size), **more) for size in (1, 7, HEAD_BYTES, len(body))}
    assert len(found) == 1
    return found.pop()


def judged(essence: str, content: bytes, filename: str | None = None) -> str | None:
    """The verdict about one file."""
    return verdict(form(file(filename or FILES[essence][0], content, essence)))


# -- what passes ------------------------------------------------------------------------------------------------------


def test_every_type_has_a_sample() -> None:
    """The table of files is the table of types."""
    assert set(FILES) == set(KINDS)


@pytest.mark.parametrize("essence", FILES)
def test_a_correct_file_passes(essence: str) -> None:
    """In any chunks."""
    assert judged(essence, FILES[essence][1]) is None


@pytest.mark.parametrize(
    ("essence", "content"),
    [
        pytest.param("audio/mpeg", b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + mp3(1), id="mp3 with a tag"),
        pytest.param("audio/mpeg", (b"\xff\xf3\x44\xc0" + bytes(92)) * 3, id="mp3 of a low rate"),
        pytest.param("image/webp", webp(b"\0" * 41) + b"\0", id="webp, padded"),
        pytest.param("image/webp", webp(b"\0" * 41), id="webp, not padded"),
        pytest.param("image/gif", FILES["image/gif"][1] + b"\0\0", id="gif, padded"),
        pytest.param("application/pdf", PDF + b"\r\n" * 100, id="pdf with lines behind its end"),
        pytest.param("application/zip", archive({"a": b"x"}, comment=b"made today"), id="zip with a comment"),
        pytest.param("video/mp4", mp4(b"XYZ ", b"mp42"), id="mp4 by a compatible brand"),
        pytest.param("text/plain", b"", id="empty text"),
        pytest.param("text/plain", b"a < b and <c> d", id="signs that are no markup"),
        pytest.param("text/csv", "ä".encode() * 3000, id="text longer than its head, letters across its border"),
    ],
)
def test_odd_but_correct_files_pass(essence: str, content: bytes) -> None:
    """As programs write them."""
    assert judged(essence, content) is None


@pytest.mark.parametrize(
    ("essence", "declared"),
    [
        ("image/jpeg", "image/jpg"),
        ("application/zip", "application/x-zip-compressed"),
        ("text/csv", "application/vnd.ms-excel"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("image/png", "IMAGE/PNG"),
    ],
)
def test_other_names_of_a_type_pass(essence: str, declared: str) -> None:
    """As browsers and systems call it."""
    filename, content = FILES[essence]
    rules = compile_rules([essence], LIMIT, 1)
    assert verdict(form(file(filename, content, declared)), rules=rules) is None


def test_an_input_that_nobody_used_is_no_file() -> None:
    """Browsers send it without name and bytes."""
    unused = file("", b"", "application/octet-stream")
    assert verdict(form(unused, unused, unused, unused, unused)) is None
    assert verdict(form(file("", b"x", "text/plain"))) == "file-without-name"


def test_a_range_means_every_type_in_it() -> None:
    """`image/*`."""
    rules = compile_rules([" IMAGE/* "], LIMIT, 1)
    assert set(rules.kinds) >= {"image/png", "image/gif", "image/webp", "image/jpeg", "image/jpg"}
    assert "application/pdf" not in rules.kinds


@pytest.mark.parametrize(
    ("types", "size", "files"),
    [(["image/svg+xml"], 1, 1), (["text/html"], 1, 1), ([], 1, 1), (["image/png"], 0, 1), (["image/png"], 1, 0)],
)
def test_what_cannot_be_judged_is_no_rule(types: list[str], size: int, files: int) -> None:
    """Found out at start."""
    with pytest.raises(ValueError, match=r"^takes "):
        compile_rules(types, size, files)


# -- what does not ----------------------------------------------------------------------------------------------------

REFUSED = [
    pytest.param("image/png", b"", "file-content", id="empty picture"),
    pytest.param("image/png", png()[:20], "file-content", id="too short for its signature and end"),
    pytest.param("image/png", PDF, "file-content", id="pdf as png"),
    pytest.param("application/pdf", png(), "file-content", id="png as pdf"),
    pytest.param("application/pdf", b"\n" + PDF, "file-content", id="pdf that begins later"),
    pytest.param("application/pdf", PDF[:-7], "file-content", id="pdf without end"),
    pytest.param("application/pdf", PDF + b"x" * 1100, "file-content", id="pdf with something behind it"),
    pytest.param("image/png", png() + b"<?php ?>", "file-content", id="png with a script behind it"),
    pytest.param("image/png", png() + archive({"a": b"x"}), "file-content", id="png and zip"),
    pytest.param(
        "image/png", png() + archive({"a": b"x"}, comment=png()[-12:]), "file-archive", id="zip ending as png"
    ),
    pytest.param("image/jpeg", FILES["image/jpeg"][1] + ZIP, "file-archive", id="jpeg and zip (GIFAR)"),
    pytest.param("image/gif", FILES["image/gif"][1] + ZIP + b";", "file-archive", id="gif and zip"),
    pytest.param("image/gif", FILES["image/gif"][1] + b"<script>", "file-content", id="gif and script"),
    pytest.param("image/gif", b"GIF89a;", "file-content", id="gif without a screen"),
    pytest.param("image/webp", webp() + b"more", "file-content", id="webp longer than it says"),
    pytest.param("application/pdf", PDF + ZIP + b"%%EOF", "file-archive", id="pdf and zip"),
    pytest.param("video/mp4", mp4(b"isom") + ZIP, "file-archive", id="mp4 and zip"),
    pytest.param("video/mp4", mp4(b"qt  "), "file-content", id="quicktime as mp4"),
    pytest.param("video/mp4", b"\0\0\0\x09ftypisom", "file-content", id="box of an odd size"),
    pytest.param("audio/mp4", mp4(b"heic", b"mif1"), "file-content", id="picture as sound"),
    pytest.param("audio/mpeg", b"\xff\xfb\x90\x00" + bytes(500), "file-content", id="one frame only"),
    pytest.param("audio/mpeg", b"\xff\xfe" + "text".encode("utf-16-le"), "file-content", id="byte order mark as mp3"),
    pytest.param("audio/mpeg", b"ID3\xff", "file-content", id="tag of no version"),
    pytest.param("text/plain", b"a\0b", "file-content", id="nul in text"),
    pytest.param("text/plain", b"a\x1b[2J", "file-content", id="terminal escape"),
    pytest.param("text/plain", b"\xff\xfea\0", "file-content", id="UTF-16"),
    pytest.param("text/csv", b"a;b\n\xe4;1\n", "file-content", id="latin-1"),
    pytest.param("text/csv", b"a;\xc3", "file-content", id="half a character at the end"),
    pytest.param("text/plain", b"x" * (HEAD_BYTES + 5) + b"\xc3(", "file-content", id="fault behind the head"),
    pytest.param("text/plain", b"<!DOCTYPE html><html>", "file-content", id="html"),
    pytest.param("text/plain", b"\xef\xbb\xbf \r\n<ScRiPt src=x>", "file-content", id="script behind blanks"),
    pytest.param("text/plain", b"<svg onload=x>", "file-content", id="svg"),
    pytest.param("text/plain", b"<?php echo 1;", "file-content", id="php"),
    pytest.param("text/plain", b"#!/bin/sh\n", "file-content", id="shell script"),
    pytest.param("text/csv", b"%PDF-1.7\nx", "file-content", id="pdf as text"),
    pytest.param("text/csv", b"GIF89a=1;alert(1)", "file-content", id="gif as text"),
    pytest.param("application/zip", b"PK\x05\x06" + bytes(18), "file-content", id="empty archive"),
    pytest.param("application/zip", b"x" + ZIP, "file-content", id="something before an archive"),
    pytest.param("application/zip", ZIP + b"x", "zip-directory", id="something behind an archive"),
    pytest.param("application/zip", ZIP[:-1], "zip-directory", id="archive cut short"),
    pytest.param("application/zip", ZIP[:30] + ZIP, "zip-directory", id="archive behind another's beginning"),
    pytest.param("application/zip", ZIP + ZIP, "zip-directory", id="two archives"),
    pytest.param("application/zip", archive({"a": b"x"}, comment=ZIP[-22:]), "zip-directory", id="record in a comment"),
    pytest.param("application/zip", archive({"0": bytes(1_000_000)}), "zip-bomb", id="bomb"),
    pytest.param("application/zip", archive({"../a": b"x"}), "zip-entry-name", id="entry above its folder"),
    pytest.param("application/zip", archive({"x/..\\a": b"x"}), "zip-entry-name", id="the same with a backslash"),
    pytest.param("application/zip", archive({"/etc/x": b"x"}), "zip-entry-name", id="entry at the root"),
    pytest.param(OFFICE + "wordprocessingml.document", ZIP, "zip-other-type", id="zip as docx"),
    pytest.param(OFFICE + "wordprocessingml.document", office("xl"), "zip-other-type", id="xlsx as docx"),
    pytest.param(
        OFFICE + "wordprocessingml.document",
        archive({"[Content_Types].xml": b"", "word/document.xml": b"", "word/vbaProject.bin": b"x"}),
        "zip-macros",
        id="docx with macros",
    ),
    pytest.param(OPEN + "text", opendocument(OPEN + "spreadsheet"), "file-content", id="ods as odt"),
]


@pytest.mark.parametrize(("essence", "content", "code"), REFUSED)
def test_what_is_not_what_it_says_is_refused(essence: str, content: bytes, code: str) -> None:
    """Polyglots, bombs, other types: the same verdict in any chunks."""
    assert judged(essence, content) == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(form(*[file("a.txt", b"x", "text/plain")] * 4), "too-many-files", id="one file too many"),
        pytest.param(form(file("a.txt", b"x" * (LIMIT + 1), "text/plain")), "file-too-large", id="one byte too many"),
        pytest.param(form(file("a.txt", b"x", None)), "file-type", id="no type"),
        pytest.param(form(file("a.txt", b"x", "application/octet-stream")), "file-type", id="type not taken"),
        pytest.param(form(file("a.txt", b"x", "text/plain; charset=latin1")), "file-type", id="other charset"),
        pytest.param(form(file("a.png", png(), "image/png; x=y")), "file-type", id="parameter of a picture"),
        pytest.param(form(file("a.txt", b"x", "text/plain, text/html")), "file-type", id="two types"),
        pytest.param(form(field("tenant_id"), field("tenant_id")), "duplicate-field", id="tenant twice"),
        pytest.param(form(field("tenant_id"), field("a[tenant_id]")), "duplicate-field", id="in two spellings"),
        pytest.param(form(file("a.txt", b"x", "text/plain", "tenant_id")), "file-named-as-field", id="file as tenant"),
        pytest.param(form(part('name="f"; filename="a.txt"; filename*=utf-8\'\'b')), "extended-parameter", id="both"),
        pytest.param(form(part("name=\"f\"; filename*=utf-8''a.txt")), "extended-parameter", id="filename*"),
        pytest.param(form(part("name*=utf-8''f; filename=\"a.txt\"")), "extended-parameter", id="name*"),
        pytest.param(form(part('name="f"; filename="a\\"b.txt"')), "escape", id="escaped quote"),
        pytest.param(form(part('name="f"; filename="c:\\a.txt"')), "escape", id="backslash"),
        pytest.param(form(part('name="f"; filename="a.txt"; filename="b"')), "duplicate-parameter", id="two names"),
        pytest.param(form(file("a" * 252 + ".txt", b"x", "text/plain")), "filename-too-long", id="256 characters"),
        pytest.param(form(part('name="f"; filename="a.txt"', b"x", "multipart/mixed; boundary=y")), "nested", id="in"),
        pytest.param(form(file("a.txt", b"x", "text/plain"))[:-4], "truncated", id="not closed"),
        pytest.param(form(file("a.txt", b"x", "text/plain"))[:-14], "truncated", id="file not ended"),
    ],
)
def test_forms_that_are_too_much_or_ambiguous_are_refused(body: bytes, code: str) -> None:
    """Counts, types, names that two parsers could read differently."""
    assert verdict(body) == code


def test_limits_are_met_exactly() -> None:
    """As many files and bytes as allowed."""
    assert verdict(form(*[file("a.txt", b"x" * LIMIT, "text/plain")] * 3)) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *[(name, None) for name in ("a.png", "ARCHIVE.2026.PNG", "blob", "a;b=c.png", "Ünï (1).png", "node.js.png")],
        *[(name, None) for name in ("example.com.png", "a..png", "☃.png", "10:30.png", "a'b.png", "con-1.png")],
        *[(name, "filename") for name in ("../a.png", "a/b.png", "..", "a.", ".htaccess", "a.png.", "a.png ")],
        *[(name, "filename") for name in (" a.png", "c:a.png", "con.png", "NUL", "a\x00.png", "a\x85.png", "a\n.png")],
        *[
            (name, "filename")
            for name in ("a\u202egnp.exe", "a\u2028.png", "a\uff0fb.png", "\u2100.png", "a\ud800.png")
        ],
        *[(name, "filename") for name in ("a%2fb.png", "a%5Cb.png", "a%00.png", "a%22.png", "<b>.png", 'a".png')],
        *[(name, "filename-executable") for name in ("a.php.png", "a.PHTML.png", "a.php;.png", "a.asp:.png", "a.exe")],
        *[(name, "filename-executable") for name in ("a.php .png", "x.jsp%.png", "a.p\u017fp.sh.png", "run.sh")],
        *[(name, "filename-extension") for name in ("a.html", "a.svg", "a.pdf", "a.png.pdf", "a.png.js")],
    ],
)
def test_names_of_files(name: str, fault: str | None) -> None:
    """Paths, control characters, executables and other extensions are refused, what people call pictures is not."""
    assert filename_fault(name, KINDS["image/png"]) == fault


# -- archives ---------------------------------------------------------------------------------------------------------


def test_the_ratio_is_counted_over_the_whole_file() -> None:
    """Entries that share their compressed bytes promise as much as others do."""
    packed = archive({"a": bytes(50_000)})
    start = packed.index(b"PK\x01\x02")
    entry, record = packed[start:-22], struct.unpack("<4s4H2LH", packed[-22:])
    count = 40
    ends = struct.pack("<4s4H2LH", record[0], 0, 0, count, count, count * len(entry), start, 0)
    overlapping = packed[:start] + entry * count + ends
    with zipfile.ZipFile(BytesIO(overlapping)) as opened:
        assert len(opened.infolist()) == count
    with pytest.raises(ArchiveFault, match="zip-bomb"):
        judge_archive(overlapping, len(overlapping))


def test_a_directory_larger_than_what_is_held_is_refused() -> None:
    """Nobody can say what it promises."""
    many = archive({f"{number:0200}": b"" for number in range(1200)}, stored=True)
    assert len(many) > DIRECTORY_BYTES
    with pytest.raises(ArchiveFault, match="zip-too-many-entries"):
        judge_archive(many[-DIRECTORY_BYTES:], len(many))


@pytest.mark.parametrize(("at", "value"), [(8, 2), (10, 2), (4, 1), (12, 1), (16, 1), (20, 1)])
def test_a_record_that_does_not_fit_is_refused(at: int, value: int) -> None:
    """Numbers of disks and entries, size and place of the directory, length of the comment."""
    made = archive({"a": b"x"})
    broken = bytearray(made)
    broken[len(made) - 22 + at] ^= value
    with pytest.raises(ArchiveFault, match="zip-directory"):
        judge_archive(bytes(broken), len(broken))


def test_sizes_beyond_32_bits_are_refused() -> None:
    """ZIP64 hides the real size elsewhere."""
    made = bytearray(archive({"a": b"x"}))
    start = made.index(b"PK\x01\x02")
    made[start + 24 : start + 28] = b"\xff" * 4
    with pytest.raises(ArchiveFault, match="zip-directory"):
        judge_archive(bytes(made), len(made))


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 300), st.binary(max_size=4))
def test_any_bytes_have_a_verdict(before: bytes, behind: bytes, at: int, spliced: bytes) -> None:
    """A fault or none, never another exception, for archives with anything in them; what passes unpacks elsewhere."""
    made = archive({"a": b"x" * 50, "b": b""}, comment=b"c")
    tail = before + made[:at] + spliced + made[at + len(spliced) :] + behind
    try:
        judge_archive(tail, len(tail), (b"a",))
    except ArchiveFault:
        return
    assert holds_archive(tail)


@given(st.dictionaries(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), st.binary(), min_size=1))
def test_ordinary_archives_pass(entries: dict[str, bytes]) -> None:
    """Whatever is in them."""
    made = archive(entries, stored=True)
    judge_archive(made, len(made))
    assert holds_archive(made)


# -- properties -------------------------------------------------------------------------------------------------------

CONTENTS = [content for _, content in FILES.values()]
PIECES = [
    b"",
    b"x",
    b"\r\n",
    b"\0",
    b"\xc3",
    b"--b0undary",
    b"PK\x05\x06",
    b"%%EOF",
    png(),
    ZIP,
    PDF,
    b"x" * HEAD_BYTES,
]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Forms of correct files, some with an oddity."""
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        essence = draw(st.sampled_from(sorted(FILES)))
        filename, content = FILES[essence]
        odd = draw(st.sampled_from(["", "", "", "content", "name", "type", "splice", "field"]))
        if odd == "field":
            parts.append(field(draw(st.sampled_from(["tenant_id", "note"]))))
            continue
        if odd == "content":
            content = draw(st.sampled_from(CONTENTS)) + draw(st.sampled_from(PIECES))
        if odd == "splice":
            at = draw(st.integers(0, len(content)))
            content = content[:at] + draw(st.sampled_from(PIECES)) + content[at:]
        if odd == "name":
            filename = draw(st.sampled_from(["", "a", "a;b", "a%22.png", "é.png", "'a'.txt", "a=b.csv", " ", "x.php"]))
        parts.append(file(filename, content, draw(st.sampled_from(sorted(FILES))) if odd == "type" else essence))
    body = form(*parts)
    return body[: draw(st.integers(0, len(body)))] if draw(st.integers(0, 9)) == 0 else body


@settings(max_examples=150)
@given(st.data(), bodies())
def test_chunking_changes_no_verdict(data: st.DataObject, body: bytes) -> None:
    """Of any form in any chunks."""
    places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    chunks = [body[start:stop] for start, stop in zip([0, *places], [*places, len(body)], strict=True)]
    rules = compile_rules(KINDS, data.draw(st.sampled_from([LIMIT, 500, 40])), 3)
    whole = outcome([body], rules=rules)
    assert outcome(chunks, rules=rules) == whole
    assert outcome(cut(body, data.draw(st.integers(1, 50))), rules=rules) == whole


Seen = list[tuple[str, str | None, str | None, bytes]]


def starlette_files(body: bytes) -> Seen:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    async def parsed() -> Seen:
        made = await StarletteParser(Headers({"content-type": CONTENT_TYPE}), stream()).parse()
        files = [(name, item) for name, item in made.multi_items() if isinstance(item, UploadFile)]
        seen = [(name, item.filename, item.content_type, item.file.read()) for name, item in files]
        for _, item in files:
            item.file.close()
        return seen

    return run(parsed())


def run(coroutine: Coroutine[Any, Any, Seen]) -> Seen:
    """Nothing here waits for anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        found: Seen = stop.value
        return found
    raise AssertionError("the parser waits")


def werkzeug_files(body: bytes) -> Seen:
    _, files = WerkzeugParser().parse(BytesIO(body), BOUNDARY.encode(), len(body))
    items = list(files.items(multi=True))
    seen = [(name, item.filename, item.headers.get("content-type"), item.stream.read()) for name, item in items]
    for _, item in items:
        item.close()
    return seen


@settings(max_examples=150)
@given(bodies())
@example(form(*[file(name, content, essence) for essence, (name, content) in list(FILES.items())[:3]]))
@example(form(file("a;b=c.png", png(), "image/png"), file("'.png", png(), "image/png")))
def test_both_parsers_see_the_files_that_were_judged(body: bytes) -> None:
    """Name of the field, name of the file, type and bytes, in the same order."""
    if outcome([body]) is not None:
        return
    assert starlette_files(body) == werkzeug_files(body)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
@example("a;b.png")
@example("a'b")
@example("a=b")
def test_both_parsers_read_a_name_that_passes_as_we_do(filename: str) -> None:
    """Any text, if it passes."""
    content = form(file(filename, b"x", "text/plain"))
    if outcome([content]) is None:
        assert starlette_files(content) == werkzeug_files(content) == [("file", filename, "text/plain", b"x")]


@pytest.mark.parametrize(
    ("essence", "head", "kept"),
    [
        pytest.param("image/jpeg", b"\xff\xd8\xff\xe0" + bytes(60), 65_557, id="picture"),
        pytest.param("application/zip", ZIP, DIRECTORY_BYTES, id="archive"),
        pytest.param("text/plain", b"x", 0, id="text"),
    ],
)
def test_memory_is_constant(essence: str, head: bytes, kept: int) -> None:
    """16 MB pass, and no more is held than the end of the file, twice, and a few chunks."""
    rules = compile_rules([essence], 32_000_000, 1)
    scanner = FormScanner(BOUNDARY.encode(), parts=FileJudge(rules))
    scanner.feed(file(FILES[essence][0], head, essence)[:-2])
    chunk = b"y" * 65_536
    tracemalloc.start()
    try:
        for _ in range(256):
            scanner.feed(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A growing bytearray is copied once it has to move.
    assert peak < 5 * kept + 8 * len(chunk)
