"""Parameters of other servers that clients send along: accepted where they change nothing.

A value that would change something is refused by name: an answer that silently lacks what was asked
for is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from pydantic_core import PydanticCustomError

Values = Mapping[str, type | tuple[Any, ...]]  # those that change nothing: all of a type, or some

COMPLETIONS: Values = {
    # OpenAI's
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
    "metadata": dict,
    "prompt_cache_key": str,
    "response_format": ({"type": "text"},),
    "safety_identifier": str,
    "service_tier": ("auto", "default"),
    "store": (False,),
    "top_logprobs": (0,),
    # of vLLM, SGLang, Text Generation Inference and llama.cpp
    "add_special_tokens": (True,),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "cache_prompt": bool,
    "early_stopping": (False,),
    "ebnf": (),
    "grammar": ("",),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "include_stop_str_in_output": (False,),
    "json_schema": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "min_tokens": (0,),
    "mirostat": (0,),
    "no_repeat_ngram_size": (0,),
    "no_stop_trim": (False,),
    "num_beams": (1,),
    "priority": (0,),
    "prompt_logprobs": (),
    "regex": (),
    "repeat_penalty": (1,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": bool,  # none of them has a text
    "spaces_between_special_tokens": bool,
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "tfs_z": (1,),
    "truncate_prompt_tokens": (),
    "typical_p": (1,),
    "use_beam_search": (False,),
    "watermark": (False,),
}
CHATS: Values = {
    **{
        name: values
        for name, values in COMPLETIONS.items()
        if name not in ("suffix", "top_logprobs")
    },
    # OpenAI's
    "audio": (),
    "function_call": ("auto", "none"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": bool,  # there are none
    "prediction": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
    # of vLLM and SGLang
    "add_generation_prompt": (True,),
    "best_of": (1,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
}
STREAMS: Values = {  # within stream_options
    "continuous_usage_stats": (False,),
    "include_obfuscation": (False,),
}
TYPES = {dict: "object", str: "string", bool: "boolean"}  # as JSON calls them


def drop(data: Any, neutral: Values, own: Collection[str]) -> Any:
    """A request without what changes nothing: null, which is as good as left out, and ``neutral``.

    Raises:
        PydanticCustomError: a value of ``neutral`` that would change something.
    """
    if not isinstance(data, dict):
        return data
    left = {}
    for name, value in data.items():
        if value is None and (name in own or name in neutral):
            continue
        if name not in neutral:
            left[name] = value
        elif not _is_one_of(value, neutral[name]):
            message = f"{name} is not supported: only {_names(neutral[name])} is accepted"
            raise PydanticCustomError(
                "not_supported", "{message}", {"message": message, "param": name}
            )
    return left


def describe(schema: dict[str, Any], neutral: Values) -> None:
    """Add them to a JSON schema."""
    for name, values in neutral.items():
        if isinstance(values, type):
            found: dict[str, Any] = {"type": [TYPES[values], "null"]}
        else:
            found = {"enum": [None, *values]}
        schema["properties"][name] = {**found, "description": "taken where it changes nothing"}


def _is_one_of(value: Any, values: type | tuple[Any, ...]) -> bool:
    if isinstance(values, type):
        return isinstance(value, values)
    # To Python, false is 0.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)


def _names(values: type | tuple[Any, ...]) -> str:
    if isinstance(values, type):
        return f"{TYPES[values]} or null"
    return " or ".join(_name(value) for value in values) or "null"


def _name(value: Any) -> str:
    return "an empty object" if value == {} else json.dumps(value)
