import json

from rejoinder.conformance.transcript import Exchange, Passage, excerpt

ASKED = Exchange("POST /responses", b'{"model":"demo"}', "200 application/json", [b'{"id":', b'"resp_1"}'])


def long(times: int = 500) -> bytes:
    return b"".join(b'data: {"sequence_number": %d}\n\n' % number for number in range(times))


def test_bodies_of_json_are_indented() -> None:
    assert excerpt([ASKED], b"") == [
        Passage('POST /responses\n{\n  "model": "demo"\n}', '200 application/json\n{\n  "id": "resp_1"\n}')
    ]


def test_what_is_no_json_stays_as_it_is() -> None:
    html = Exchange("GET /", b"", "502 text/html", [b"<p>\xff"])
    assert excerpt([html], b"") == [Passage("GET /", "502 text/html\n<p>\N{REPLACEMENT CHARACTER}")]
    deep = Exchange("GET /", b"", "200", [b"[" * 5000])
    assert excerpt([deep], b"")[0].received.startswith("200\n[[[")


def test_nothing_is_shown_of_no_answer() -> None:
    assert excerpt([Exchange("DELETE /x", b"")], b"") == [Passage("DELETE /x", "no answer")]
    assert excerpt([], b"") == []


def test_the_exchange_that_shows_it_is_the_last_and_has_a_few_before_it() -> None:
    said = [Exchange(f"GET /{number}", b"", "200", [b'{"number": %d}' % number]) for number in range(6)]
    assert [passage.sent for passage in excerpt(said, b"")] == ["GET /3", "GET /4", "GET /5"]
    assert [passage.sent for passage in excerpt(said, b'"number": 3')] == ["GET /1", "GET /2", "GET /3"]
    assert [passage.sent for passage in excerpt(said, b'"number": 0')] == ["GET /0"]
    assert [passage.sent for passage in excerpt(said, b"elsewhere")] == ["GET /3", "GET /4", "GET /5"]


def test_a_part_of_a_body_is_marked_and_indented_with_it() -> None:
    item = b'{"type":"message","id":null}'
    body = b'{"output":[%s,{"type":"other"}]}' % item
    [passage] = excerpt([Exchange("GET /", b"", "200", [body])], item)
    assert passage.mark == '{\n      "type": "message",\n      "id": null\n    }'
    assert passage.received == f"200\n{json.dumps(json.loads(body), indent=2)}"
    assert passage.mark in passage.received


def test_a_part_of_anything_else_is_marked_as_it_came() -> None:
    [passage] = excerpt([Exchange("GET /", b"", "200", [b"data: a\r\n\r\n"])], b"\r")
    assert (passage.received, passage.mark) == ("200\ndata: a\r\n\r".rstrip(), "\r")


def test_a_whole_body_has_no_mark() -> None:
    assert excerpt([ASKED], ASKED.received)[0].mark == ""


def test_what_is_long_is_cut_to_its_ends() -> None:
    [passage] = excerpt([Exchange("POST /", b"x" * 5000, "200", [long()])], b"")
    assert passage.sent.count("x") == 1500
    assert "\n[… 3500 characters]\n" in passage.sent
    assert passage.received.startswith('200\ndata: {"sequence_number": 0}')
    assert passage.received.endswith('data: {"sequence_number": 499}')
    assert len(passage.received) < 4100


def test_what_is_long_is_cut_around_the_place() -> None:
    [passage] = excerpt([Exchange("POST /", b"", "200", [long()])], b'{"sequence_number": 250}')
    assert passage.mark == '{"sequence_number": 250}'
    assert passage.received.partition(passage.mark)[0].count("\n") > 20
    assert passage.received.startswith("200\n[… ")
    assert passage.received.endswith(" characters]")


def test_a_place_near_an_end_is_cut_at_the_other_end() -> None:
    [first] = excerpt([Exchange("POST /", b"", "200", [long()])], b'{"sequence_number": 0}')
    assert first.received.startswith('200\ndata: {"sequence_number": 0}')
    [last] = excerpt([Exchange("POST /", b"", "200", [long()])], b'{"sequence_number": 499}')
    assert last.received.endswith('data: {"sequence_number": 499}')


def test_a_long_mark_is_cut_and_still_found() -> None:
    event = b"y" * 5000
    [passage] = excerpt([Exchange("POST /", b"", "200", [long(), event, long()])], event)
    assert passage.mark == "y" * 1000
    assert passage.mark in passage.received
