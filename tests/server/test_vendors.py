import json
import string
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge.anthropic_profile import AnthropicProfile
from rejoinder.bridge.gemini_profile import GeminiProfile
from rejoinder.bridge.profile import ChatProfile
from rejoinder.bridge.responses_profile import ResponsesProfile
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import answer, text
from rejoinder.server import vendors
from rejoinder.server.assembly import assemble
from rejoinder.server.routing import Routes
from rejoinder.server.settings import load
from rejoinder.server.vendors import (
    PROFILES,
    STRANGER,
    VENDORS,
    Auth,
    DialectName,
    Endpoint,
    Profile,
    Vendor,
    discover,
    guess,
    known,
    ollama_url,
)
from tests.server.site import closing, said

FOUND = [vendor for vendor in VENDORS if vendor.env]
ALL = {vendor.env[0]: "127.0.0.1" if vendor.env[0] == "OLLAMA_HOST" else "made-up-key" for vendor in FOUND}


def test_names_variables_and_hosts_are_there_once() -> None:
    for values in (
        [vendor.name for vendor in VENDORS],
        [variable for vendor in VENDORS for variable in vendor.env],
        [host for vendor in VENDORS for host in vendor.hosts],
    ):
        assert len(values) == len(set(values))


@pytest.mark.parametrize("vendor", FOUND, ids=lambda vendor: vendor.name)
def test_a_row_with_a_variable_is_complete(vendor: Vendor) -> None:
    found = load(None, {vendor.env[0]: ALL[vendor.env[0]]}).upstreams[0]
    assert found.name == vendor.name
    assert found.models == vendor.models != ()
    first = vendor.endpoints[0]
    assert (found.dialect, found.profile, found.base_url) == (first.dialect, first.profile, first.base_url)
    assert all(endpoint.base_url.startswith("http") for endpoint in vendor.endpoints)


@pytest.mark.parametrize("vendor", [*VENDORS, STRANGER], ids=lambda vendor: vendor.name)
def test_a_row_has_each_of_its_dialects_once(vendor: Vendor) -> None:
    spoken = [endpoint.dialect for endpoint in vendor.endpoints]
    assert len(spoken) == len(set(spoken)) > 0


def test_to_a_server_nobody_knows_every_dialect_can_be_spoken() -> None:
    assert [endpoint.dialect for endpoint in STRANGER.endpoints] == [*PROFILES]


@pytest.mark.parametrize(
    ("profile", "dialect", "auth"),
    [
        (ChatProfile(), "chat", "bearer"),
        (AnthropicProfile(), "anthropic", "x-api-key"),
        (GeminiProfile(), "gemini", "x-goog-api-key"),
        (ResponsesProfile(), "responses", "bearer"),
    ],
)
def test_the_profile_of_an_endpoint_says_its_dialect_and_how_the_key_travels(
    profile: Profile, dialect: DialectName, auth: Auth
) -> None:
    assert (Endpoint(profile=profile).dialect, Endpoint(profile=profile).key_travels) == (dialect, auth)
    assert Endpoint(profile=profile, auth="api-key").key_travels == "api-key"


@pytest.mark.parametrize(
    ("vendor", "spoken"),
    [
        ("openai", ["responses", "chat"]),
        ("anthropic", ["anthropic"]),
        ("gemini", ["gemini", "chat"]),
        ("deepseek", ["chat", "anthropic", "responses"]),
        ("vertex", ["gemini", "anthropic", "chat"]),
        ("mistral", ["chat"]),
    ],
)
def test_a_vendor_speaks_its_dialects_and_the_preferred_one_first(vendor: str, spoken: list[DialectName]) -> None:
    assert [endpoint.dialect for endpoint in known()[vendor].endpoints] == spoken


@pytest.mark.parametrize(
    ("vendor", "dialect", "base_url", "spoken"),
    [
        ("gemini", None, "", "gemini"),
        ("gemini", None, "https://generativelanguage.googleapis.com/v1beta/", "gemini"),
        ("gemini", None, "https://generativelanguage.googleapis.com/v1beta/openai/", "chat"),
        ("gemini", "gemini", "https://gateway.example/v1beta/openai", "gemini"),
        ("vertex", None, "https://aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google", "gemini"),
        (
            "vertex",
            None,
            "https://aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/anthropic",
            "anthropic",
        ),
        (
            "vertex",
            None,
            "https://aiplatform.googleapis.com/v1/projects/p/locations/global/endpoints/openapi",
            "chat",
        ),
        ("deepseek", None, "https://api.deepseek.com", "chat"),
        ("deepseek", None, "https://api.deepseek.com/Anthropic", "anthropic"),
        ("deepseek", "responses", "https://api.deepseek.com", "responses"),
        ("groq", None, "https://api.groq.com/openai/v1", "chat"),
        ("azure", None, "https://me.openai.azure.com/openai/v1", "chat"),
        ("azure", None, "https://me.services.ai.azure.com/anthropic", "anthropic"),
    ],
)
def test_a_dialect_is_the_one_that_is_said_else_the_one_of_the_address_else_the_preferred_one(
    vendor: str, dialect: DialectName | None, base_url: str, spoken: DialectName
) -> None:
    row = known()[vendor]
    found = row.endpoint(dialect, base_url)
    assert found.dialect == spoken
    assert found in row.endpoints


def test_a_dialect_that_is_not_in_a_row_is_spoken_as_to_a_server_nobody_knows() -> None:
    assert known()["mistral"].endpoint("anthropic", "") in STRANGER.endpoints
    assert known()["mistral"].endpoint(None, "https://gateway.example/mistral/anthropic").dialect == "anthropic"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.openai.com", "openai"),
        ("me.openai.azure.com", "azure"),
        ("api.deepseek.com", "deepseek"),
        ("api.moonshot.cn", "moonshot"),
        ("api.z.ai", "zai"),
        ("open.bigmodel.cn", "zai"),
        ("dashscope-intl.aliyuncs.com", "qwen"),
        ("api.groq.com", "groq"),
        ("api.cerebras.ai", "cerebras"),
        ("api.mistral.ai", "mistral"),
        ("api.x.ai", "xai"),
        ("openrouter.ai", "openrouter"),
        ("api.perplexity.ai", "perplexity"),
        ("api.together.xyz", "together"),
        ("api.fireworks.ai", "fireworks"),
        ("generativelanguage.googleapis.com", "gemini"),
        ("api.anthropic.com", "anthropic"),
        ("aiplatform.googleapis.com", "vertex"),
        ("europe-west4-aiplatform.googleapis.com", "vertex"),
        ("api.minimax.io", "minimax"),
        ("api.minimaxi.com", "minimax"),
    ],
)
def test_a_host_leads_to_its_vendor(host: str, name: str) -> None:
    assert guess(host, None, loopback=False) is known()[name]


@pytest.mark.parametrize("host", ["localhost", "my-x.ai", "notapi.openai.com", "api.openai.com.example", "ai", "*", ""])
def test_a_host_that_only_looks_alike_leads_nowhere(host: str) -> None:
    assert guess(host, None, loopback=False) is None


def test_the_port_of_ollama_means_ollama_on_this_machine_only() -> None:
    assert guess("127.0.0.1", 11434, loopback=True) is known()["ollama"]
    assert guess("example.com", 11434, loopback=False) is None
    assert guess("127.0.0.1", 8000, loopback=True) is None


def test_variables_are_found_in_the_order_of_the_table() -> None:
    assert [found.vendor for found in discover(ALL)] == FOUND
    assert [(found.variable, found.base_url) for found in discover({"GROQ_API_KEY": "k"})] == [
        ("GROQ_API_KEY", "https://api.groq.com/openai/v1")
    ]


def test_of_two_variables_of_one_vendor_the_first_that_is_set_counts() -> None:
    google = {"GOOGLE_API_KEY": "made-up-key"}
    for environ, variable in ((google, "GOOGLE_API_KEY"), ({**google, "GEMINI_API_KEY": "k"}, "GEMINI_API_KEY")):
        assert [(found.vendor.name, found.variable) for found in discover(environ)] == [("gemini", variable)]


def test_an_empty_variable_is_no_variable() -> None:
    assert discover({"OPENAI_API_KEY": " ", "OLLAMA_HOST": ""}) == []


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o-mini", "openai"),
        ("gpt-5.4-nano", "openai"),
        ("o3-mini", "openai"),
        ("ft:gpt-4o:org::id", "openai"),
        ("gpt-oss:20b", "ollama"),
        ("deepseek-r1:8b", "ollama"),
        ("qwen3-coder:30b", "ollama"),
        ("llama3.2:latest", "ollama"),
        ("gpt-oss-120b", "cerebras"),
        ("zai-glm-4.7", "cerebras"),
        ("qwen-3-coder-480b", "cerebras"),
        ("qwen3-max", "qwen"),
        ("deepseek-chat", "deepseek"),
        ("deepseek-v4-flash", "deepseek"),
        ("kimi-k2-thinking", "moonshot"),
        ("glm-5.3", "zai"),
        ("llama-3.3-70b-versatile", "groq"),
        ("mistral-small-latest", "mistral"),
        ("pixtral-12b-latest", "mistral"),
        ("grok-4-1-fast-non-reasoning", "xai"),
        ("sonar", "perplexity"),
        ("gemini-2.5-pro-preview-05-06", "gemini"),
        ("gemma-4-31b-it", "gemini"),
        ("claude-opus-5-5", "anthropic"),
        ("MiniMax-M2", "minimax"),
        ("z-ai/glm-4.7", "openrouter"),
        ("moonshotai/kimi-k2:free", "openrouter"),
        ("openrouter/anthropic/claude-haiku-4.5", "openrouter"),
        ("meta-llama/llama-4-maverick", "openrouter"),
        ("meta-llama/Llama-3.3-70B-Instruct", "together"),
        ("accounts/fireworks/models/kimi-k2", "fireworks"),
    ],
)
def test_with_every_vendor_found_a_model_goes_to_the_one_it_is_plausibly_of(model: str, name: str) -> None:
    assert Routes(load(None, ALL).upstreams).find(model).upstream.name == name


async def test_a_vendor_that_speaks_chat_completions_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ChatUpstream([answer(text("hi")), answer(text("hi again"))], key="sk-new") as provider:
        row = Vendor(
            name="newcomer",
            hosts=("newcomer.example",),
            env=("NEWCOMER_API_KEY",),
            models=("new-*",),
            endpoints=(Endpoint(provider.base_url, ChatProfile(max_tokens="max_completion_tokens")),),
        )
        monkeypatch.setattr(vendors, "VENDORS", (*VENDORS, row))
        settings = load(None, {"NEWCOMER_API_KEY": "sk-new"})
        assert settings.findings == (f"found NEWCOMER_API_KEY: upstream 'newcomer' at {provider.base_url}",)
        async with closing(assemble(settings)) as services:
            first = await said(services, model="new-1", input="hello", max_output_tokens=16)
            await said(services, model="newcomer/other", input="more", previous_response_id=first["id"])
        assert [sent.chat.model for sent in provider.requests] == ["new-1", "other"]
        assert json.loads(provider.requests[0].body)["max_completion_tokens"] == 16
        assert [message.role for message in provider.requests[1].chat.messages] == ["user", "assistant", "user"]
        assert provider.objections == []
    found = guess("eu.newcomer.example", None, loopback=False)
    assert found is known()["newcomer"] is row


@pytest.mark.parametrize("vendor", [vendor for vendor in VENDORS if vendor.example], ids=lambda vendor: vendor.name)
def test_the_example_of_a_row_is_a_model_of_it(vendor: Vendor) -> None:
    assert any(fnmatchcase(vendor.example, glob) for glob in vendor.models)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("127.0.0.1", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("[::]:9", "http://127.0.0.1:9/v1"),
        ("[::1]", "http://[::1]:11434/v1"),
        (":8000", "http://127.0.0.1:8000/v1"),
        (" box:1 ", "http://box:1/v1"),
        ("http://box", "http://box/v1"),
        ("https://box/ollama/", "https://box/ollama/v1"),
        ("box:eleven", "http://box:eleven/v1"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(host: str, url: str) -> None:
    assert ollama_url(host) == url


@given(st.text(alphabet=string.printable))
def test_whatever_ollama_host_holds_the_server_starts(text: str) -> None:
    settings = load(None, {"OLLAMA_HOST": text})
    assert settings.upstreams
    assert {upstream.name for upstream in settings.upstreams} <= {"ollama", "demo"}
