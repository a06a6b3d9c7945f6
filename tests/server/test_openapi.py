import json
from importlib.metadata import version
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from rejoinder.server import envelope, errors
from rejoinder.server.asked import whole_number
from rejoinder.server.compacting import compaction_of
from rejoinder.server.envelope import ErrorBody
from rejoinder.server.errors import ApiError, InvalidRequest, UpgradeRefused
from rejoinder.server.http import idempotency_key
from rejoinder.server.listing import Page
from rejoinder.server.openapi import OPERATIONS, ErrorEnvelope, Operation, document
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.request import CreateRequest

Json = Any  # JSON as the standard library reads it: a description is looked at from every side

DOCUMENT: Json = json.loads(document())

by_name = pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in OPERATIONS])


def described(row: Operation) -> Json:
    return DOCUMENT["paths"][row.path][row.method]


def schema_of(parameter: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(DOCUMENT["components"]["parameters"][parameter]["schema"])


def test_the_description_is_one_of_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert (DOCUMENT["openapi"], DOCUMENT["info"]["version"]) == ("3.1.0", version("rejoinder"))


def test_the_description_is_made_once() -> None:
    assert document() is document()


def test_operations_have_names_of_their_own() -> None:
    assert (
        len({row.name for row in OPERATIONS}) == len({(row.method, row.path) for row in OPERATIONS}) == len(OPERATIONS)
    )


@by_name
def test_an_operation_names_all_that_stands_in_its_path(row: Operation) -> None:
    parameters = [
        DOCUMENT["components"]["parameters"][each["$ref"].rpartition("/")[2]] for each in described(row)["parameters"]
    ]
    assert [each["name"] for each in parameters if each["in"] == "path"] == list(row.places)
    assert all(each["required"] for each in parameters if each["in"] == "path")


@by_name
def test_an_operation_says_what_it_reads_and_how_it_can_fail(row: Operation) -> None:
    operation = described(row)
    statuses = set(operation["responses"])
    assert statuses >= {"200", "400", "408", "431", "500", "503"}
    assert ("requestBody" in operation) == (row.body is not None) == ({"413", "415"} <= statuses)
    assert row.keyed == ({"401", "403"} <= statuses) == ("security" not in operation)
    assert row.streams == ("text/event-stream" in operation["responses"]["200"]["content"])
    assert {"404"} <= statuses or not row.places
    assert all("x-request-id" in answer["headers"] for answer in DOCUMENT["components"]["responses"].values())


@by_name
def test_an_example_is_one(row: Operation) -> None:
    if row.body is not None:
        [media] = described(row)["requestBody"]["content"].values()
        schema = {**media["schema"], "components": DOCUMENT["components"]}
        jsonschema_rs.Draft202012Validator(schema).validate(media["example"])


COMPACT = {"model": "m", "input": "hi"}


@pytest.mark.parametrize(
    "body",
    [
        COMPACT,
        {"model": "m", "input": [], "instructions": None},
        {"model": "m", "previous_response_id": "resp_1"},
        {"model": "m"},
        {"model": "m", "input": 5},
        {**COMPACT, "temperature": 1},
        {**COMPACT, "conversation": "conv_1"},
        {**COMPACT, "nobody_knows": 1},
    ],
    ids=json.dumps,
)
def test_what_compaction_takes_is_described(body: Json) -> None:
    compact = DOCUMENT["paths"]["/v1/responses/compact"]["post"]["requestBody"]["content"]["application/json"]
    fits = jsonschema_rs.Draft202012Validator({**compact["schema"], "components": DOCUMENT["components"]})
    assert fits.is_valid(body) == reads(
        lambda given: CreateRequest.parse(compaction_of(given)), json.dumps(body).encode()
    )


def test_every_error_there_is_has_its_place() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ApiError)}
    kinds.remove(UpgradeRefused)  # refuses what is described in words only
    create = DOCUMENT["paths"]["/v1/responses"]["post"]["responses"]
    assert {str(kind.status) for kind in kinds} <= create.keys()
    rows = (*envelope._BY_STATUS.values(), *envelope._BY_CODE.values(), envelope._OTHERWISE)
    assert {str(row.status) for row in rows} <= create.keys()


def test_the_envelope_is_what_is_written() -> None:
    written = envelope.encode(ErrorBody(400, "invalid_request_error", "input", None, "no"))
    assert msgspec.json.encode(msgspec.json.decode(written, type=ErrorEnvelope)) == written


def test_a_sick_server_answers_with_its_report() -> None:
    answer = DOCUMENT["paths"]["/health"]["get"]["responses"]["503"]
    [one, other] = answer["content"]["application/json"]["schema"]["anyOf"]
    assert one == DOCUMENT["paths"]["/health"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert other == {"$ref": "#/components/schemas/ErrorEnvelope"}


def reads(read: Any, value: object) -> bool:
    try:
        read(value)
    except (InvalidRequest, BadRequest):
        return False
    return True


@pytest.mark.parametrize("limit", [0, 1, 100, 101, -1])
def test_a_limit_is_described_as_it_is_read(limit: int) -> None:
    assert schema_of("limit").is_valid(limit) == reads(Page.of, {"limit": str(limit)})


@pytest.mark.parametrize("order", ["asc", "desc", "up", ""])
def test_an_order_is_described_as_it_is_read(order: str) -> None:
    assert schema_of("order").is_valid(order) == reads(Page.of, {"order": order})


def test_a_page_begins_as_it_is_described() -> None:
    parameters = DOCUMENT["components"]["parameters"]
    assert (parameters["limit"]["schema"]["default"], parameters["order"]["schema"]["default"]) == (20, "desc")
    assert "default" not in parameters["after"]["schema"]


@pytest.mark.parametrize("number", [0, 10**15 - 1, 10**15, -1])
def test_a_sequence_number_is_described_as_it_is_read(number: int) -> None:
    asked = {"starting_after": str(number)}
    assert schema_of("starting_after").is_valid(number) == reads(
        lambda query: whole_number(query, "starting_after"), asked
    )


@pytest.mark.parametrize("key", ["a", "!~", "k" * 255, "k" * 256, "", "a b", "é"])
def test_an_idempotency_key_is_described_as_it_is_read(key: str) -> None:
    given = [(b"idempotency-key", key.encode("latin-1"))]
    assert schema_of("idempotency_key").is_valid(key) == reads(idempotency_key, given)
