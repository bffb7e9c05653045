"""What a prompt looks like, to the character."""

import pytest

from tinyformer.errors import UsageError
from tinyformer.prompting import NAMED, Template, first_sentences, make_prompt, unescaped
from tinyformer.tasks import Example

SHOTS = [Example(("sea otter",), "loutre de mer"), Example(("peppermint",), "menthe poivrée")]


def test_the_figure_of_gpt3():
    template = Template.parse("gpt3")
    prompt = make_prompt(template, SHOTS, Example(("cheese",)), "Translate English to French:")
    assert prompt == (
        "Translate English to French:\nsea otter => loutre de mer\npeppermint => menthe poivrée\ncheese =>"
    )
    assert template.lead == " "
    assert make_prompt(template, [], Example(("cheese",))) == "cheese =>"


def test_the_summaries_of_gpt2():
    assert make_prompt(Template.parse("tldr"), [], Example(("Much happened.",))) == "Much happened.\nTL;DR:"


def test_several_lines_pairs_and_braces():
    template = Template.parse(unescaped(r"{{{text}}} \\ {pair}\nLabel:  {label}!\n\n"))
    assert template.texts == 2
    shot = Example(("a {label} b", "c"), "{yes}")
    assert make_prompt(template, [shot], Example(("d", "e ")), "Task\n") == (
        "Task\n{a {label} b} \\ c\nLabel:  {yes}!\n\n{d} \\ e \nLabel:"
    )
    assert (template.lead, template.cue, template.behind) == ("  ", "Label:", "!\n\n")


def test_a_text_keeps_its_spaces_where_the_answer_follows_it_at_once():
    template = Template.parse("Q{text}{label}")
    assert (template.query(("a  ",)), template.lead, template.cue) == ("Qa  ", "", "Answer:")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{text}", "no {label}"),
        ("Label: {label}", "no {text}"),
        ("{label} {text}", "{text} stands behind {label}"),
        ("{text} {text} {label}", "twice"),
        ("{text} {answer} {label}", "it has {answer}, and the fields are {text}, {pair}, {label}"),
        ("{text} {} {label}", "it has {}"),
        ("{text:5} {label}", "it has {text}"),
        ("{text!r} {label}", "it has {text}"),
        ("{text} {label", "expected '}'"),
        ("{text} } {label}", "Single '}'"),
        ("", "no {text}"),
    ],
)
def test_templates_that_cannot_be_used(written, message):
    with pytest.raises(UsageError) as caught:
        Template.parse(written)
    assert message in str(caught.value)
    assert repr(written) in str(caught.value)


def test_the_named_ones_can_be_used():
    assert {Template.parse(name).texts for name in NAMED} == {1}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One. Two!  Three? Four.", "One. Two!  Three?"),
        (' He said "no." Then 3.5 more... End', ' He said "no." Then 3.5 more...'),
        ("Without an end", "Without an end"),
        ("One. Two\nand a half", "One. Two\nand a half"),
        ("", ""),
    ],
)
def test_first_sentences(text, kept):
    count = 3 if "Three" in text else 2
    assert first_sentences(text, count) == kept
