"""The companies and programs that can stand behind this server, as rows of data: a new one is one row.

A row is used in three ways: by `vendor = "name"` in the settings, by the host of a base_url, and as a whole when its
environment variable is set and nobody wrote an `[[upstream]]` of that name. It says which dialects are spoken, each at
its own address and with its own profile, the preferred one first. Sections in the comments are those of
provider-chat.md, or of the dialect's own contract file; a field that is not set keeps the profile's default.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal, get_args
from urllib.parse import urlsplit

import msgspec

from rejoinder.bridge.anthropic_profile import AnthropicProfile
from rejoinder.bridge.gemini_profile import GeminiProfile
from rejoinder.bridge.profile import ChatProfile, OptionName
from rejoinder.bridge.responses_profile import ResponsesProfile

DialectName = Literal["chat", "anthropic", "gemini", "responses"]
Profile = ChatProfile | AnthropicProfile | GeminiProfile | ResponsesProfile
Auth = Literal["bearer", "api-key", "x-api-key", "x-goog-api-key"]

PROFILES: Mapping[DialectName, type[Profile]] = {
    "chat": ChatProfile,
    "anthropic": AnthropicProfile,
    "gemini": GeminiProfile,
    "responses": ResponsesProfile,
}

_DIALECTS: Mapping[type[Profile], DialectName] = {profile: name for name, profile in PROFILES.items()}

_AUTH: Mapping[DialectName, Auth] = {
    "chat": "bearer",
    "anthropic": "x-api-key",  # provider-anthropic.md §1
    "gemini": "x-goog-api-key",  # provider-gemini.md §1
    "responses": "bearer",
}

_ENDINGS: Mapping[str, DialectName] = {
    "anthropic": "anthropic",
    "openai": "chat",  # the Gemini API
    "openapi": "chat",  # Vertex
    "v1beta": "gemini",
}
"""What the last part of an address says about what is spoken there."""


class Endpoint(msgspec.Struct, frozen=True):
    """One dialect a vendor speaks: where, how, and how its key travels."""

    base_url: str = ""
    """Empty where everybody has their own."""

    profile: Profile = ChatProfile()
    auth: Auth | None = None
    """None: as the dialect has it."""

    @property
    def dialect(self) -> DialectName:
        return _DIALECTS[type(self.profile)]

    @property
    def key_travels(self) -> Auth:
        return self.auth or _AUTH[self.dialect]


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """One company or program."""

    name: str
    endpoints: tuple[Endpoint, ...]
    """The preferred dialect first; each dialect once."""

    hosts: tuple[str, ...] = ()
    """Hosts of a base_url that mean this vendor: the name itself, which may hold a `*`, and everything below it."""

    port: int | None = None
    """The port that means this vendor on a loopback address."""

    env: tuple[str, ...] = ()
    """The environment variables that make an upstream of this row; the first one that is set counts."""

    models: tuple[str, ...] = ()
    """Globs of the models that are plausibly its own, claimed when the settings file names none."""

    example: str = ""
    """A model to write into examples, for rows whose names can be known without asking."""

    def endpoint(self, dialect: DialectName | None, base_url: str) -> Endpoint:
        """What `dialect` is here; if that is not said, what the address says, else the preferred one.

        A dialect that is not in the row is spoken as to a server nobody knows.
        """
        wanted = dialect or _ENDINGS.get(_last_part(base_url)) or self.endpoints[0].dialect
        return next(endpoint for endpoint in (*self.endpoints, *STRANGER.endpoints) if endpoint.dialect == wanted)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream the environment asks for. `variable` says which variable did."""

    vendor: Vendor
    variable: str
    base_url: str


# What compatible servers have of Anthropic's protocol: a subset (provider-anthropic.md §11).
_MESSAGES = AnthropicProfile(
    count_path="",
    caching="none",
    web_search="",
    documents=False,
    user_id=False,
    service_tier=False,
)

# Servers of open weights, with what they have of the Responses API (provider-responses.md §9).
_OPEN_WEIGHTS = ResponsesProfile(
    stores=False,
    obfuscates=False,
    reasoning_state="text",
    item_ids="given",
    prompt_cache_key=False,
    session_headers=False,
    compacts=False,
    functions_only=True,
    counts=False,
)

STRANGER = Vendor(
    name="",
    endpoints=(
        Endpoint(),
        Endpoint(profile=_MESSAGES),
        Endpoint(profile=GeminiProfile()),
        Endpoint(profile=msgspec.structs.replace(_OPEN_WEIGHTS, reasoning_state="any")),
    ),
)
"""A server nobody knows: profiles that only count on what every server of the dialect has."""

# The order matters where the globs of two rows cross and both are found: the first one is asked. Names with a colon
# belong to Ollama unless they hold a slash (OpenRouter's `:free`) or are OpenAI's fine-tunes (`ft:…`); names with a
# slash belong to OpenRouter unless they are spelled as Fireworks or Together spell them.
VENDORS: tuple[Vendor, ...] = (
    Vendor(
        name="openai",
        hosts=("api.openai.com",),
        env=("OPENAI_API_KEY",),
        # Not `gpt-*`: the open models `gpt-oss…` are served by everybody but OpenAI.
        models=("gpt-3*", "gpt-4*", "gpt-5*", "gpt-6*", "chatgpt-*", "o1*", "o3*", "o4*", "ft:*"),
        example="gpt-5.4",
        endpoints=(
            # First, as there the reasoning models refuse tools together with reasoning (provider-chat.md §2).
            Endpoint("https://api.openai.com/v1", profile=ResponsesProfile()),
            Endpoint(
                "https://api.openai.com/v1",
                profile=ChatProfile(
                    max_tokens="max_completion_tokens",  # §2
                    instructions_role="developer",  # §3
                    options=get_args(OptionName),  # §2: only here are all of them understood
                    native_custom_tools=True,  # §4
                    files=True,  # §3
                    audio=True,  # §3
                    image_detail_original=True,  # §3
                    reasoning_replay="never",  # §6: cannot
                    think_tags=False,  # §6: nothing visible
                ),
            ),
        ),
    ),
    Vendor(
        name="anthropic",
        hosts=("api.anthropic.com",),
        env=("ANTHROPIC_API_KEY",),
        models=("claude-*",),
        example="claude-sonnet-4-6",
        endpoints=(Endpoint("https://api.anthropic.com", profile=AnthropicProfile()),),
    ),
    Vendor(
        name="fireworks",
        hosts=("fireworks.ai",),
        env=("FIREWORKS_API_KEY",),
        models=("accounts/fireworks/*",),
        endpoints=(Endpoint("https://api.fireworks.ai/inference/v1"),),
    ),
    Vendor(
        name="together",
        hosts=("together.xyz", "together.ai"),
        env=("TOGETHER_API_KEY",),
        # Capitals as in the model's own repository, where OpenRouter's names are all lower case.
        models=("meta-llama/Llama-*", "meta-llama/Meta-Llama-*", "Qwen/*", "deepseek-ai/*", "zai-org/*"),
        example="meta-llama/Llama-3.3-70B-Instruct-Turbo",
        endpoints=(Endpoint("https://api.together.xyz/v1"),),
    ),
    Vendor(
        name="openrouter",
        hosts=("openrouter.ai",),
        env=("OPENROUTER_API_KEY",),
        models=("*/*",),
        example="anthropic/claude-sonnet-4.6",
        endpoints=(
            Endpoint(
                "https://openrouter.ai/api/v1",
                profile=ChatProfile(
                    # Passed on to models that know them, else ignored.
                    options=("logprobs", "parallel_tool_calls", "user"),
                    files=True,  # §3
                    effort="reasoning_object",  # §6
                    reasoning_replay="always",  # §6: `reasoning_details`, unchanged
                ),
            ),
            Endpoint(
                "https://openrouter.ai/api/v1",
                profile=ResponsesProfile(  # provider-responses.md §9: stateless
                    stores=False,
                    obfuscates=False,
                    reasoning_state="any",  # models of all kinds stand behind it
                    item_ids="given",
                    session_headers=False,
                    compacts=False,
                    counts=False,
                ),
            ),
            Endpoint("https://openrouter.ai/api", profile=_MESSAGES),
        ),
    ),
    Vendor(
        name="ollama",
        port=11434,
        env=("OLLAMA_HOST",),
        models=("*:*",),
        endpoints=(
            Endpoint(
                "http://127.0.0.1:11434/v1",
                profile=ChatProfile(
                    options=(),
                    tool_choice="auto",  # §4: ignores tool_choice
                    reasoning_replay="always",  # §6: accepts `reasoning`
                ),
            ),
            Endpoint("http://127.0.0.1:11434/v1", profile=_OPEN_WEIGHTS),
            Endpoint("http://127.0.0.1:11434", profile=_MESSAGES),
        ),
    ),
    Vendor(
        name="deepseek",
        hosts=("api.deepseek.com",),
        env=("DEEPSEEK_API_KEY",),
        models=("deepseek-chat*", "deepseek-reasoner*", "deepseek-coder*", "deepseek-v*"),
        example="deepseek-chat",
        endpoints=(
            Endpoint(
                "https://api.deepseek.com/v1",
                profile=ChatProfile(
                    options=(),  # §2: the thinking mode takes none of them
                    tool_choice="auto",  # §4: thinking, on by default, rejects the rest
                    json_schema="object",  # §9
                    effort="thinking",  # §6
                    effort_values={  # §6: low, high and max, and their own table for the rest
                        "minimal": "low",
                        "low": "low",
                        "medium": "high",
                        "high": "high",
                        "xhigh": "high",
                        "max": "max",
                    },
                    reasoning_replay="tools",  # §6: 400 without it
                ),
            ),
            Endpoint("https://api.deepseek.com/anthropic", profile=_MESSAGES),
            Endpoint(
                "https://api.deepseek.com",  # provider-responses.md §1: no /v1
                profile=msgspec.structs.replace(_OPEN_WEIGHTS, functions_only=False),  # §9: searches the web too
            ),
        ),
    ),
    Vendor(
        name="moonshot",
        hosts=("moonshot.ai", "moonshot.cn"),
        env=("MOONSHOT_API_KEY",),
        models=("kimi-*", "moonshot-*"),
        example="kimi-k2-thinking",
        endpoints=(
            Endpoint(
                "https://api.moonshot.ai/v1",
                profile=ChatProfile(
                    options=(),
                    tool_choice="auto",  # §4
                    json_schema="object",  # §9 does not list it
                    effort="thinking",  # §6
                    reasoning_replay="tools",  # §6: 400 without it
                ),
            ),
            Endpoint("https://api.moonshot.ai/anthropic", profile=_MESSAGES, auth="bearer"),
        ),
    ),
    Vendor(
        name="zai",
        hosts=("z.ai", "bigmodel.cn"),
        env=("ZAI_API_KEY",),
        models=("glm-*",),
        example="glm-4.7",
        endpoints=(
            Endpoint(
                "https://api.z.ai/api/paas/v4",
                profile=ChatProfile(
                    options=(),
                    tool_choice="auto",  # its thinking is on by default, as in §4
                    json_schema="object",  # §9 does not list it
                    effort="thinking",  # §6
                    reasoning_replay="always",  # §6: read with `clear_thinking: false`, harmless otherwise
                ),
            ),
            Endpoint("https://api.z.ai/api/anthropic", profile=_MESSAGES, auth="bearer"),
        ),
    ),
    Vendor(
        name="minimax",
        hosts=("minimax.io", "minimaxi.com"),
        env=("MINIMAX_API_KEY",),
        models=("MiniMax-*",),
        example="MiniMax-M2",
        endpoints=(
            Endpoint(
                "https://api.minimax.io/v1",
                profile=ChatProfile(
                    options=(),
                    tool_choice="auto",  # thinks always, as in §4
                    json_schema="object",  # §9 does not list it
                    effort="none",  # no row in §6: thinks always, and tells it in tags
                ),
            ),
            Endpoint("https://api.minimax.io/anthropic", profile=_MESSAGES, auth="bearer"),
        ),
    ),
    Vendor(
        name="qwen",
        hosts=("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
        env=("DASHSCOPE_API_KEY",),
        models=("qwen-max*", "qwen-plus*", "qwen-turbo*", "qwen-flash*", "qwen-vl-*", "qwen3*", "qwq-*", "qvq-*"),
        example="qwen3-max",
        endpoints=(
            Endpoint(
                "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
                profile=ChatProfile(
                    tool_choice="auto",  # §4: rejects the rest with thinking
                    json_schema="object",  # §9 does not list it
                    effort="enable_thinking",  # §6
                    reasoning_replay="never",  # §6
                ),
            ),
        ),
    ),
    Vendor(
        name="groq",
        hosts=("api.groq.com",),
        env=("GROQ_API_KEY",),
        models=("llama-*-versatile", "llama-*-instant"),
        example="llama-3.3-70b-versatile",
        endpoints=(
            Endpoint(
                "https://api.groq.com/openai/v1",
                profile=ChatProfile(
                    max_tokens="max_completion_tokens",  # mapping.md §1
                    options=("parallel_tool_calls", "service_tier", "user"),  # §2: rejects logprobs
                    effort_values={"minimal": "low", "xhigh": "high", "max": "high"},  # §6: low, medium, high
                    reasoning_replay="always",  # §6: accepts `reasoning`
                ),
            ),
            Endpoint("https://api.groq.com/openai/v1", profile=_OPEN_WEIGHTS),
        ),
    ),
    Vendor(
        name="cerebras",
        hosts=("cerebras.ai",),
        env=("CEREBRAS_API_KEY",),
        models=("gpt-oss-*", "zai-glm-*", "qwen-3-*", "llama3.1-*"),
        example="gpt-oss-120b",
        endpoints=(
            Endpoint(
                "https://api.cerebras.ai/v1",
                profile=ChatProfile(
                    max_tokens="max_completion_tokens",  # mapping.md §1
                    reasoning_replay="always",  # §6
                ),
            ),
        ),
    ),
    Vendor(
        name="mistral",
        hosts=("mistral.ai",),
        env=("MISTRAL_API_KEY",),
        models=(
            "mistral-*",
            "ministral-*",
            "magistral-*",
            "codestral-*",
            "devstral-*",
            "pixtral-*",
            "open-mistral-*",
            "open-mixtral-*",
        ),
        example="mistral-small-latest",
        endpoints=(
            Endpoint(
                "https://api.mistral.ai/v1",
                profile=ChatProfile(
                    system_position="first",  # §3
                    merge_turns=True,  # §3
                    stream_usage=False,  # §2: 400, and the usage comes anyway
                    tool_choice="any",  # §4
                    call_ids="nine",  # §3
                    effort_values={  # §6: none and high
                        "minimal": "none",
                        "low": "high",
                        "medium": "high",
                        "xhigh": "high",
                        "max": "high",
                    },
                    reasoning_replay="always",  # §6: the same list back
                ),
            ),
        ),
    ),
    Vendor(
        name="xai",
        hosts=("x.ai",),
        env=("XAI_API_KEY",),
        models=("grok-*",),
        example="grok-4-1-fast-non-reasoning",
        endpoints=(
            Endpoint(
                "https://api.x.ai/v1",
                profile=ChatProfile(
                    options=("logprobs", "parallel_tool_calls", "user"),
                    effort_values={"minimal": "low", "medium": "high", "xhigh": "high", "max": "high"},  # §6: low, high
                    reasoning_replay="never",  # §6
                ),
            ),
            Endpoint(
                "https://api.x.ai/v1",
                profile=ResponsesProfile(  # provider-responses.md §9: keeps responses and seals reasoning, as OpenAI
                    obfuscates=False,
                    item_ids="given",
                    session_headers=False,
                    compacts=False,
                    counts=False,
                ),
            ),
        ),
    ),
    Vendor(
        name="perplexity",
        hosts=("perplexity.ai",),
        env=("PERPLEXITY_API_KEY",),
        models=("sonar*",),
        example="sonar",
        endpoints=(
            Endpoint(
                "https://api.perplexity.ai",
                profile=ChatProfile(
                    system_position="first",  # answers 400 to turns that do not alternate after the system message
                    merge_turns=True,
                    stream_usage=False,  # §7: in every chunk, asked for or not
                    options=(),
                    reasoning_replay="never",  # §6
                ),
            ),
        ),
    ),
    Vendor(
        name="gemini",
        hosts=("generativelanguage.googleapis.com",),
        env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        models=("gemini-*", "gemma-*"),
        example="gemini-2.5-flash",
        endpoints=(
            Endpoint("https://generativelanguage.googleapis.com/v1beta", profile=GeminiProfile()),
            Endpoint(
                "https://generativelanguage.googleapis.com/v1beta/openai",
                profile=ChatProfile(reasoning_replay="always"),  # §6: signatures must go back
            ),
        ),
    ),
    Vendor(
        name="vertex",
        hosts=("aiplatform.googleapis.com", "*-aiplatform.googleapis.com"),
        endpoints=(
            Endpoint(
                profile=GeminiProfile(  # provider-gemini.md §1, §2
                    count="plain",
                    labels=True,
                    service_tier=False,
                    logprobs=True,
                    server_side_tools=False,
                ),
                auth="bearer",
            ),
            Endpoint(
                profile=AnthropicProfile(  # §1 of its file: the model in the path, the version in the body
                    path="/models/{model}:streamRawPredict",
                    count_path="",
                    version="vertex-2023-10-16",
                    version_in="body",
                    caching="explicit",
                    service_tier=False,
                ),
                auth="bearer",
            ),
            Endpoint(profile=ChatProfile(reasoning_replay="always")),  # §6: signatures must go back
        ),
    ),
    Vendor(
        name="azure",
        hosts=("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
        endpoints=(
            Endpoint(
                profile=ChatProfile(
                    max_tokens="max_completion_tokens",  # mapping.md §1
                    options=("logprobs", "parallel_tool_calls", "user"),
                    reasoning_replay="never",  # §6, as OpenAI
                ),
                auth="api-key",  # §1
            ),
            Endpoint(profile=ResponsesProfile(compacts=False, counts=False), auth="api-key"),
            Endpoint(profile=AnthropicProfile()),
        ),
    ),
    Vendor(
        name="vllm",
        endpoints=(
            Endpoint(
                profile=ChatProfile(
                    system_position="first",  # §3: chat templates
                    merge_turns=True,  # §3
                    options=("logprobs", "parallel_tool_calls", "user"),
                    reasoning_replay="always",  # §6: accepts both names
                ),
            ),
            Endpoint(profile=_OPEN_WEIGHTS),
            Endpoint(profile=_MESSAGES),
        ),
    ),
    Vendor(
        name="llama.cpp",
        endpoints=(
            Endpoint(
                profile=ChatProfile(
                    system_position="first",  # §3: chat templates
                    merge_turns=True,  # §3
                    empty_content="empty",  # §3
                    effort="none",  # §6: only `chat_template_kwargs`, which differ by template
                    reasoning_replay="always",  # §6
                ),
            ),
            Endpoint(profile=_OPEN_WEIGHTS),
            Endpoint(profile=_MESSAGES),
        ),
    ),
    Vendor(
        name="lmstudio",
        endpoints=(
            Endpoint(
                profile=ChatProfile(
                    system_position="first",  # §3: chat templates
                    merge_turns=True,  # §3
                    options=(),
                ),
            ),
            Endpoint(profile=_OPEN_WEIGHTS),
            Endpoint(profile=_MESSAGES),
        ),
    ),
)


def known() -> Mapping[str, Vendor]:
    """The rows by name."""
    return {vendor.name: vendor for vendor in VENDORS}


def guess(host: str, port: int | None, *, loopback: bool) -> Vendor | None:
    """The vendor a base_url leads to, as far as its host or its port on this machine tell."""
    for vendor in VENDORS:
        if any(fnmatchcase(host, pattern) for name in vendor.hosts for pattern in (name, f"*.{name}")):
            return vendor
        if loopback and port is not None and port == vendor.port:
            return vendor
    return None


def discover(environ: Mapping[str, str]) -> list[Found]:
    """The upstreams whose variables are set, in the order of the table. Nothing is contacted and nothing is judged:
    the addresses are checked where those of the settings file are."""
    return [
        Found(
            vendor=vendor,
            variable=variable,
            base_url=ollama_url(environ[variable]) if variable == "OLLAMA_HOST" else vendor.endpoints[0].base_url,
        )
        for vendor in VENDORS
        for variable in [name for name in vendor.env if environ.get(name, "").strip()][:1]
    ]


def _last_part(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2].lower()


def ollama_url(host: str) -> str:
    """The base_url behind OLLAMA_HOST: `[scheme://]host[:port]`, each part with Ollama's own default.

    The variable is also what the Ollama server binds to, so the address that means "every interface" is read as this
    machine. What cannot be read is left in place, for the check of base_url to name.
    """
    scheme, separator, rest = host.strip().rstrip("/").rpartition("://")
    scheme = scheme or "http"
    try:
        split = urlsplit(f"{scheme}://{rest}")
        port = split.port
    except ValueError:
        return f"{scheme}://{rest}/v1"
    name = split.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):  # noqa: S104 - read here, never bound
        name = "127.0.0.1"
    if port is None and not separator:
        port = 11434
    authority = f"[{name}]" if ":" in name else name
    return f"{scheme}://{authority}{'' if port is None else f':{port}'}{split.path}/v1"
