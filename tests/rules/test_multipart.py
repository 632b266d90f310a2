"""Multipart forms: what passes shows python-multipart (as Starlette drives it) and Werkzeug the same fields as us."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterable
from io import BytesIO
from typing import Any

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser as StarletteParser
from werkzeug.formparser import MultiPartParser as WerkzeugParser
from werkzeug.http import parse_options_header

from portalshield.rules.multipart import FormScanner, MultipartFault, boundary_of

NAMES = frozenset(("tenant_id", "org"))
BOUNDARY = b"b0undary"
OPEN, CLOSE = b"--b0undary\r\n", b"--b0undary--\r\n"

Fields = list[tuple[str, str]]


def part(header: bytes | str, value: bytes = b"v", *more: bytes) -> bytes:
    """One part as a browser writes it; `header` is what follows `Content-Disposition: `."""
    disposition = b"Content-Disposition: " + (header.encode() if isinstance(header, str) else header)
    return OPEN + b"\r\n".join((disposition, *more)) + b"\r\n\r\n" + value + b"\r\n"


def field(name: str, value: bytes = b"v", *more: bytes) -> bytes:
    return part(f'form-data; name="{name}"', value, *more)


def file(name: str = "f", value: bytes = b"v", *more: bytes) -> bytes:
    return part(f'form-data; name="{name}"; filename="a.bin"', value, *more)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + CLOSE


def scanned(chunks: Iterable[bytes], *, boundary: bytes = BOUNDARY, **bounds: Any) -> FormScanner:
    scanner = FormScanner(boundary, **bounds)
    for chunk in chunks:
        scanner.feed(chunk)
    scanner.close()
    return scanner


def fault(body: bytes, **bounds: Any) -> str:
    """The code of the refusal, which must be the same in one chunk and byte by byte."""
    codes = set()
    for chunks in ([body], [bytes((byte,)) for byte in body]):
        with pytest.raises(MultipartFault) as caught:
            scanned(chunks, **bounds)
        assert str(caught.value) == caught.value.code
        codes.add(caught.value.code)
    assert len(codes) == 1
    return codes.pop()


# -- the applications' parsers -----------------------------------------------------------------------------------------


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that never waits: Starlette keeps small files in memory."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    return stopped.value.value


def by_starlette(chunks: Iterable[bytes], content_type: bytes) -> Fields:
    async def stream() -> AsyncGenerator[bytes, None]:
        for chunk in chunks:
            yield chunk

    headers = Headers(raw=[(b"content-type", content_type)])
    items = finished(StarletteParser(headers, stream()).parse()).multi_items()
    for _, value in items:
        if isinstance(value, UploadFile):
            value.file.close()
    return [(name, value) for name, value in items if isinstance(value, str)]


def by_werkzeug(body: bytes, content_type: bytes) -> Fields:
    mimetype, options = parse_options_header(content_type.decode("latin-1"))
    assert mimetype == "multipart/form-data"
    # The whole body in one piece: cut between the dashes of the closing delimiter, Werkzeug 3.1 puts a CR before it
    # into the field's value.
    parser = WerkzeugParser(cls=list, buffer_size=len(body) + 1)  # type: ignore[arg-type]
    parsed: Any = parser.parse(BytesIO(body), options["boundary"].encode("ascii"), len(body))
    fields, files = parsed
    for _, stored in files:
        stored.close()
    return list(fields)


def agree(body: bytes, chunks: list[bytes], content_type: bytes) -> FormScanner | None:
    """The scanner after a form that passed, which all three read alike; None for one that was refused."""
    boundary = boundary_of(content_type)
    assert boundary is not None
    try:
        scanner = scanned(chunks, boundary=boundary)
    except MultipartFault:
        return None
    assert by_starlette(chunks, content_type) == scanner.fields
    assert by_werkzeug(body, content_type) == scanner.fields
    return scanner


CONTENT_TYPE = b"multipart/form-data; boundary=" + BOUNDARY

# -- what passes -------------------------------------------------------------------------------------------------------

PASSES = [
    pytest.param(CLOSE, [], id="empty-form"),
    pytest.param(b"--b0undary--", [], id="empty-form-without-line-end"),
    pytest.param(b"\r\n" + form(field("a")), [("a", "v")], id="line-end-before-the-first-delimiter"),
    pytest.param(
        form(field("a", b"1"), field("b", b"2"), field("a", b"3")), [("a", "1"), ("b", "2"), ("a", "3")], id="order"
    ),
    pytest.param(form(field("a", b"")), [("a", "")], id="empty-value"),
    pytest.param(form(field("", b"x")), [("", "x")], id="empty-name"),
    pytest.param(form(field("a", b"\r\n")), [("a", "\r\n")], id="value-is-a-line-end"),
    pytest.param(
        form(field("a", b"\r\n--b0undar\r\r\n-\n")), [("a", "\r\n--b0undar\r\r\n-\n")], id="almost-a-delimiter"
    ),
    pytest.param(form(field("a", b"x--b0undary--")), [("a", "x--b0undary--")], id="boundary-within-a-line"),
    pytest.param(form(field("a", "é日😀\0".encode())), [("a", "é日😀\0")], id="beyond-ascii"),
    pytest.param(form(field("größe à")), [("größe à", "v")], id="name-beyond-ascii"),
    pytest.param(form(field("a;b=c, d:e")), [("a;b=c, d:e", "v")], id="specials-within-quotes"),
    pytest.param(form(field(" a ")), [(" a ", "v")], id="blanks-within-quotes"),
    pytest.param(form(part("form-data; name=a")), [("a", "v")], id="token"),
    pytest.param(form(part('Form-Data;NAME="a";   x="y"')), [("a", "v")], id="case-blanks-and-another-parameter"),
    pytest.param(form(part('form-data; name="a"   ')), [("a", "v")], id="blanks-at-the-end"),
    pytest.param(form(part('  form-data; name="a"')), [("a", "v")], id="blanks-before-the-value"),
    pytest.param(form(file(), field("a")), [("a", "v")], id="file-first"),
    pytest.param(form(part('form-data; name="f"; filename=""')), [], id="empty-file-name"),
    pytest.param(form(part('form-data; name="f"; filename="a%22;=é.txt"')), [], id="odd-file-name"),
    pytest.param(form(file("f", b"\xff\xfe\r\n--b0undarx\n")), [], id="binary-file"),
    pytest.param(form(file("f", b"x", b"Content-Type: ?!")), [], id="odd-type-of-a-file"),
    pytest.param(form(field("a", "é".encode(), b"Content-Type: text/plain; charset=UTF-8")), [("a", "é")], id="utf-8"),
    pytest.param(
        form(field("a", b"x", b"content-type:text/plain; charset=ISO-8859-1")), [("a", "x")], id="latin-1-ascii"
    ),
    pytest.param(form(field("a", b"x", b"Content-Transfer-Encoding: 8BIT")), [("a", "x")], id="8bit"),
    pytest.param(form(field("a", b"x", b"X-Empty:", b"X-Other:  y ")), [("a", "x")], id="other-headers"),
    pytest.param(form(field("a")) + field("b") + b"\r\n--b0undary\r\n", [("a", "v")], id="epilogue"),
]


@pytest.mark.parametrize(("body", "fields"), PASSES)
def test_forms_are_read_as_both_parsers_read_them(body: bytes, fields: Fields) -> None:
    """One chunk or byte by byte, the fields are those that stand there."""
    for chunks in ([body], [bytes((byte,)) for byte in body]):
        scanner = agree(body, chunks, CONTENT_TYPE)
        assert scanner is not None
        assert scanner.fields == fields
        assert scanner.finished


REFUSED = [
    pytest.param(b"", "truncated", id="nothing"),
    pytest.param(field("a"), "truncated", id="no-end"),
    pytest.param(form(field("a"))[:-3], "truncated", id="half-an-end"),
    pytest.param(b"x" + form(field("a")), "preamble", id="preamble"),
    pytest.param(b"\r\nhello\r\n" + form(field("a")), "preamble", id="preamble-behind-a-line-end"),
    pytest.param(b"\r\n\r\n" + form(field("a")), "preamble", id="two-line-ends"),
    pytest.param(b"\n" + form(field("a")), "preamble", id="bare-line-feed-first"),
    pytest.param(b'{"tenant_id": "south", "pad": "' + b"x" * 99 + b'"}', "preamble", id="json"),
    pytest.param(b"--b0undary \r\n" + form(field("a"))[12:], "delimiter", id="padding-behind-the-first-delimiter"),
    pytest.param(b"--b0undary\n\n" + form(field("a"))[12:], "delimiter", id="bare-line-feed-behind-it"),
    pytest.param(form(field("a", b"x\r\n--b0undary \r\n" + field("b")[12:-2])), "delimiter", id="padding"),
    pytest.param(form(field("a", b"x\n" + field("b")[:-2])), "delimiter", id="bare-line-feed-before-a-delimiter"),
    pytest.param(form(field("a", b"x\r" + field("b")[:-2])), "delimiter", id="bare-return-before-a-delimiter"),
    pytest.param(form(field("a", field("b")[:-2])), "delimiter", id="delimiter-right-behind-the-headers"),
    pytest.param(form(field("a", b"\n" + CLOSE)), "delimiter", id="line-feed-and-delimiter-behind-the-headers"),
    pytest.param(form(file("f", field("b")[:-2])), "delimiter", id="delimiter-right-behind-a-file's-headers"),
    pytest.param(form(file("f", b"x\n" + field("b")[:-2])), "delimiter", id="bare-line-feed-within-a-file"),
    pytest.param(form(field("a", b"x\r\n--b0undaryx")), "delimiter", id="longer-than-the-boundary"),
    pytest.param(form(field("a", b"x\r\n--b0undary-x")), "delimiter", id="half-a-close"),
    pytest.param(form(OPEN + b"\r\nx\r\n"), "no-disposition", id="no-headers"),
    pytest.param(form(OPEN + b"Content-Type: text/plain\r\n\r\nx\r\n"), "no-disposition", id="no-disposition"),
    pytest.param(form(part('attachment; name="a"')), "disposition", id="attachment"),
    pytest.param(form(part("form-data")), "no-name", id="no-parameters"),
    pytest.param(form(part('form-data; filename="x"')), "no-name", id="file-without-a-name"),
    pytest.param(form(part('form-data; name="a"; name="b"')), "duplicate-parameter", id="two-names"),
    pytest.param(form(part('form-data; name="a"; NAME=b')), "duplicate-parameter", id="two-names-in-two-cases"),
    pytest.param(
        form(part('form-data; name="a"; filename="x"; filename="y"')), "duplicate-parameter", id="two-file-names"
    ),
    pytest.param(form(part("form-data; name=\"a\"; name*=utf-8''b")), "extended-parameter", id="name-and-name*"),
    pytest.param(form(part("form-data; name*=utf-8''b")), "extended-parameter", id="only-name*"),
    pytest.param(form(part('form-data; name*0="a"; name*1="b"')), "extended-parameter", id="continuation"),
    pytest.param(form(part("form-data; name=\"a\"; filename*=utf-8''b")), "extended-parameter", id="filename*"),
    pytest.param(form(part('form-data; name="a\\"b"')), "escape", id="escaped-quote"),
    pytest.param(form(part('form-data; name="a\\\\"; x="b"')), "escape", id="escaped-backslash"),
    pytest.param(form(part('form-data; name="a"; filename="c:\\x"')), "escape", id="backslash-in-a-file-name"),
    pytest.param(form(part('form-data; name="a%22b"')), "escape", id="percent-quote"),
    pytest.param(form(part('form-data; name="a"b"')), "disposition", id="quote-within"),
    pytest.param(form(part('form-data; name="a')), "disposition", id="quote-left-open"),
    pytest.param(form(part("form-data; name='a b'")), "disposition", id="single-quotes"),
    pytest.param(form(part('form-data; name="a";')), "disposition", id="semicolon-at-the-end"),
    pytest.param(form(part('form-data;; name="a"')), "disposition", id="two-semicolons"),
    pytest.param(form(part('; form-data; name="a"')), "disposition", id="semicolon-first"),
    pytest.param(form(part('form-data; name="a" ; x=y')), "disposition", id="blank-before-a-semicolon"),
    pytest.param(form(part('form-data ; name="a"')), "disposition", id="blank-before-the-first-semicolon"),
    pytest.param(form(part('form-data; name ="a"')), "disposition", id="blank-before-the-equals-sign"),
    pytest.param(form(part('form-data; name= "a"')), "disposition", id="blank-behind-the-equals-sign"),
    pytest.param(form(part('form-data, name="a"')), "disposition", id="comma"),
    pytest.param(form(part('form-data; name="a"; filename')), "disposition", id="key-without-a-value"),
    pytest.param(form(part('form-data; name="a"; filename=')), "disposition", id="value-of-no-length"),
    pytest.param(form(part("form-data; name=a/b")), "disposition", id="no-token"),
    pytest.param(form(part('form-data; name="_Charset_"')), "charset-field", id="charset-field"),
    pytest.param(
        form(field("a", b"v", b'Content-Disposition: form-data; name="b"')), "duplicate-header", id="two-dispositions"
    ),
    pytest.param(form(field("a", b"v", b"X-Y: 1", b"x-y: 2")), "duplicate-header", id="two-of-another-header"),
    pytest.param(form(part('form-data;\r\n name="a"')), "header-syntax", id="folded"),
    pytest.param(form(part('form-data;\tname="a"')), "header-syntax", id="tab"),
    pytest.param(form(part('form-data; name="a\0"')), "header-syntax", id="nul"),
    pytest.param(form(part('form-data; name="a"\nX: y')), "header-syntax", id="bare-line-feed-in-headers"),
    pytest.param(form(part('form-data; name="a"\n\nX: y')), "header-syntax", id="blank-line-of-bare-line-feeds"),
    pytest.param(form(part('form-data; name="a"\rX: y')), "header-syntax", id="bare-return-in-headers"),
    pytest.param(form(field("a", b"v", b"X-Y : 1")), "header-syntax", id="blank-before-the-colon"),
    pytest.param(form(field("a", b"v", b"nonsense")), "header-syntax", id="no-colon"),
    pytest.param(form(field("a", b"v", b": x")), "header-syntax", id="no-header-name"),
    pytest.param(form(part(b'form-data; name="\xff"')), "not-utf8", id="name-not-utf-8"),
    pytest.param(form(file("f", b"v", b"X: \xff")), "not-utf8", id="another-header-not-utf-8"),
    pytest.param(form(field("a", b"\xe9")), "not-utf8", id="value-not-utf-8"),
    pytest.param(form(field("a", b"\xed\xa0\x80")), "not-utf8", id="surrogate"),
    pytest.param(form(field("a", "é".encode()[:1])), "not-utf8", id="value-ends-within-a-character"),
    pytest.param(form(field("a", b"v", b"Content-Transfer-Encoding: base64")), "transfer-encoding", id="base64"),
    pytest.param(
        form(file("f", b"v", b"Content-Transfer-Encoding: quoted-printable")),
        "transfer-encoding",
        id="quoted-printable",
    ),
    pytest.param(form(field("a", b"v", b"Content-Type: text")), "content-type", id="odd-type-of-a-field"),
    pytest.param(
        form(field("a", b"v", b"Content-Type: text/plain; charset*=''ascii")), "content-type", id="extended-charset"
    ),
    pytest.param(form(field("a", b"v", b"Content-Type: text/plain; charset=utf-16")), "charset", id="utf-16"),
    pytest.param(
        form(field("a", "é".encode(), b"Content-Type: text/plain; charset=iso-8859-1")), "charset", id="latin-1"
    ),
    pytest.param(form(field("a", b"v", b"Content-Type: multipart/mixed; boundary=x")), "nested", id="nested"),
    pytest.param(form(file("f", b"v", b"Content-Type: Multipart/Mixed; boundary=x")), "nested", id="nested-file"),
    pytest.param(form(field("a", b"v", *(b"X-%d: 1" % n for n in range(8)))), "too-many-headers", id="nine-headers"),
    pytest.param(form(field("a", b"v", b"X: " + b"y" * 4094)), "headers-too-large", id="long-line"),
    pytest.param(
        form(field("a", b"v", *(b"X%d: " % n + b"y" * 3000 for n in range(3)))), "headers-too-large", id="long-lines"
    ),
    pytest.param(OPEN + b"x" * 9000, "headers-too-large", id="header-without-an-end"),
]


@pytest.mark.parametrize(("body", "code"), REFUSED)
def test_what_parsers_could_read_differently_is_refused(body: bytes, code: str) -> None:
    """The code names the reason, however the body is cut."""
    assert fault(body) == code


def test_a_refused_form_stays_refused() -> None:
    """Whatever comes later, `feed` and `close` repeat the first fault."""
    scanner = FormScanner(BOUNDARY)
    for chunk in (b"preamble, then more", CLOSE, b""):
        with pytest.raises(MultipartFault, match=r"\Apreamble\Z"):
            scanner.feed(chunk)
    assert fault_of_end(scanner) == "preamble"


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_parts_are_counted() -> None:
    """As many as allowed pass, files and fields alike; one more does not."""
    body = form(field("a"), file(), field("b"))
    assert scanned([body], max_parts=3).fields == [("a", "v"), ("b", "v")]
    assert fault(body, max_parts=2) == "too-many-parts"


def test_the_header_bound_is_per_part_and_includes_the_blank_line() -> None:
    """Exactly the bound passes in every part."""
    body = form(field("a"), field("b"))
    size = len(b'Content-Disposition: form-data; name="a"\r\n\r\n')
    assert len(scanned([body], max_header_bytes=size).fields) == 2
    assert fault(body, max_header_bytes=size - 1) == "headers-too-large"


def test_the_field_bound_is_over_all_values_held() -> None:
    """Bytes, not characters; files do not count, nor fields that nobody asked for."""
    body = form(
        field("tenant_id", "éé".encode()), file("f", b"x" * 500), field("note", b"x" * 500), field("org", b"xy")
    )
    assert scanned([body], max_field_bytes=6, names=NAMES).fields == [("tenant_id", "éé"), ("org", "xy")]
    assert fault(body, max_field_bytes=5, names=NAMES) == "field-too-large"
    assert fault(body, max_field_bytes=505) == "field-too-large"


def test_file_bytes_are_not_held() -> None:
    """After each chunk no more is kept than a delimiter could need."""
    scanner = FormScanner(BOUNDARY)
    scanner.feed(file()[: -len(b"v\r\n")])
    for _ in range(50):
        scanner.feed(b"x\r\n--b0undar" * 1000)
        assert len(scanner._buffer) <= len(b"\r\n--b0undary")


def test_the_epilogue_is_counted_and_not_held() -> None:
    """Nobody reads it, so it may say anything."""
    scanner = FormScanner(BOUNDARY)
    scanner.feed(form(field("a")))
    for _ in range(3):
        scanner.feed(field("tenant_id"))
    scanner.close()
    assert scanner.epilogue_bytes == len(b"\r\n") + 3 * len(field("tenant_id"))
    assert scanner.fields == [("a", "v")]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "known"),
    [
        pytest.param("tenant_id", ["tenant_id"], id="plain"),
        pytest.param("tenant_id[]", ["tenant_id"], id="list"),
        pytest.param("filter[tenant_id]", ["tenant_id"], id="bracketed"),
        pytest.param("filter.tenant_id", ["tenant_id"], id="dotted"),
        pytest.param("org[tenant_id]", ["org", "tenant_id"], id="two-names"),
        pytest.param("tenant", [], id="another"),
    ],
)
def test_fields_count_under_the_names_they_mean(name: str, known: list[str]) -> None:
    """As in a query; what means none of the names is not kept."""
    assert scanned([form(field(name))], names=NAMES).fields == [(each, "v") for each in known]
    assert scanned([form(file(), field(name))], names=NAMES).late == known


def test_a_file_by_a_name_that_matters_is_refused() -> None:
    """Starlette shows it among the fields, Werkzeug among the files."""
    assert fault(form(file("filter[org]")), names=NAMES) == "file-named-as-field"
    assert scanned([form(file("org"))]).reached_file


def test_fields_before_the_first_file_are_known_when_it_begins() -> None:
    """`reached_file` turns with the end of the file's header lines; what comes later is `late`."""
    scanner = FormScanner(BOUNDARY, names=NAMES)
    scanner.feed(field("tenant_id", b"north") + field("note") + file()[: -len(b"\nv\r\n")])
    reached = [scanner.reached_file]
    scanner.feed(b"\nv\r\n")
    reached.append(scanner.reached_file)
    assert reached == [False, True]
    assert (scanner.fields, scanner.late) == ([("tenant_id", "north")], [])
    scanner.feed(field("note") + field("org", b"south") + OPEN)
    assert (scanner.late, scanner.finished) == (["org"], False)
    scanner.feed(CLOSE)
    assert fault_of_end(scanner) == "truncated"


def fault_of_end(scanner: FormScanner) -> str:
    with pytest.raises(MultipartFault) as caught:
        scanner.close()
    return caught.value.code


# -- boundaries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        pytest.param(b"multipart/form-data; boundary=x", b"x", id="token"),
        pytest.param(b'Multipart/Form-Data;BOUNDARY="x y\'()+_,-./:=?"', b"x y'()+_,-./:=?", id="quoted"),
        pytest.param(b"multipart/form-data; charset=UTF-8; boundary=x", b"x", id="utf-8"),
        pytest.param(b"multipart/form-data; boundary=" + b"x" * 70, b"x" * 70, id="seventy"),
        pytest.param(b"multipart/form-data; boundary=" + b"x" * 71, None, id="seventy-one"),
        pytest.param(b'multipart/form-data; boundary=""', None, id="empty"),
        pytest.param(b"multipart/form-data", None, id="none"),
        pytest.param(b'multipart/form-data; boundary="x "', None, id="blank-at-the-end"),
        pytest.param(b"multipart/form-data; boundary=x*y", None, id="illegal-character"),
        pytest.param(b"multipart/form-data; boundary=x/y", None, id="unquoted-special"),
        pytest.param(b'multipart/form-data; boundary="x\\y"', None, id="backslash"),
        pytest.param(b'multipart/form-data; a="\\\\"; boundary=x', None, id="backslash-elsewhere"),
        pytest.param(b"multipart/form-data; boundary=x; boundary=y", None, id="two"),
        pytest.param(b"multipart/form-data; boundary=x; boundary*=y", None, id="extended"),
        pytest.param(b"multipart/form-data; boundary=x; charset=utf-16", None, id="utf-16"),
        pytest.param(b"multipart/mixed; boundary=x", None, id="mixed"),
        pytest.param(b"multipart/form-data, multipart/form-data; boundary=x", None, id="two-types"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_a_boundary_is_one_of_rfc_2046(content_type: bytes, boundary: bytes | None) -> None:
    """1 to 70 legal characters, in a field that leaves no second reading."""
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize("boundary", [b"", b"x" * 71, b"x ", b"x\r\n", b"\xff"])
def test_a_scanner_needs_a_legal_boundary(boundary: bytes) -> None:
    """A mistake of the caller, not of the form."""
    with pytest.raises(ValueError, match="RFC 2046"):
        FormScanner(boundary)


# -- properties --------------------------------------------------------------------------------------------------------

BOUNDARIES = [b"b", b"-", b"--b", b"b--", b"----WebKitFormBoundaryAaB03x", b"a b", b"b'(+_,-./:=?)", b"x" * 70]
TEXTS = [
    "",
    "a",
    "tenant_id",
    "tenant_id[]",
    "é",
    "a;b",
    "a b ",
    " ",
    "a%22",
    "=",
    "'",
    "a=b",
    "%0D",
    "\ufeff",
    "_charset_",
]
PARAMETERS = ["name", "name", "name", "filename", "filename", "Name", "name*", "name*0", "filename*", "x", "name ", ""]
KEYS = [["name"], ["name"], ["name", "filename"]]
LINES = [
    b"Content-Disposition: form-data; name=y\r\n",
    b"Content-Type: text/plain; charset=iso-8859-1\r\n",
    b'Content-Type: text/plain; charset="utf-8"\r\n',
    b"Content-Transfer-Encoding: base64\r\n",
    b"X: y\r\n",
]
FRAGMENTS = [
    *LINES,
    b"--",
    b"-",
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b";",
    b'"',
    b"\\",
    b'\\"',
    b"%22",
    b"x",
    b"\xc3\xa9",
    b"\xff",
    b"\0",
    b"\x0b",
    b"\xc2\x85",
    b"utf-8''x",
    b"; name=y",
    b'; name="y"',
    b'; filename="y"',
    b"; filename=",
    b"; name*=utf-8''y",
]


@st.composite
def parts(draw: st.DrawFn, delimiter: bytes) -> bytes:
    """Mostly what browsers send, oddities one at a time: two of them would hide each other behind one refusal."""
    odd = draw(st.sampled_from(["", "", "", "separator", "keys", "token", "line", "value", "value"]))
    keys = draw(st.lists(st.sampled_from(PARAMETERS), max_size=4) if odd == "keys" else st.sampled_from(KEYS))
    separator = draw(st.sampled_from([" ; ", ";;", ";\t", "\r\n ;", ";"])) if odd == "separator" else "; "
    disposition = "form-data"
    for key in keys:
        value = draw(st.sampled_from(TEXTS))
        disposition += f"{separator}{key}={value}" if odd == "token" else f'{separator}{key}="{value}"'
    line = draw(st.sampled_from(LINES)) if odd == "line" else b""
    pieces = [b"x", b"\r\n", b"\n", b"\r", b"-", delimiter, delimiter[:-1], "é".encode(), b"\xff"]
    values = st.lists(st.sampled_from(pieces), max_size=6).map(b"".join)
    content = draw(values if odd == "value" else st.sampled_from([b"", b"north", "é".encode()]))
    return b"Content-Disposition: " + disposition.encode() + b"\r\n" + line + b"\r\n" + content


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A boundary and a body: parts of the odd kind, then sometimes a few spliced fragments."""
    boundary = draw(st.sampled_from(BOUNDARIES))
    delimiter = b"--" + boundary
    made = draw(st.lists(parts(delimiter), max_size=4))
    body = b"".join(delimiter + b"\r\n" + each + b"\r\n" for each in made) + delimiter + b"--\r\n"
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.sampled_from([*FRAGMENTS, delimiter])) + body[at + draw(st.integers(0, 2)) :]
    return boundary, body


@st.composite
def cuts(draw: st.DrawFn, body: bytes) -> list[bytes]:
    """The body in chunks, empty ones among them."""
    places = sorted(draw(st.lists(st.integers(0, len(body)), max_size=8)))
    return [body[start:stop] for start, stop in zip([0, *places], [*places, len(body)], strict=True)]


@settings(max_examples=300)
@given(st.data(), forms())
def test_guard_and_applications_agree(data: st.DataObject, drawn: tuple[bytes, bytes]) -> None:
    """For any form that passes, in any chunks, all three see the same fields, values and order."""
    boundary, body = drawn
    content_type = b'multipart/form-data; boundary="' + boundary + b'"'
    scanner = agree(body, data.draw(cuts(body)), content_type)
    event("refused" if scanner is None else f"{len(scanner.fields)} fields")


def outcome(chunks: Iterable[bytes], boundary: bytes, names: frozenset[str] | None) -> tuple[object, ...]:
    scanner = FormScanner(boundary, names=names, max_field_bytes=20, max_parts=3)
    code = None
    try:
        for chunk in chunks:
            scanner.feed(chunk)
        scanner.close()
    except MultipartFault as refused:
        code = refused.code
    return code, scanner.fields, scanner.late, scanner.reached_file, scanner.finished, scanner.epilogue_bytes


@given(st.data(), forms(), st.sampled_from([None, NAMES]))
def test_chunking_changes_nothing(
    data: st.DataObject, drawn: tuple[bytes, bytes], names: frozenset[str] | None
) -> None:
    """Fields, verdict and everything else are those of the body in one piece."""
    boundary, body = drawn
    whole = outcome([body], boundary, names)
    assert outcome(data.draw(cuts(body)), boundary, names) == whole
    assert outcome([bytes((byte,)) for byte in body], boundary, names) == whole


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters='"\\'), max_size=20),
            st.text(st.characters(codec="utf-8"), max_size=50),
        ),
        max_size=8,
    )
)
@example([("a", "\r\n--b0undar")])
def test_ordinary_fields_pass(fields: Fields) -> None:
    """Any text comes through unchanged, under any name without a quote."""
    usable = [(name, value) for name, value in fields if "%22" not in name and "--b0undary" not in value]
    body = form(*(field(name, value.encode()) for name, value in usable))
    scanner = agree(body, [body], CONTENT_TYPE)
    assert scanner is not None
    assert scanner.fields == usable


@given(
    st.lists(
        st.sampled_from(
            [
                "; ",
                ";",
                " ",
                "boundary=",
                "Boundary=",
                "charset=",
                "boundary*=",
                '"',
                "b",
                "a/b",
                "utf-8",
                "'",
                "=",
                "\\",
                "-",
            ]
        ),
        max_size=12,
    ).map("".join)
)
@example('; boundary="a b"')
@example(";;boundary=b ;charset=utf-8;")
def test_both_parsers_find_the_boundary_we_find(parameters: str) -> None:
    """Or it is none."""
    content_type = f"multipart/form-data{parameters}".encode()
    boundary = boundary_of(content_type)
    if boundary is None:
        return
    body = b"--" + boundary + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\nv\r\n--' + boundary + b"--\r\n"
    scanner = agree(body, [body], content_type)
    assert scanner is not None
    assert scanner.fields == [("a", "v")]
