"""The companies and programs that speak Chat Completions, as rows of data: a new one is one row.

A row is used in three ways: its profile by `vendor = "name"` in the settings or by the host of a base_url, and the
whole of it when its environment variable is set and nobody wrote an `[[upstream]]` of that name. Sections in the
comments are those of provider-chat.md; a field that is not set keeps the default of `ChatProfile`, which suits an
unknown compatible server.
"""

from collections.abc import Mapping
from typing import Literal, get_args
from urllib.parse import urlsplit

import msgspec

from rejoinder.bridge.profile import ChatProfile, OptionName

Auth = Literal["bearer", "api-key"]


class Vendor(msgspec.Struct, frozen=True, kw_only=True):
    """One company or program. `base_url` is empty where everybody has their own."""

    name: str
    hosts: tuple[str, ...] = ()
    """Hosts of a base_url that mean this vendor: the name itself and everything below it."""

    port: int | None = None
    """The port that means this vendor on a loopback address."""

    base_url: str = ""
    env: str = ""
    """The environment variable that makes an upstream of this row."""

    models: tuple[str, ...] = ()
    """Globs of the models that are plausibly its own, claimed when the settings file names none."""

    example: str = ""
    """A model to write into examples, for rows whose names can be known without asking."""

    auth: Auth = "bearer"
    profile: ChatProfile = ChatProfile()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream the environment asks for. `variable` says which variable did."""

    vendor: Vendor
    variable: str
    base_url: str


# The order matters where the globs of two rows cross and both are found: the first one is asked. Names with a colon
# belong to Ollama unless they hold a slash (OpenRouter's `:free`) or are OpenAI's fine-tunes (`ft:…`); names with a
# slash belong to OpenRouter unless they are spelled as Fireworks or Together spell them.
VENDORS: tuple[Vendor, ...] = (
    Vendor(
        name="openai",
        hosts=("api.openai.com",),
        base_url="https://api.openai.com/v1",
        env="OPENAI_API_KEY",
        # Not `gpt-*`: the open models `gpt-oss…` are served by everybody but OpenAI.
        models=("gpt-3*", "gpt-4*", "gpt-5*", "gpt-6*", "chatgpt-*", "o1*", "o3*", "o4*", "ft:*"),
        # One without reasoning: the reasoning models refuse tools together with it on this endpoint (§2).
        example="gpt-4.1",
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
    Vendor(
        name="fireworks",
        hosts=("fireworks.ai",),
        base_url="https://api.fireworks.ai/inference/v1",
        env="FIREWORKS_API_KEY",
        models=("accounts/fireworks/*",),
    ),
    Vendor(
        name="together",
        hosts=("together.xyz", "together.ai"),
        base_url="https://api.together.xyz/v1",
        env="TOGETHER_API_KEY",
        # Capitals as in the model's own repository, where OpenRouter's names are all lower case.
        models=("meta-llama/Llama-*", "meta-llama/Meta-Llama-*", "Qwen/*", "deepseek-ai/*", "zai-org/*"),
        example="meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ),
    Vendor(
        name="openrouter",
        hosts=("openrouter.ai",),
        base_url="https://openrouter.ai/api/v1",
        env="OPENROUTER_API_KEY",
        models=("*/*",),
        example="anthropic/claude-sonnet-4.6",
        profile=ChatProfile(
            options=("logprobs", "parallel_tool_calls", "user"),  # passed on to models that know them, else ignored
            files=True,  # §3
            effort="reasoning_object",  # §6
            reasoning_replay="always",  # §6: `reasoning_details`, unchanged
        ),
    ),
    Vendor(
        name="ollama",
        port=11434,
        base_url="http://127.0.0.1:11434/v1",
        env="OLLAMA_HOST",
        models=("*:*",),
        profile=ChatProfile(
            options=(),
            tool_choice="auto",  # §4: ignores tool_choice
            reasoning_replay="always",  # §6: accepts `reasoning`
        ),
    ),
    Vendor(
        name="deepseek",
        hosts=("api.deepseek.com",),
        base_url="https://api.deepseek.com/v1",
        env="DEEPSEEK_API_KEY",
        models=("deepseek-chat*", "deepseek-reasoner*", "deepseek-coder*", "deepseek-v*"),
        example="deepseek-chat",
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
    Vendor(
        name="moonshot",
        hosts=("moonshot.ai", "moonshot.cn"),
        base_url="https://api.moonshot.ai/v1",
        env="MOONSHOT_API_KEY",
        models=("kimi-*", "moonshot-*"),
        example="kimi-k2-thinking",
        profile=ChatProfile(
            options=(),
            tool_choice="auto",  # §4
            json_schema="object",  # §9 does not list it
            effort="thinking",  # §6
            reasoning_replay="tools",  # §6: 400 without it
        ),
    ),
    Vendor(
        name="zai",
        hosts=("z.ai", "bigmodel.cn"),
        base_url="https://api.z.ai/api/paas/v4",
        env="ZAI_API_KEY",
        models=("glm-*",),
        example="glm-4.7",
        profile=ChatProfile(
            options=(),
            tool_choice="auto",  # its thinking is on by default, as in §4
            json_schema="object",  # §9 does not list it
            effort="thinking",  # §6
            reasoning_replay="always",  # §6: read with `clear_thinking: false`, harmless otherwise
        ),
    ),
    Vendor(
        name="qwen",
        hosts=("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
        base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        env="DASHSCOPE_API_KEY",
        models=("qwen-max*", "qwen-plus*", "qwen-turbo*", "qwen-flash*", "qwen-vl-*", "qwen3*", "qwq-*", "qvq-*"),
        example="qwen3-max",
        profile=ChatProfile(
            tool_choice="auto",  # §4: rejects the rest with thinking
            json_schema="object",  # §9 does not list it
            effort="enable_thinking",  # §6
            reasoning_replay="never",  # §6
        ),
    ),
    Vendor(
        name="groq",
        hosts=("api.groq.com",),
        base_url="https://api.groq.com/openai/v1",
        env="GROQ_API_KEY",
        models=("llama-*-versatile", "llama-*-instant"),
        example="llama-3.3-70b-versatile",
        profile=ChatProfile(
            max_tokens="max_completion_tokens",  # mapping.md §1
            options=("parallel_tool_calls", "service_tier", "user"),  # §2: rejects logprobs
            effort_values={"minimal": "low", "xhigh": "high", "max": "high"},  # §6: low, medium, high
            reasoning_replay="always",  # §6: accepts `reasoning`
        ),
    ),
    Vendor(
        name="cerebras",
        hosts=("cerebras.ai",),
        base_url="https://api.cerebras.ai/v1",
        env="CEREBRAS_API_KEY",
        models=("gpt-oss-*", "zai-glm-*", "qwen-3-*", "llama3.1-*"),
        example="gpt-oss-120b",
        profile=ChatProfile(
            max_tokens="max_completion_tokens",  # mapping.md §1
            reasoning_replay="always",  # §6
        ),
    ),
    Vendor(
        name="mistral",
        hosts=("mistral.ai",),
        base_url="https://api.mistral.ai/v1",
        env="MISTRAL_API_KEY",
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
    Vendor(
        name="xai",
        hosts=("x.ai",),
        base_url="https://api.x.ai/v1",
        env="XAI_API_KEY",
        models=("grok-*",),
        example="grok-4-1-fast-non-reasoning",
        profile=ChatProfile(
            options=("logprobs", "parallel_tool_calls", "user"),
            effort_values={"minimal": "low", "medium": "high", "xhigh": "high", "max": "high"},  # §6: low, high
            reasoning_replay="never",  # §6
        ),
    ),
    Vendor(
        name="perplexity",
        hosts=("perplexity.ai",),
        base_url="https://api.perplexity.ai",
        env="PERPLEXITY_API_KEY",
        models=("sonar*",),
        example="sonar",
        profile=ChatProfile(
            system_position="first",  # answers 400 to turns that do not alternate after the system message
            merge_turns=True,
            stream_usage=False,  # §7: in every chunk, asked for or not
            options=(),
            reasoning_replay="never",  # §6
        ),
    ),
    Vendor(
        name="gemini",
        hosts=("generativelanguage.googleapis.com",),
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        env="GEMINI_API_KEY",
        models=("gemini-*", "gemma-*"),
        example="gemini-2.5-flash",
        profile=ChatProfile(reasoning_replay="always"),  # §6: signatures must go back
    ),
    Vendor(
        name="azure",
        hosts=("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
        auth="api-key",  # §1
        profile=ChatProfile(
            max_tokens="max_completion_tokens",  # mapping.md §1
            options=("logprobs", "parallel_tool_calls", "user"),
            reasoning_replay="never",  # §6, as OpenAI
        ),
    ),
    Vendor(
        name="vllm",
        profile=ChatProfile(
            system_position="first",  # §3: chat templates
            merge_turns=True,  # §3
            options=("logprobs", "parallel_tool_calls", "user"),
            reasoning_replay="always",  # §6: accepts both names
        ),
    ),
    Vendor(
        name="llama.cpp",
        profile=ChatProfile(
            system_position="first",  # §3: chat templates
            merge_turns=True,  # §3
            empty_content="empty",  # §3
            effort="none",  # §6: only `chat_template_kwargs`, which differ by template
            reasoning_replay="always",  # §6
        ),
    ),
    Vendor(
        name="lmstudio",
        profile=ChatProfile(
            system_position="first",  # §3: chat templates
            merge_turns=True,  # §3
            options=(),
        ),
    ),
)

BY_NAME: Mapping[str, Vendor] = {vendor.name: vendor for vendor in VENDORS}


def guess(host: str, port: int | None, *, loopback: bool) -> Vendor | None:
    """The vendor a base_url leads to, as far as its host or its port on this machine tell."""
    for vendor in VENDORS:
        if any(host == known or host.endswith(f".{known}") for known in vendor.hosts):
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
            variable=vendor.env,
            base_url=ollama_url(environ[vendor.env]) if vendor.env == "OLLAMA_HOST" else vendor.base_url,
        )
        for vendor in VENDORS
        if environ.get(vendor.env, "").strip()
    ]


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
