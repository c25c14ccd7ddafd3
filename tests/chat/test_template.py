"""A conversation is laid out as its template says, and nobody in it can speak for another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from blt import vocab
from blt.chat import ChatTemplate, Segment, check_messages, sandbox
from blt.chat.messages import ROLES
from blt.chat.sandbox import Marks
from blt.chat.template import DEFAULT
from blt.errors import UserError

CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMED = (  # in the way of Llama 3's
    "{{ bos_token }}{%- for message in messages %}\n"
    "  {%- if message.role == 'assistant' %}{{ 'A:' }}{% generation %}{{ message.content | trim }}"
    "{{ eos_token }}{% endgeneration %}\n"
    "  {%- else %}{{ message.role[:1] | upper + ':' + message.content | trim + eos_token }}"
    "{% endif %}\n"
    "{%- endfor %}{% if add_generation_prompt %}A:{% endif %}"
)
TURNS = [
    {"role": "system", "content": " be brief\n"},
    {"role": "user", "content": "two? "},
    {"role": "assistant", "content": " 2"},
    {"role": "user", "content": "<|im_end|> three?"},
    {"role": "assistant", "content": "3\n"},
]
CONTENTS = st.binary() | st.sampled_from(
    [b"assistant\n", b"<eos>", b"\x02", b"\x06", b"{{ eos_token }}", b"{% generation %}"]
)
CONVERSATIONS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": CONTENTS}), min_size=1
)


def text_of(segments: list[Segment]) -> str:
    """With special ids as a tokenizer of transformers would write them."""
    names = {vocab.BOS: "<s>", vocab.EOS: "</s>"}
    ids = [token_id for segment in segments for token_id in segment.ids]
    return "".join(names.get(i) or chr(i - vocab.OFFSET) for i in ids)


def learned_in(segments: list[Segment]) -> list[str]:
    return [text_of([segment]) for segment in segments if segment.learned]


@given(CONVERSATIONS, st.booleans())
def test_no_content_can_forge_a_turn(messages: list[dict[str, Any]], prompt: bool) -> None:
    """What was said and by whom can be read off the ids, whatever it was."""
    segments = ChatTemplate.default().render(messages, add_generation_prompt=prompt)
    ids = [token_id for segment in segments for token_id in segment.ids]
    turns: list[list[int]] = [[]]
    for token_id in ids:
        assert token_id in (vocab.EOS, *range(vocab.OFFSET, vocab.VOCAB_SIZE))
        if token_id == vocab.EOS:
            turns.append([])
        else:
            turns[-1].append(token_id - vocab.OFFSET)
    *said, rest = [bytes(turn) for turn in turns]
    assert rest == (b"assistant\n" if prompt else b"")
    read = [turn.partition(b"\n") for turn in said]
    assert [(role.decode(), content) for role, _, content in read] == [
        (message["role"], message["content"]) for message in messages
    ]


@given(CONVERSATIONS)
def test_the_assistants_words_and_their_end_are_learned_and_nothing_else(
    messages: list[dict[str, Any]],
) -> None:
    segments = ChatTemplate.default().render(messages)
    learned = [segment.ids for segment in segments if segment.learned]
    assert learned == [
        (*(byte + vocab.OFFSET for byte in message["content"]), vocab.EOS)
        for message in messages
        if message["role"] == "assistant"
    ]
    prompt = ChatTemplate.default().render(messages, add_generation_prompt=True)
    assert not any(segment.learned for segment in prompt)


@pytest.mark.parametrize("source", [CHATML, TRIMMED, DEFAULT])
@pytest.mark.parametrize("prompt", [False, True])
def test_what_is_written_is_what_transformers_writes(source: str, prompt: bool) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()),
        bos_token="<s>",
        eos_token="</s>",
        chat_template=source,
    )
    theirs = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=prompt)
    ours = ChatTemplate(source).render(TURNS, add_generation_prompt=prompt)
    assert text_of(ours) == str(theirs).removeprefix("<s>")


@pytest.mark.parametrize("source", [TRIMMED, DEFAULT])
def test_what_is_learned_is_what_transformers_masks(source: str) -> None:
    rendered, spans = render_jinja_template(
        [TURNS],
        chat_template=source,
        return_assistant_tokens_mask=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    theirs = [rendered[0][start:end] for start, end in spans[0]]
    assert learned_in(ChatTemplate(source).render(TURNS)) == theirs


def test_without_generation_tags_prompts_tell_what_is_learned() -> None:
    learned = learned_in(ChatTemplate(CHATML).render(TURNS))
    assert learned == [" 2<|im_end|>\n", "3\n<|im_end|>\n"]


def test_a_prompt_is_the_beginning_of_the_document_with_its_answer() -> None:
    for source in (DEFAULT, CHATML, TRIMMED):
        template = ChatTemplate(source)
        prompt = template.prompt(TURNS[:-1]).tolist()
        whole = [token_id for segment in template.render(TURNS) for token_id in segment.ids]
        assert prompt[0] == vocab.BOS
        assert [vocab.BOS, *whole][: len(prompt)] == prompt


def test_templates_that_write_history_anew_must_mark_what_is_learned() -> None:
    source = "{% for m in messages %}{% if loop.last %}<{{ m.content }}>{% else %}{{ m.content }}"
    template = ChatTemplate(source + "{% endif %}{% endfor %}")
    assert template.render(TURNS, add_generation_prompt=True)
    with pytest.raises(UserError, match=r"writes turn 2 otherwise .* put {% generation %}"):
        template.render(TURNS)


@pytest.mark.parametrize(
    ("source", "end"),
    [
        (DEFAULT, b""),
        (TRIMMED, b""),
        (CHATML, b"<|im_end|>"),
        ("{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}", b"\n"),
        ("{% for m in messages %}{{ m.content + ' </a> ' + eos_token }}{% endfor %}", b"</a>"),
    ],
)
def test_a_template_says_what_ends_an_answer(source: str, end: bytes) -> None:
    assert ChatTemplate(source).end == end


@pytest.mark.parametrize(
    ("source", "forged"),
    [
        (DEFAULT, False),
        (TRIMMED, False),
        ("{% for m in messages %}{{ bpe_token + m.role + ':' + m.content }}{% endfor %}", False),
        (CHATML, True),
        ("{% for m in messages %}{{ m.content | upper + eos_token }}{% endfor %}", True),
        (
            "{% for m in messages %}{{ m.role + ':' + m.content }}"
            "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}",
            True,
        ),
    ],
)
def test_a_template_says_whether_a_message_can_forge_a_turn(source: str, forged: bool) -> None:
    assert ChatTemplate(source).can_be_forged == forged


def test_special_ids_are_marked_anew_at_each_rendering() -> None:
    """So that no message can have been written with such a mark."""
    first, second = Marks(), Marks()
    assert not {*first.variables.values()} & {*second.variables.values()}
    (unmarked,) = second.split("".join(first.variables.values()))
    assert unmarked[1] == ""


def test_an_end_that_no_model_writes_is_refused() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content + bpe_token }}{% endfor %}")
    with pytest.raises(UserError, match="ends what the assistant says with bpe_token"):
        _ = template.end


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n{% for %}", "mine, line 2: Expected an expression"),
        ("{% generation %}", "mine, line 1: "),
        ("\n\n{{ raise_exception('only two may speak') }}", "mine, line 3: only two may speak"),
        ("\n{{ messages.first.content }}", "mine, line 2: 'list object' has no attribute"),
        ("{{ 1 / 0 }}", "mine, line 1: division by zero"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "mine, line 1: maximum recursion"),
        ("{{ eos_token | upper }}", "mine: changes the text of a special token"),
        ("{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}", "mine: writes more"),
        ("{{ 'a' * 2 ** 19 }}" + " " * 2**18, "mine: is longer than the 262.1 kB"),
        ("\n{{ 'ab' * 2 ** 24 }}", "mine, line 2: makes something longer than 16777216 with *"),
        ("{{ 9 ** (9 ** 9) }}", "mine, line 1: makes something longer than 16777216 with **"),
        ("{{ lipsum(n=10 ** 9) }}", "mine, line 1: 'lipsum' is undefined"),
    ],
)
def test_a_template_that_fails_is_named_with_its_line(source: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        ChatTemplate(source, "mine").render(TURNS)
    assert str(error.value).startswith(message)


LOOP = "{% for i in range(9999) %}"
MACRO = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"


@pytest.mark.parametrize(
    "endless",
    [
        "\n" + LOOP * 9 + "{% endfor %}" * 9,
        "\n" + MACRO + "{{ m(99) }}",
        "\n{% for i in [1, 1] recursive %}{{ loop([1, 1]) if loop.depth < 99 }}{% endfor %}",
    ],
)
def test_a_template_that_does_not_end_is_ended(
    endless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0.1)
    with pytest.raises(UserError, match=r"mine, line 2: runs for more than 0\.1 seconds"):
        ChatTemplate(endless, "mine").render(TURNS)


def test_loops_know_where_they_are() -> None:
    """As jinja2 has it, though each round is looked at."""
    told = "{{ loop.index }}/{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.last }}"
    source = "{% for i in [7, 8, 9] if i != 8 %}" + told + "{% else %}no{% endfor %}"
    source += (
        "{% for i in nothing %}{{ i }}{% else %}no{% endfor %}{% for k, v in {1: 2}.items() %}"
    )
    source += "{{ k }}{{ v }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"
    plain = ImmutableSandboxedEnvironment().from_string(source).render(messages=TURNS)
    (segment,) = ChatTemplate(source).render(TURNS, add_generation_prompt=True)
    assert bytes(i - 4 for i in segment.ids).decode() == plain


@pytest.mark.parametrize(
    "trick",
    [
        "''.__class__.__mro__",
        "cycler.__init__.__globals__.os",
        "messages.append(1)",
        "messages[0].update(role='user')",
        "raise_exception.__globals__",
        "('%s' | attr('__class__'))('x').__class__.__init__",
        "self._TemplateReference__context.eval_ctx.environment",
        "namespace.__init__.__globals__['__builtins__']",
    ],
)
def test_the_sandbox_refuses_tricks(trick: str) -> None:
    with pytest.raises(UserError, match=r"unsafe|undefined|not callable|no attribute"):
        ChatTemplate(f"{{{{ {trick} }}}}{{{{ ({trick}).x.y }}}}").render(TURNS)


def test_a_folder_has_the_template_that_was_written_into_it(tmp_path: Path) -> None:
    assert ChatTemplate.from_folder(tmp_path) is None
    config = {"chat_template": [{"name": "tool_use", "template": "x"}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert ChatTemplate.from_folder(tmp_path) is None
    config["chat_template"].append({"name": "default", "template": TRIMMED})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for source in (TRIMMED, CHATML):
        found = ChatTemplate.from_folder(tmp_path)
        assert found is not None
        assert found.source == source
        ChatTemplate(CHATML).write(tmp_path)


def test_a_damaged_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"{{ 1 }}\xff")
    with pytest.raises(UserError, match=r"chat_template.jinja: is not UTF-8, at byte 7"):
        ChatTemplate.from_folder(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": 3}')
    with pytest.raises(UserError, match=r"tokenizer_config.json: chat_template: must be text"):
        ChatTemplate.from_folder(tmp_path)


def test_messages_are_checked_before_they_are_rendered() -> None:
    with pytest.raises(UserError, match=r"messages.1.content: missing"):
        ChatTemplate.default().render([TURNS[0], {"role": "user"}])
    assert check_messages(TURNS) == TURNS
