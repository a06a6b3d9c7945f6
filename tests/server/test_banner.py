from pathlib import Path

import msgspec
import pytest

from rejoinder.server.banner import address, banner, example, report
from rejoinder.server.settings import ServerSettings, Settings, digest, load

CANARY = "sk-canary-7f3a"


def settings(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Settings:
    path = tmp_path / "some.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ or {})


LOCAL = '[[upstream]]\nname = "local"\nbase_url = "http://127.0.0.1:9/v1"\n'


def test_with_nothing_configured_everything_to_start_is_said() -> None:
    told = banner(load(None, {}))
    assert " at http://127.0.0.1:8080/v1\n" in told
    assert "access  open to this machine only, no API key" in told
    assert "store   disk:./rejoinder-data" in told
    assert "Codex: run `rejoinder codex --write --base-url http://127.0.0.1:8080/v1` once" in told
    assert "  demo  answers by itself  (nothing else is configured)\n    demo\n" in told
    assert "'demo' answers" in told
    assert '  [model_providers.rejoinder]\n  name = "Rejoinder"\n  base_url = "http://127.0.0.1:8080/v1"' in told
    assert '  model_provider = "rejoinder"\n  model = "demo"\n' in told
    assert '  client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")' in told
    assert 'client.responses.create(model="demo", input="Say hello.")' in told


def test_upstreams_are_told_in_order_with_their_models_and_why_they_are_there(tmp_path: Path) -> None:
    text = LOCAL + 'api_key_env = "MINE"\nmodels = ["a", "b*"]\naliases = { fast = "a" }\n'
    told = report(settings(tmp_path, text, {"MINE": CANARY, "GROQ_API_KEY": CANARY}))
    file = tmp_path / "some.toml"
    assert (
        f"  local  http://127.0.0.1:9/v1  chat  ({file}, key from environment variable 'MINE')\n    a, b*, fast" in told
    )
    assert "  groq  https://api.groq.com/openai/v1  chat  (found GROQ_API_KEY)\n    llama-*-versatile" in told
    assert "findings\n  - found GROQ_API_KEY" in told
    assert "claimed twice" not in told


def test_the_dialect_of_each_upstream_is_told() -> None:
    told = report(load(None, {"OPENAI_API_KEY": CANARY, "ANTHROPIC_API_KEY": CANARY, "GEMINI_API_KEY": CANARY}))
    assert "  openai  https://api.openai.com/v1  responses  (found OPENAI_API_KEY)\n" in told
    assert "  anthropic  https://api.anthropic.com  anthropic  (found ANTHROPIC_API_KEY)\n    claude-*\n" in told
    assert "  gemini  https://generativelanguage.googleapis.com/v1beta  gemini  (found GEMINI_API_KEY)\n" in told


def test_models_claimed_twice_are_told(tmp_path: Path) -> None:
    text = LOCAL + 'models = ["m"]\n' + LOCAL.replace("local", "other") + 'models = ["m"]\n'
    told = report(settings(tmp_path, text))
    assert "claimed twice\n  - 'local' and 'other' both name 'm'; 'local' answers" in told
    assert "findings" not in told


def test_keys_are_counted_and_their_owners_named(tmp_path: Path) -> None:
    block = '[[key]]\nowner = "alice"\nsha256 = "{}"\n'
    found = settings(tmp_path, block.format(digest("1")) + block.format(digest("2")), {"REJOINDER_API_KEY": CANARY})
    told = banner(found)
    assert "access  3 API keys (alice, default)" in told
    assert 'env_key = "REJOINDER_API_KEY"' in told
    assert 'api_key=os.environ["REJOINDER_API_KEY"]' in told
    assert "import os" in told
    assert "access  1 API key (default)" in banner(load(None, {"REJOINDER_API_KEY": CANARY}))


def test_no_secret_is_told(tmp_path: Path) -> None:
    text = LOCAL + 'models = ["*"]\napi_key_env = "MINE"\n'
    environ = dict.fromkeys(("MINE", "OPENAI_API_KEY", "REJOINDER_API_KEY"), CANARY)
    environ["REJOINDER_STORE"] = f"postgres://me:{CANARY}@db/x"
    told = banner(settings(tmp_path, text, environ))
    assert CANARY not in told
    assert digest(CANARY) not in told
    assert "store   postgres://…@db/x" in told


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080/v1"),
        ("0.0.0.0", "http://127.0.0.1:8080/v1"),
        ("::", "http://[::1]:8080/v1"),
        ("fd00::1", "http://[fd00::1]:8080/v1"),
        ("box.example", "http://box.example:8080/v1"),
    ],
)
def test_the_address_is_one_a_client_here_can_use(host: str, url: str) -> None:
    assert address(ServerSettings(host=host)) == url


def test_the_example_is_a_name_by_which_this_server_finds_a_model(tmp_path: Path) -> None:
    globs = LOCAL + 'models = ["gpt-*"]\n'
    assert example(settings(tmp_path, globs + 'aliases = { fast = "x" }')) == "fast"
    assert example(settings(tmp_path, globs)) == "local/MODEL"
    assert example(load(None, {"OPENAI_API_KEY": CANARY})) == "gpt-5.4"
    assert example(settings(tmp_path, globs, {"OPENAI_API_KEY": CANARY})) == "openai/gpt-5.4"
    nothing = settings(tmp_path, '[[upstream]]\nname = "a"\nvendor = "groq"\nmodels = []')
    assert example(nothing) == "a/llama-3.3-70b-versatile"


def test_long_lists_are_wrapped(tmp_path: Path) -> None:
    models = [f"model-number-{number}" for number in range(40)]
    told = report(settings(tmp_path, LOCAL + f"models = {msgspec.json.encode(models).decode()}"))
    assert max(len(line) for line in told.splitlines()) <= 120
    assert all(model in told for model in models)
