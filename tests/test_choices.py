"""choices.py: how options are put, and which one an answer means."""

from __future__ import annotations

import pytest

from longvu_cli.choices import chosen, with_choices
from longvu_cli.config import PromptOptions
from longvu_cli.put_question import put_question

FRUIT = ("An apple", "A banana", "Cherries", "None of these")


def test_options_are_put_as_the_reference_puts_those_of_mvbench() -> None:
    assert with_choices("What is eaten?", FRUIT) == (
        "Question: What is eaten?\nOptions:\n(A) An apple\n(B) A banana\n(C) Cherries\n(D) None of these\n"
        "Answer with the option's letter from the given choices directly and only give the best option."
    )
    assert with_choices("What is eaten?", ()) == "What is eaten?"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        (" B.", "B"),
        ("B. A banana", "B"),
        ("(B) A banana", "B"),
        ("D: none", "D"),
        ("The best option is (C).", "C"),
        ("The answer is C", "C"),
        ("Best option: (A)", "A"),
        ("I think it is (D), really.", "D"),
        ("A banana.", "B"),
        ("cherries", "C"),
        ("An apple", "A"),
        ("C. Apples (A) and bananas", "C"),
        ("A fruit that I do not know.", None),
        ("(A) and (B)", None),
        ("A, B", None),
        ("A. B. C.", None),
        ("The answer is A or C.", None),
        ("Neither (A) nor (B)", None),
        ("E", None),
        ("b", None),
        ("Bananas", None),
        ("", None),
    ],
)
def test_an_answer_means_an_option(answer: str, letter: str | None) -> None:
    assert chosen(answer, FRUIT) == letter


def test_without_options_nothing_is_chosen() -> None:
    assert chosen("A", ()) is None


def test_the_template_goes_around_the_question_with_its_options() -> None:
    template = "Look well. {question} {braces} %s"
    assert put_question("Why?", PromptOptions()) == "Why?"
    assert put_question("Why?", PromptOptions(prompt_template=template)) == "Look well. Why? {braces} %s"
    put = put_question("{question}", PromptOptions(prompt_template=template, choices=("x", "y")))
    assert put == f"Look well. {with_choices('{question}', ('x', 'y'))} {{braces}} %s"
