"""The wording of CUTE (github.com/Leukas/CUTE, prompts.py), its slips included.

Copyright (c) 2024 the authors of CUTE (in their licence: Anonymous), under the MIT licence:

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions: The above copyright notice and this
permission notice shall be included in all copies or substantial portions of the Software. THE
SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

# ruff: noqa: E501

from __future__ import annotations

INDENT = " " * 12  # the published prompts have their source's indentation in them
ANSWER = ' Answer: "'

# What is to be done; four examples; the question.
WORDING: dict[str, tuple[str, tuple[str, str, str, str], str]] = {
    "spell": (
        "Spell out the word, putting spaces between each letter, based on the following examples:",
        (
            'Spell out the word "alphabet". Answer: "a l p h a b e t"',
            'Spell out the word "hello". Answer: "h e l l o"',
            'Spell out the word "zebra". Answer: "z e b r a"',
            'Spell out the word "tongue". Answer: "t o n g u e"',
        ),
        'Spell out the word "{}".',
    ),
    "spell_inverse": (
        "Write the word that is spelled out, without any spaces, based on the following examples:",
        (
            'Write the word "a l p h a b e t".  Answer: "alphabet"',
            'Write the word "h e l l o". Answer: "hello"',
            'Write the word "z e b r a". Answer: "zebra"',
            'Write the word "t o n g u e". Answer: "tongue"',
        ),
        'Write the word "{}".',
    ),
    "contains_char": (
        "Answer whether the specified letter is in the given word, based on the following examples:",
        (
            'Is there a "a" in "alphabet"? Answer: "Yes"',
            'Is there a "z" in "alphabet"? Answer: "No"',
            'Is there a "u" in "hello"? Answer: "No"',
            'Is there a "o" in "hello"? Answer: "Yes"',
        ),
        'Is there a "{}" in "{}"?',
    ),
    "contains_word": (
        "Answer whether the specified word is in the given sentence (case insensitive), based on the following examples:",
        (
            'Is there a "the" in "The cow goes moo."? Answer: "Yes"',
            'Is there a "goat" in "The cow goes moo."? Answer: "No"',
            'Is there a "glad" in "I am very happy."? Answer: "No"',
            'Is there a "happy" in "I am very happy."? Answer: "Yes"',
        ),
        'Is there a "{}" in "{}"?',
    ),
    "orth": (
        "Select the word that is closer in Levenshtein distance to the given word based on the following examples:",
        (
            'Closer in Levenshtein distance to "bold": "cold", "brave". Answer: "cold"',
            'Closer in Levenshtein distance to "computer": "completed", "laptop". Answer: "completed"',
            'Closer in Levenshtein distance to "happy": "glad, "apply". Answer: "apply"',
            'Closer in Levenshtein distance to "camp": "ramp", "tent". Answer: "ramp"',
        ),
        'Closer in Levenshtein distance to "{}": "{}", "{}".',
    ),
    "sem": (
        "Select the word that is more semantically related to the given word based on the following examples:",
        (
            'More semantically related to "bold": "cold", "brave". Answer: "brave"',
            'More semantically related to "computer": "completed", "laptop". Answer: "laptop"',
            'More semantically related to "happy": "glad", "apply". Answer: "glad"',
            'More semantically related to "camp": "ramp", "tent". Answer: "tent"',
        ),
        'More semantically related to "{}": {}, {}.',
    ),
    "ins_char": (
        "Add the specified letter after every instance of the second specified letter in a given word, based on the following examples:",
        (
            'Add an "e" after every "a" in "alphabet". Answer: "aelphaebet"',
            'Add an "l" after every "l" in "hello". Answer: "hellllo"',
            'Add an "t" after every "z" in "zebra". Answer: "ztebra"',
            'Add an "f" after every "u" in "tongue". Answer: "tongufe"',
        ),
        'Add an "{}" after every "{}" in "{}".',
    ),
    "ins_word": (
        "Add the specified word after every instance of the second specified word in a given sentence, based on the following examples:",
        (
            'Add "bad" after every "beautiful" in "it is a beautiful day". Answer: "it is a beautiful bad day"',
            'Add "hello" after every "day" in "it is a beautiful day". Answer: "it is a beautiful day hello"',
            'Add "not" after every "i" in "i think i can do it". Answer: "i not think i not can do it"',
            'Add "can" after every "can" in "i think i can do it". Answer: "i think i can can do it"',
        ),
        'Add "{}" after every "{}" in "{}".',
    ),
    "del_char": (
        "Delete every instance of a specified letter in a given word, based on the following examples:",
        (
            'Delete every instance of "a" in "alphabet". Answer: "lphbet"',
            'Delete every instance of "l" in "hello". Answer: "heo"',
            'Delete every instance of "z" in "zebra". Answer: "ebra"',
            'Delete every instance of "u" in "tongue". Answer: "tonge"',
        ),
        'Delete every instance of "{}" in "{}".',
    ),
    "del_word": (
        "Delete every instance of a specified word in a given sentence, based on the following examples:",
        (
            'Delete every instance of "a" in "it is a beautiful day". Answer: "it is beautiful day"',
            'Delete every instance of "beautiful" in "it is a beautiful day". Answer: "it is a day"',
            'Delete every instance of "i" in "i think i can do it". Answer: "think can do it"',
            'Delete every instance of "can" in "i think i can do it". Answer: "i think i do it"',
        ),
        'Delete every instance of "{}" in "{}".',
    ),
    "sub_char": (
        "Substitute the first specified letter with the second specified letter in a given word, based on the following examples:",
        (
            'Substitute "a" with "b" in "alphabet". Answer: "blphbbet"',
            'Substitute "h" with "e" in "hello". Answer: "eello"',
            'Substitute "z" with "a" in "zebra". Answer: "aebra"',
            'Substitute "u" with "e" in "tongue". Answer: "tongee"',
        ),
        'Substitute "{}" with "{}" in "{}".',
    ),
    "sub_word": (
        "Substitute the first specified word with the second specified word in a given sentence, based on the following examples:",
        (
            'Substitute "it" with "a" in "it is a beautiful day". Answer: "a is a beautiful day"',
            'Substitute "it" with "beautiful" in "it is a beautiful day". Answer: "beautiful is a beautiful day"',
            'Substitute "i" with "do" in "i think i can do it". Answer: "do think do can do it"',
            'Substitute "think" with "can" in "i think i can do it". Answer: "i can i can do it"',
        ),
        'Substitute "{}" with "{}" in "{}".',
    ),
    "swap_char": (
        "Swap the positions of two specified letters in a given word, based on the following examples:",
        (
            'Swap "l" and "b" in "alphabet". Answer: "abphalet"',
            'Swap "h" and "e" in "hello". Answer: "ehllo"',
            'Swap "z" and "a" in "zebra". Answer: "aebrz"',
            'Swap "u" and "e" in "tongue". Answer: "tongeu"',
        ),
        'Swap "{}" and "{}" in "{}".',
    ),
    "swap_word": (
        "Swap the positions of two specified words in a given sentence, based on the following examples:",
        (
            'Swap "it" and "a" in "it is a beautiful day". Answer: "a is it beautiful day"',
            'Swap "it" and "beautiful" in "it is a beautiful day". Answer: "beautiful is a it day"',
            'Swap "think" and "do" in "i think i can do it". Answer: "i do i can think it"',
            'Swap "can" and "do" in "i think i can do it". Answer: "i think i do can it"',
        ),
        'Swap "{}" and "{}" in "{}".',
    ),
}
TASKS = tuple(WORDING)


def prompt(task: str, inputs: tuple[str, ...], zero_shot: bool = False) -> bytes:
    """The whole prompt of a question, up to the quote that opens its answer.

    Args:
        zero_shot: the question alone, for models that were taught to answer it.
    """
    question = WORDING[task][2].format(*inputs) + ANSWER
    return (question if zero_shot else f"{_examples(task)} {question}").encode()


def without_question(task: str, zero_shot: bool = False) -> bytes:
    """The examples, and an answer to nothing: how likely is an answer whatever is asked?"""
    return (ANSWER.lstrip() if zero_shot else _examples(task) + ANSWER).encode()


def _examples(task: str) -> str:
    intro, examples, _ = WORDING[task]
    numbered = [f"{number}. {example}" for number, example in enumerate(examples, 1)]
    return f"\n{INDENT}".join([intro, "", *numbered, "", "Question:"])
