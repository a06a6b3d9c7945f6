import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.server.routing import Routes
from rejoinder.server.settings import load
from rejoinder.server.vendors import BY_NAME, VENDORS, Vendor, discover, guess, ollama_url

ALL = {vendor.env: "127.0.0.1" if vendor.env == "OLLAMA_HOST" else "made-up-key" for vendor in VENDORS if vendor.env}


def test_names_variables_and_hosts_are_there_once() -> None:
    for values in (
        [vendor.name for vendor in VENDORS],
        [vendor.env for vendor in VENDORS if vendor.env],
        [host for vendor in VENDORS for host in vendor.hosts],
    ):
        assert len(values) == len(set(values))


@pytest.mark.parametrize("vendor", [vendor for vendor in VENDORS if vendor.env], ids=lambda vendor: vendor.name)
def test_a_row_with_a_variable_is_complete(vendor: Vendor) -> None:
    found = load(None, {vendor.env: ALL[vendor.env]}).upstreams[0]
    assert found.name == vendor.name
    assert found.models == vendor.models != ()
    assert found.profile == vendor.profile
    assert found.base_url == vendor.base_url.rstrip("/")


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
    ],
)
def test_a_host_leads_to_its_vendor(host: str, name: str) -> None:
    assert guess(host, None, loopback=False) is BY_NAME[name]


@pytest.mark.parametrize("host", ["localhost", "my-x.ai", "notapi.openai.com", "api.openai.com.example", "ai", ""])
def test_a_host_that_only_looks_alike_leads_nowhere(host: str) -> None:
    assert guess(host, None, loopback=False) is None


def test_the_port_of_ollama_means_ollama_on_this_machine_only() -> None:
    assert guess("127.0.0.1", 11434, loopback=True) is BY_NAME["ollama"]
    assert guess("example.com", 11434, loopback=False) is None
    assert guess("127.0.0.1", 8000, loopback=True) is None


def test_variables_are_found_in_the_order_of_the_table() -> None:
    assert [found.vendor for found in discover(ALL)] == [vendor for vendor in VENDORS if vendor.env]
    assert [(found.variable, found.base_url) for found in discover({"GROQ_API_KEY": "k"})] == [
        ("GROQ_API_KEY", "https://api.groq.com/openai/v1")
    ]


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
        ("anthropic/claude-haiku-4.5", "openrouter"),
        ("minimax/minimax-m2:free", "openrouter"),
        ("meta-llama/llama-4-maverick", "openrouter"),
        ("meta-llama/Llama-3.3-70B-Instruct", "together"),
        ("accounts/fireworks/models/kimi-k2", "fireworks"),
    ],
)
def test_with_every_vendor_found_a_model_goes_to_the_one_it_is_plausibly_of(model: str, name: str) -> None:
    assert Routes(load(None, ALL).upstreams).find(model).upstream.name == name


@pytest.mark.parametrize("vendor", [vendor for vendor in VENDORS if vendor.example], ids=lambda vendor: vendor.name)
def test_the_example_of_a_row_is_a_model_of_it(vendor: Vendor) -> None:
    routes = Routes(load(None, {vendor.env: "made-up-key"}).upstreams)
    assert routes.find(vendor.example).model == vendor.example


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
