from rejoinder.server.replies import json


def test_a_reply_is_its_bytes_as_json() -> None:
    body = b'{"b": 1.50, "a": "\xc3\xa9"}'
    reply = json(body)
    assert (reply.status_code, bytes(reply.body)) == (200, body)
    assert dict(reply.headers) == {"content-type": "application/json", "content-length": str(len(body))}


def test_a_reply_may_have_further_headers() -> None:
    reply = json(b"{}", headers={"idempotent-replay": "true"})
    assert reply.headers["idempotent-replay"] == "true"
    assert reply.headers["content-type"] == "application/json"
