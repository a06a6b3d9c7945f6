import contextlib
import hashlib
import re
import string
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.bridge.profile import ChatProfile
from rejoinder.server.settings import (
    Credential,
    ServerSettings,
    Settings,
    SettingsError,
    UpstreamSettings,
    digest,
    is_name,
    load,
    loopback,
)
from rejoinder.server.vendors import PROFILES, STRANGER, DialectName, Endpoint, known

LOCAL = '[[upstream]]\nname = "local"\nbase_url = "http://127.0.0.1:9/v1"\nmodels = ["*"]\n'
CANARY = "sk-canary-7f3a"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings(text: str, environ: Mapping[str, str] | None = None) -> Settings:
    Path("some.toml").write_text(text, encoding="utf-8")
    return load(Path("some.toml"), environ or {})


def upstream(text: str, environ: Mapping[str, str] | None = None) -> UpstreamSettings:
    return settings(text, environ).upstreams[0]


def endpoint(vendor: str) -> Endpoint:
    return known()[vendor].endpoints[0]


def refusal(text: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(text, environ)
    assert CANARY not in str(caught.value)
    return str(caught.value)


def test_with_nothing_configured_the_demo_answers_on_loopback() -> None:
    found = load(None, {})
    assert found.server == ServerSettings()
    assert found.keys == ()
    [demo] = found.upstreams
    assert (demo.name, demo.dialect, demo.models, demo.example) == ("demo", "demo", ("demo",), "demo")
    assert "'demo' answers" in found.findings[0]


def test_every_setting_of_the_documented_file_is_read() -> None:
    found = settings(
        f"""
        [server]
        host = "::1"
        port = 9
        store = "disk:./x"
        max_body_bytes = 10
        header_timeout = 1
        body_timeout = 2.5
        first_byte_timeout = 3.0
        stall_timeout = 4.0
        drain_timeout = 5.0
        retries = 0
        retry_budget = 6
        [[key]]
        owner = "alice"
        sha256 = "{digest("one").upper()}"
        [[upstream]]
        name = "local"
        dialect = "chat"
        base_url = "http://127.0.0.1:8000/v1/"
        api_key_env = "LOCAL_KEY"
        models = ["llama3.2", "qwen*"]
        aliases = {{ fast = "qwen3:8b" }}
        headers = {{ X-Title = "mine" }}
        reasoning = "raw"
        grammar = "repair"
        auth = "api-key"
        [upstream.chat]
        max_tokens = "max_completion_tokens"
        options = ["user"]
        extra = {{ top_k = 3, nested = {{ a = [1, "b"] }} }}
        """,
        {"LOCAL_KEY": f" {CANARY}\n"},
    )
    assert found.server == ServerSettings(
        host="::1",
        port=9,
        store="disk:./x",
        max_body_bytes=10,
        header_timeout=1.0,
        body_timeout=2.5,
        first_byte_timeout=3.0,
        stall_timeout=4.0,
        drain_timeout=5.0,
        retries=0,
        retry_budget=6.0,
    )
    assert [(key.owner, key.sha256) for key in found.keys] == [("alice", digest("one"))]
    [local] = found.upstreams
    assert (local.name, local.dialect, local.base_url) == ("local", "chat", "http://127.0.0.1:8000/v1")
    assert (local.models, local.aliases) == (("llama3.2", "qwen*"), {"fast": "qwen3:8b"})
    assert (local.first_byte_timeout, local.stall_timeout) == (3.0, 4.0)
    assert (local.reasoning, local.grammar) == ("raw", "repair")
    assert (local.auth, local.headers, local.example, local.why) == (
        "api-key",
        {"x-title": "mine"},
        "llama3.2",
        "some.toml",
    )
    assert local.credential.reveal() == CANARY
    assert local.profile == ChatProfile(
        max_tokens="max_completion_tokens",
        options=("user",),
        extra={"top_k": msgspec.Raw(b"3"), "nested": msgspec.Raw(b'{"a":[1,"b"]}')},
    )


def test_the_file_beside_us_is_used_when_no_other_is_named() -> None:
    Path("rejoinder.toml").write_text("[server]\nport = 99\n", encoding="utf-8")
    assert load(None, {}).server.port == 99


def test_variables_win_over_the_file_and_flags_over_both() -> None:
    Path("rejoinder.toml").write_text("[server]\nport = 1\nstore = 'a'\nstall_timeout = 1.0", encoding="utf-8")
    environ = {"REJOINDER_PORT": "2", "REJOINDER_STORE": "b", "REJOINDER_STALL_TIMEOUT": "7", "REJOINDER_HOST": " "}
    found = load(None, environ, port=3, host="localhost")
    assert (found.server.host, found.server.port, found.server.store) == ("localhost", 3, "b")
    assert found.upstreams[0].stall_timeout == 7.0


def test_what_a_variable_replaces_is_not_judged() -> None:
    assert settings("[server]\nport = 'eighty'", {"REJOINDER_PORT": "80"}).server.port == 80


@pytest.mark.parametrize("name", ServerSettings.__struct_fields__)
def test_every_setting_of_the_server_has_its_variable(name: str) -> None:
    other = {"host": "127.0.0.7", "on_disconnect": "finish", "background_recovery": "continue"}
    value = {**other, "websocket": "False", "websocket_compression": "True"}.get(name, "17")
    found = load(None, {f"REJOINDER_{name.upper()}": value})
    assert str(getattr(found.server, name)) in (value, f"{value}.0")


def test_a_misspelt_variable_is_told_and_a_foreign_one_is_not() -> None:
    found = load(
        None, {"REJOINDER_PROT": "1", "REJOINDER_APIKEY": "1", "REJOINDER_SEAL_KEYS": "", "REJOINDER_CODEX": ""}
    )
    assert found.findings[:-1] == (
        "REJOINDER_APIKEY is not a setting; did you mean REJOINDER_API_KEY?",
        "REJOINDER_PROT is not a setting; did you mean REJOINDER_PORT?",
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("serve = 1", "some.toml: serve: there is no setting of this name; did you mean 'server'?"),
        ("[server]\nprot = 1", "some.toml: server.prot: there is no setting of this name; did you mean 'port'?"),
        ("[server]\nport = 'x'", "some.toml: server.port: expected an integer, got a string"),
        ("[server]\nport = 65536", "some.toml: server.port: expected an integer <= 65535, got 65536"),
        ("[server]\nstall_timeout = 0", "some.toml: server.stall_timeout: expected a number > 0.0, got 0"),
        ("[server]\nstall_timeout = inf", "some.toml: server.stall_timeout: expected a finite number of seconds"),
        ("[server]\nretries = -1", "some.toml: server.retries: expected an integer >= 0, got -1"),
        ("[server]\nretry_budget = inf", "some.toml: server.retry_budget: expected a finite number of seconds"),
        ("[server]\nhost = ''", "some.toml: server.host: expected a text, got an empty one"),
        (f"[server]\napi_key = '{CANARY}'", "some.toml: server.api_key: keys are not written into this file, only"),
        (f"[[key]]\nowner = 'a'\nkey = '{CANARY}'", "some.toml: key[0].key: keys are not written into this file"),
        ("[[key]]\nowner = 'a b'\nsha256 = ''", "some.toml: key[0].owner: expected letters, digits"),
        (f"[[key]]\nowner = 'a'\nsha256 = '{CANARY}'", "some.toml: key[0].sha256: expected the 64 hex digits"),
        ("[[key]]\nowner = 'a'", "some.toml: key[0]: 'sha256' is missing"),
        ("[key]\nowner = 'a'", "some.toml: key: expected a list, got a table; a table that can be repeated"),
        ("[[upstream]]\nnam = 'a'", "some.toml: upstream[0].nam: there is no setting of this name; did you mean 'nam"),
        ("[[upstream]]\nname = 'a/b'", "some.toml: upstream[0].name: expected letters, digits"),
        (
            "[[upstream]]\nname = 'a'\ndialect = 'chatt'",
            "upstream[0].dialect: expected one of 'chat', 'anthropic', 'gemi",
        ),
        (LOCAL + "grammar = 'mend'", "upstream[0].grammar: expected one of 'pass', 'check', 'repair', got 'mend'"),
        (LOCAL + f"auth = '{CANARY}'", "upstream[0].auth: expected one of 'bearer', 'api-key', 'x-api-key', 'x-goog"),
        (
            LOCAL + "dialect = 'responses'\nchat = { max_tokens = 'max_tokens' }",
            "upstream 'local' chat: this upstream speaks 'responses', so the table has no effect; write dialect = "
            '"chat", or call the table [upstream.responses]',
        ),
        (LOCAL + "gemini = {}", "upstream 'local' gemini: this upstream speaks 'chat', so the table has no effect"),
        (LOCAL + "dialect = 'anthropic'\nanthropic = { max = 1 }", "upstream 'local' anthropic.max: there is no sett"),
        (f"[[upstream]]\napi_key = '{CANARY}'", "upstream[0].api_key: keys are not written into this file; write api_"),
        (f"[[upstream]]\ntoken = '{CANARY}'", "upstream[0].token: keys are not written into this file; write api_"),
        (LOCAL + LOCAL, "some.toml: two [[upstream]] are called 'local'; give each its own name"),
        (LOCAL + "aliases = { a = 1 }", "upstream[0].aliases.a: expected a string, got 1"),
        (LOCAL + "aliases = { 'a*' = 'b' }", "upstream 'local' aliases: expected one name for one model"),
        (LOCAL + "aliases = { '' = 'b' }", "upstream 'local' aliases: expected one name for one model"),
        (LOCAL + "aliases = { a = 'b c' }", "upstream 'local' models: expected names of printable characters"),
        (LOCAL + "vendor = 'grok'", "upstream 'local' vendor: no vendor of this name is known; did you mean 'groq'?"),
        (LOCAL + "vendor = '?'", "upstream 'local' vendor: no vendor of this name is known; expected one of 'openai',"),
        (
            LOCAL + "chat = { max_token = 'x' }",
            "upstream 'local' chat.max_token: there is no setting of this name; did",
        ),
        (LOCAL + "chat = { tool_choice = 'x' }", "chat.tool_choice: expected one of 'full', 'any', 'auto', got 'x'"),
        (LOCAL + "chat = { extra = 'x' }", "upstream 'local' chat.extra: expected a table, got a string"),
        (LOCAL + "headers = { 'a b' = 'x' }", "upstream 'local' headers: expected the name of a header"),
        (LOCAL + f"headers = {{ X-API-Key = '{CANARY}' }}", "headers.X-API-Key: this looks like a credential; it bel"),
        (LOCAL + f"headers = {{ Cookie = '{CANARY}' }}", "headers.Cookie: this looks like a credential; it belongs"),
        (LOCAL + "headers = { Host = 'x' }", "headers.Host: the server sets this header itself; remove it"),
        (LOCAL + 'headers = { X-A = "a\\r\\nb" }', "headers.X-A: expected printable ASCII"),
        (LOCAL + "api_key_env = 'A'\napi_key_file = 'b'", "api_key_file: expected this or api_key_env, got both"),
        (LOCAL + "api_key_env = 'NO_KEY'", "api_key_env: the environment variable 'NO_KEY' is not set; export it, or"),
        (LOCAL + f"api_key_env = '{CANARY}'", "api_key_env: the environment variable it names is not set"),
        (LOCAL + "api_key_file = 'gone'", "upstream 'local' api_key_file: the file cannot be read: No such file"),
        ("[[upstream]]\nname = 'a'\nbase_url = 'http://[::1]:1/v1'", "upstream 'a' models: is missing: list the"),
        ("[[upstream]]\nname = 'a'\nmodels = ['']", "upstream 'a' base_url: is missing: write where it listens"),
        ("[[upstream]]\nname = 'a'\nvendor = 'openai'\nmodels = ['']", "models: expected names of printable"),
        (
            "[[upstream]]\nname = 'a'\ndialect = 'demo'\nbase_url = 'http://x'",
            "upstream 'a' base_url: the dialect 'demo' calls nobody; leave this out",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place_and_what_to_write(text: str, told: str) -> None:
    assert told in refusal(text)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://127.0.0.1", "expected http://host"),
        ("127.0.0.1:80", "expected http://host"),
        ("http://", "expected http://host"),
        ("http://[::1/v1", "expected http://host"),
        ("http://127.0.0.1:port", "expected http://host"),
        ("http://127.0.0.1:99999", "expected http://host"),
        (f"http://me:{CANARY}@127.0.0.1/v1", "a user or password does not belong into the address"),
        (f"https://api.x.ai/v1?key={CANARY}", "expected no query and no fragment"),
        ("https://api.x.ai/v1?", "expected no query and no fragment"),
        ("https://api.x.ai/v1#a", "expected no query and no fragment"),
        ("https://api.x.ai/v 1", "expected a URL of printable ASCII"),
        ("https://bücher.example/v1", "expected a URL of printable ASCII"),
        ("https://api.x.ai\\\\@evil", "expected a URL of printable ASCII"),
        ("http://10.1.2.3/v1", "plain http to '10.1.2.3' shows prompts and keys to the network"),
        ("http://localhost.evil.example/v1", "plain http to 'localhost.evil.example'"),
    ],
)
def test_an_address_that_could_leak_or_not_be_joined_is_refused(url: str, told: str) -> None:
    assert f"upstream 'a' base_url: {told}" in refusal(f'[[upstream]]\nname = "a"\nmodels = ["*"]\nbase_url = "{url}"')


def test_plain_http_to_another_machine_is_possible_when_it_is_said() -> None:
    text = '[[upstream]]\nname = "a"\nmodels = ["*"]\nbase_url = "http://10.1.2.3/v1"\nallow_http = true'
    assert upstream(text).base_url == "http://10.1.2.3/v1"


@given(st.text(alphabet=string.printable, max_size=40))
def test_an_address_is_either_refused_or_joins_to_one_of_the_same_host(text: str) -> None:
    url = msgspec.json.encode(f"https://{text}").decode()
    with contextlib.suppress(SettingsError):
        found = upstream(f'[[upstream]]\nname = "a"\nmodels = ["*"]\nbase_url = {url}').base_url
        assert not set("?# \\\r\n\t") & set(found)
        assert "@" not in urlsplit(found).netloc
        assert not found.endswith("/")
        assert urlsplit(f"{found}/models").hostname == urlsplit(found).hostname is not None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com"])
def test_an_address_others_can_reach_needs_a_key(host: str) -> None:
    told = refusal(f'[server]\nhost = "{host}"')
    assert "there is no API key" in told
    assert "rejoinder key new OWNER" in told
    assert settings(f'[server]\nhost = "{host}"', {"REJOINDER_API_KEY": "k"}).server.host == host


@pytest.mark.parametrize(
    ("host", "ours"),
    [("localhost", True), ("LOCALHOST", True), ("127.8.9.1", True), ("::1", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback_is_an_address_and_not_a_guess(host: str, ours: bool) -> None:
    assert loopback(host) is ours


def test_the_key_of_the_environment_is_kept_as_its_digest_only() -> None:
    found = load(None, {"REJOINDER_API_KEY": f"{CANARY}\n"})
    [key] = found.keys
    assert (key.owner, key.sha256) == ("default", hashlib.sha256(CANARY.encode()).hexdigest())


def test_the_same_key_twice_is_refused() -> None:
    block = f'[[key]]\nowner = "alice"\nsha256 = "{digest(CANARY)}"\n'
    assert "key[1].sha256: this is the key of 'alice' again" in refusal(block + block.replace("alice", "bob"))
    assert "REJOINDER_API_KEY is the key of 'alice' again" in refusal(block, {"REJOINDER_API_KEY": CANARY})


def test_two_keys_of_one_owner_are_how_keys_are_changed() -> None:
    block = '[[key]]\nowner = "alice"\nsha256 = "{}"\n'
    assert len(settings(block.format(digest("1")) + block.format(digest("2"))).keys) == 2


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    assert "REJOINDER_API_KEY: expected printable ASCII" in refusal("", {"REJOINDER_API_KEY": key})
    told = refusal(LOCAL + "api_key_env = 'LOCAL_KEY'", {"LOCAL_KEY": key})
    assert "upstream 'local': expected a key of printable ASCII" in told
    assert key not in told


def test_a_key_file_is_read_beside_the_settings() -> None:
    Path("folder").mkdir()
    Path("folder/key").write_text(f"{CANARY}\n", encoding="utf-8")
    Path("folder/key").chmod(0o600)
    Path("folder/some.toml").write_text(LOCAL + "api_key_file = 'key'", encoding="utf-8")
    found = load(Path("folder/some.toml"), {})
    assert found.upstreams[0].credential.reveal() == CANARY
    assert found.findings == ()


def test_a_key_file_that_others_can_read_is_told() -> None:
    Path("key").write_text(CANARY, encoding="utf-8")
    Path("key").chmod(0o644)
    [finding] = settings(LOCAL + "api_key_file = 'key'").findings
    assert finding == "the key file of upstream 'local' can be read by others; chmod 600 it"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"])
def test_a_key_file_without_a_key_is_refused(content: bytes) -> None:
    Path("key").write_bytes(content)
    assert "upstream 'local'" in refusal(LOCAL + "api_key_file = 'key'")


def test_no_secret_is_in_the_repr_of_the_settings() -> None:
    found = settings(LOCAL + "api_key_env = 'A'", {"A": CANARY, "REJOINDER_API_KEY": CANARY, "GROQ_API_KEY": CANARY})
    told = f"{found!r} {found}"
    assert CANARY not in told
    assert digest(CANARY) not in told
    assert "Credential(\"environment variable 'A'\")" in told
    assert "ApiKey(owner='default')" in told


def test_a_credential_is_shown_by_its_source() -> None:
    assert repr(Credential(CANARY, "key file")) == "Credential('key file')"


def test_a_host_decides_the_profile_and_a_named_vendor_wins_over_it() -> None:
    text = '[[upstream]]\nname = "a"\nbase_url = "https://api.deepseek.com"\nmodels = ["*"]\n'
    assert upstream(text).profile == endpoint("deepseek").profile
    assert upstream(text + 'vendor = "vllm"').profile == endpoint("vllm").profile
    assert upstream(LOCAL).profile == ChatProfile()


def test_a_field_of_the_profile_is_replaced_as_a_whole_and_the_rest_is_the_vendors() -> None:
    text = '[[upstream]]\nname = "a"\nvendor = "deepseek"\nchat = { effort_values = { low = "high" } }'
    expected = msgspec.structs.replace(endpoint("deepseek").profile, effort_values={"low": "high"})
    assert upstream(text).profile == expected
    assert upstream(text).base_url == endpoint("deepseek").base_url


@pytest.mark.parametrize("dialect", PROFILES)
def test_every_dialect_has_a_table_of_its_own_name(dialect: DialectName) -> None:
    found = upstream(LOCAL + f"dialect = '{dialect}'\n[upstream.{dialect}]\nextra = {{ top_k = 3 }}")
    profile = STRANGER.endpoint(dialect, "").profile
    assert found.dialect == dialect
    assert found.profile == msgspec.structs.replace(profile, extra={"top_k": msgspec.Raw(b"3")})


@pytest.mark.parametrize("vendor", ["openai", "deepseek", "gemini", "zai", "ollama"])
def test_a_vendor_has_an_address_and_a_profile_for_each_of_its_dialects(vendor: str) -> None:
    for expected in known()[vendor].endpoints:
        found = upstream(f'[[upstream]]\nname = "a"\nvendor = "{vendor}"\ndialect = "{expected.dialect}"')
        assert (found.dialect, found.base_url) == (expected.dialect, expected.base_url)
        assert (found.profile, found.auth) == (expected.profile, expected.key_travels)


def test_a_dialect_a_vendor_is_not_known_to_speak_needs_an_address() -> None:
    text = '[[upstream]]\nname = "a"\nvendor = "mistral"\ndialect = "gemini"\n'
    assert "upstream 'a' base_url: is missing" in refusal(text)
    assert upstream(text + 'base_url = "https://api.mistral.ai/gemini"').dialect == "gemini"


@pytest.mark.parametrize(
    ("base_url", "dialect", "auth"),
    [
        ("https://me.openai.azure.com/openai/v1", "chat", "api-key"),
        ("https://api.openai.com/v1", "responses", "bearer"),
        ("https://api.deepseek.com/anthropic", "anthropic", "x-api-key"),
        ("https://api.z.ai/api/anthropic", "anthropic", "bearer"),
        ("https://generativelanguage.googleapis.com/v1beta", "gemini", "x-goog-api-key"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "chat", "bearer"),
        ("https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1", "gemini", "bearer"),
        ("https://gateway.example/anthropic/", "anthropic", "x-api-key"),
        ("https://gateway.example/v1", "chat", "bearer"),
    ],
)
def test_an_address_says_the_dialect_and_how_the_key_travels(base_url: str, dialect: str, auth: str) -> None:
    found = upstream(f'[[upstream]]\nname = "a"\nbase_url = "{base_url}"\nmodels = ["x"]')
    assert (found.dialect, found.auth) == (dialect, auth)


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ("bearer", {"authorization": f"Bearer {CANARY}"}),
        ("api-key", {"api-key": CANARY}),
        ("x-api-key", {"x-api-key": CANARY}),
        ("x-goog-api-key", {"x-goog-api-key": CANARY}),
    ],
)
def test_the_settings_may_say_how_the_key_travels(auth: str, header: Mapping[str, str]) -> None:
    text = LOCAL + f"auth = '{auth}'\napi_key_env = 'A'\nheaders = {{ Anthropic-Beta = 'mine' }}"
    assert upstream(text, {"A": CANARY}).sent_headers() == {"anthropic-beta": "mine", **header}


def test_without_a_key_only_the_configured_headers_are_sent() -> None:
    found = upstream(LOCAL + "headers = { X-Title = 'mine' }")
    assert found.sent_headers() == {"x-title": "mine"}
    assert found.sent_headers() is not found.headers


def test_how_reasoning_is_shown_can_be_said_of_every_dialect() -> None:
    assert upstream(LOCAL).reasoning == "summary"
    assert upstream(LOCAL + "reasoning = 'raw'").reasoning == "raw"
    assert upstream(LOCAL + "dialect = 'gemini'").reasoning == "summary"
    assert upstream(LOCAL + "dialect = 'gemini'\nreasoning = 'raw'").reasoning == "raw"


@pytest.mark.parametrize("setting", ['grammar = "check"', 'grammar = "repair"', 'reasoning = "raw"'])
def test_what_would_have_no_effect_on_what_is_relayed_is_refused(setting: str) -> None:
    with pytest.raises(SettingsError, match=f"{setting.split()[0]}.* remove this"):
        upstream(LOCAL + f"dialect = 'responses'\n{setting}")


def test_an_upstream_may_claim_nothing_but_its_prefix() -> None:
    assert upstream('[[upstream]]\nname = "a"\nvendor = "openai"\nmodels = []').models == ()


def test_a_demo_upstream_can_be_configured_beside_others() -> None:
    text = '[[upstream]]\nname = "try"\ndialect = "demo"\nmodels = ["x"]\naliases = { y = "x" }\n'
    [demo, local] = settings(text + 'reasoning = "raw"\ngrammar = "check"\n' + LOCAL).upstreams
    assert (demo.name, demo.dialect, demo.models, demo.aliases) == ("try", "demo", ("x",), {"y": "x"})
    assert (demo.reasoning, demo.grammar) == ("raw", "check")
    assert local.dialect == "chat"


def test_upstreams_of_the_file_come_first_and_found_ones_behind_them() -> None:
    found = settings(LOCAL, {"OPENAI_API_KEY": CANARY, "OLLAMA_HOST": "127.0.0.1"})
    assert [upstream.name for upstream in found.upstreams] == ["local", "openai", "ollama"]
    assert [upstream.discovered for upstream in found.upstreams] == [False, True, True]
    assert found.findings == (
        "found OPENAI_API_KEY: upstream 'openai' at https://api.openai.com/v1",
        "found OLLAMA_HOST: upstream 'ollama' at http://127.0.0.1:11434/v1",
    )
    assert found.upstreams[1].credential.reveal() == CANARY
    assert found.upstreams[2].credential.reveal() is None
    assert found.upstreams[1].why == "found OPENAI_API_KEY"


@pytest.mark.parametrize(
    ("variable", "name", "dialect"),
    [
        ("OPENAI_API_KEY", "openai", "responses"),
        ("ANTHROPIC_API_KEY", "anthropic", "anthropic"),
        ("GEMINI_API_KEY", "gemini", "gemini"),
        ("GOOGLE_API_KEY", "gemini", "gemini"),
        ("GROQ_API_KEY", "groq", "chat"),
    ],
)
def test_the_key_of_a_provider_alone_makes_an_upstream(variable: str, name: str, dialect: str) -> None:
    found = load(None, {variable: CANARY})
    [upstream] = found.upstreams
    assert (upstream.name, upstream.dialect, upstream.why) == (name, dialect, f"found {variable}")
    assert upstream.credential.reveal() == CANARY
    assert upstream.models == known()[name].models
    assert found.findings == (f"found {variable}: upstream '{name}' at {upstream.base_url}",)


def test_an_upstream_of_the_file_replaces_the_found_one_of_its_name() -> None:
    found = settings(LOCAL.replace("local", "ollama"), {"OLLAMA_HOST": "127.0.0.1"})
    assert [upstream.base_url for upstream in found.upstreams] == ["http://127.0.0.1:9/v1"]
    assert found.findings == ("your [[upstream]] 'ollama' replaces the one found by OLLAMA_HOST",)


def test_a_found_variable_that_cannot_be_used_is_told_and_left_out() -> None:
    found = settings(LOCAL, {"OLLAMA_HOST": "10.0.0.1", "OPENAI_API_KEY": "a b"})
    assert [upstream.name for upstream in found.upstreams] == ["local"]
    assert "found OPENAI_API_KEY: upstream 'openai': expected a key of printable ASCII" in found.findings[0]
    assert "plain http to '10.0.0.1'" in found.findings[1]
    assert all(finding.endswith("; left out") for finding in found.findings)


def test_a_known_vendor_called_without_the_key_that_is_set_is_told() -> None:
    text = '[[upstream]]\nname = "mine"\nvendor = "groq"\n'
    told = settings(text, {"GROQ_API_KEY": CANARY}).findings[0]
    assert told == (
        "upstream 'mine' is called without a key though GROQ_API_KEY is set; write api_key_env = \"GROQ_API_KEY\" "
        "to use it"
    )


def test_the_variable_that_is_set_is_the_one_that_is_named() -> None:
    text = '[[upstream]]\nname = "mine"\nvendor = "gemini"\n'
    told = settings(text, {"GOOGLE_API_KEY": CANARY}).findings[0]
    assert told.startswith("upstream 'mine' is called without a key though GOOGLE_API_KEY is set")
    assert settings('[[upstream]]\nname = "ollama"\nvendor = "ollama"\n', {"OLLAMA_HOST": "x"}).findings == (
        "your [[upstream]] 'ollama' replaces the one found by OLLAMA_HOST",
    )


def test_the_example_of_an_upstream_is_a_name_it_lists_or_the_vendors() -> None:
    assert upstream(LOCAL).example == ""
    assert upstream(LOCAL + "aliases = { fast = 'x' }").example == "fast"
    assert upstream('[[upstream]]\nname = "a"\nvendor = "groq"').example == known()["groq"].example


def test_every_example_of_the_readme_is_read_as_it_says() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    spoken: dict[str, tuple[str, str]] = {}
    for example in re.findall(r"```toml\n(.*?)```", readme, re.DOTALL):
        environ = dict.fromkeys(re.findall(r'api_key_env = "(\w+)"', example), CANARY)
        found = settings(example.replace("…", digest("a key")), environ).upstreams
        spoken |= {upstream.name: (upstream.dialect, upstream.auth) for upstream in found if not upstream.discovered}
    assert spoken == {
        "local": ("chat", "bearer"),
        "anthropic": ("anthropic", "x-api-key"),
        "gemini": ("gemini", "x-goog-api-key"),
        "azure": ("responses", "api-key"),
        "vertex": ("gemini", "bearer"),
        "vertex-claude": ("anthropic", "bearer"),
        "vllm": ("chat", "bearer"),
        "vllm-responses": ("responses", "bearer"),
        "zai": ("anthropic", "bearer"),
        "gateway": ("anthropic", "bearer"),
    }


def test_the_settings_of_the_server_in_the_readme_are_all_there_are_and_the_defaults() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    [table] = re.findall(r"^\[server\][^\n]*\n(.*?)\n\n", readme, re.DOTALL | re.MULTILINE)
    assert settings("[server]\n" + table).server == ServerSettings()
    assert re.findall(r"^(\w+) =", table, re.MULTILINE) == [*ServerSettings.__struct_fields__]


@pytest.mark.parametrize(
    ("text", "good"), [("a-b_c.1", True), ("", False), ("a/b", False), ('a"', False), ("-a", False)]
)
def test_names_need_no_quoting(text: str, good: bool) -> None:
    assert is_name(text) is good
