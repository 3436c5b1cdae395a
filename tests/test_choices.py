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
        ("Bananas", None),
        ("", None),
        # emphasis, brackets, small letters
        ("**B**", "B"),
        ("[B]", "B"),
        ("b", "B"),
        ("(c).", "C"),
        ("B\nBecause it is yellow.", "B"),
        ("B) A banana", "B"),
        ('"B"', "B"),
        # said in words
        ("Answer: B", "B"),
        ("Answer: (B) A banana", "B"),
        ("The correct answer is **C**.", "C"),
        ("Final answer - D", "D"),
        ("The correct option is option B.", "B"),
        ("The answer is A.", "A"),
        ("The answer is A because it is round.", "A"),
        ("B is correct.", "B"),
        # "A" as a word
        ("A fruit is eaten.", None),
        ("A man eats", None),
        ("The answer is a mystery.", None),
        ("The answer is A fruit", None),
        ("I", None),
        # denied
        ("Not (A)", None),
        ("It is not (A), it is (B).", "B"),
        ("The answer is not A.", None),
        ("The answer is not A but B", None),
        ("(A) is wrong, so (C).", "C"),
        ("(A) is not shown.", None),
        ("B is incorrect.", None),
        ("Not a banana.", None),
        # the text of an option within a sentence
        ("They eat cherries there.", "C"),
        ("Somebody eats an apple and a banana.", None),
        ("pineapple", None),
        # several
        ("B and C", None),
        ("B/C", None),
        ("(A)(B)", None),
        ("A and B", None),
        ("The answer is B, C or D.", None),
        # said twice is said once
        ("B. The answer is B.", "B"),
        ("(B) or rather (B)", "B"),
        ("B B B", "B"),
        # cut off after five tokens
        ("(B", "B"),
        ("The one that is meant is (C", "C"),
        ("The answer is a", None),
        # a letter and no other word
        ("B!", "B"),
        ("'B'", "B"),
        ("- B", "B"),
        ("{b}", "B"),
        ("A B", None),
        ("AB", None),
        # of full width, and with what cannot be seen
        ("Ｂ", "B"),
        ("（Ｂ）", "B"),
        ("B。", "B"),
        ("\u200b(B)\x00", "B"),
        # said in other words, and in small
        ("Answer: b", "B"),
        ("The answer is c.", "C"),
        ("The answer is c or d", None),
        ("It is B.", "B"),
        ("It's D", "D"),
        ("It is not B.", None),
        ("I choose B", "B"),
        ("I'd go with option C.", "C"),
        ("Letter D", "D"),
        # the other one is denied
        ("B, not A", "B"),
        ("B. (not A)", "B"),
        ("B is not right, C is.", None),
        # options are repeated
        ("(A) An apple (B) A banana", None),
        ("A: An apple, B: A banana", None),
        ("(B) A banana, not (A) An apple", "B"),
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


def test_of_options_within_each_other_the_longer_is_meant() -> None:
    options = ("red", "dark red", "blue")
    assert chosen("It is dark red.", options) == "B"
    assert chosen("It is red.", options) == "A"


def test_options_that_are_numbers_or_letters() -> None:
    assert chosen("3", ("2", "3", "4")) == "B"
    assert chosen("It was 3 times.", ("2", "3", "4")) == "B"
    assert chosen("There are 13.", ("2", "3", "4")) is None
    assert chosen("B", ("B", "A")) == "A", "an answer that is an option's text is that option"
