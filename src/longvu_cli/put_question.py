"""A question as the user's options have it put."""

from __future__ import annotations

from longvu_cli.choices import with_choices
from longvu_cli.config import QUESTION_PLACE, PromptOptions


def put_question(question: str, prompting: PromptOptions) -> str:
    """The question with its options, within the template; as it is where there are neither."""
    lettered = with_choices(question, prompting.choices)
    template = prompting.prompt_template
    return lettered if template is None else template.replace(QUESTION_PLACE, lettered)
