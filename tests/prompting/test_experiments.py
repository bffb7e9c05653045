"""Which shots are drawn, what is asked, what does not fit, and the figures that come of it."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.errors import UsageError
from tinyformer.prompting import Answer, Answered, Experiment, Result, Template, majority
from tinyformer.tasks import Example

TEMPLATE = Template.parse("{text}={label};")
EXAMPLES = [Example((f"t{i:02}",), "ab"[i % 2], f"shots.tsv, line {i + 1}") for i in range(10)]
QUERIES = [Example((f"q{i}",), "a") for i in range(3)]


@dataclass
class Echo:
    """Answers with the label of the last shot, or "a" without one; a token is a character."""

    context: int = 1000
    asked: list = field(default_factory=list)

    @property
    def model(self):
        return SimpleNamespace(config=SimpleNamespace(context=self.context))

    def prepare(self, prompt, place=""):
        return SimpleNamespace(text=prompt, length=len(prompt))

    def answers(self, prepared, done=lambda share: None):
        self.asked.append([each.text for each in prepared])
        done(1.0)
        return [Answer(each.text.rpartition(";")[0][-1:] or "a", {}) for each in prepared]


@given(seed=st.integers(0, 99), draw=st.integers(0, 99))
def test_shots_are_drawn_without_replacement_and_the_others_are_asked(seed, draw):
    experiment = Experiment(TEMPLATE, EXAMPLES, numbers=(0, 2, 4), seed=seed)
    shots, queries = experiment.draw(draw)
    assert len(shots) == 4
    assert sorted([*shots, *queries], key=EXAMPLES.index) == EXAMPLES
    assert queries == sorted(queries, key=EXAMPLES.index)
    assert experiment.draw(draw) == (shots, queries)
    again = Experiment(TEMPLATE, EXAMPLES, QUERIES, numbers=(4,), seed=seed, limit=2)
    assert again.draw(draw) == (shots, QUERIES[:2])


def test_draws_and_seeds_differ_and_every_example_comes_first_as_often():
    experiment = Experiment(TEMPLATE, EXAMPLES, numbers=(1,))
    first = [experiment.draw(number)[0][0].texts[0] for number in range(500)]
    assert all(25 <= first.count(example.texts[0]) <= 80 for example in EXAMPLES)  # 50, and 4.5 deviations
    other = Experiment(TEMPLATE, EXAMPLES, numbers=(1,), seed=1)
    assert first[:10] != [other.draw(number)[0][0].texts[0] for number in range(10)]


def test_more_shots_keep_those_that_were_there():
    echo = Echo()
    experiment = Experiment(TEMPLATE, EXAMPLES, QUERIES, numbers=(1, 2, 4), draws=2, limit=1)
    list(experiment.run(echo))
    prompts = [prompt.removesuffix("q0=") for (prompt,) in echo.asked]
    for draw in range(2):
        one, two, four = prompts[draw::2]
        assert (one, two) == (four[:6], four[:12])
        assert len(four) == 24


def test_without_shots_a_fixed_file_is_asked_once():
    echo = Echo()
    results = list(Experiment(TEMPLATE, EXAMPLES, QUERIES, numbers=(0, 1), draws=4).run(echo))
    assert [len(result.accuracies) for result in results] == [1, 4]
    assert (results[0].accuracy, results[0].standard_error) == (1.0, None)
    assert results[1].standard_error > 0
    assert len(echo.asked) == 5
    (left,) = Experiment(TEMPLATE, EXAMPLES, numbers=(0,), draws=4, limit=3).run(Echo())
    assert len(left.accuracies) == 4, "what is left depends on the draw"


def test_the_figures_by_hand():
    def answered(draw, right, label="a"):
        return Answered(2, draw, Example(("t",), label), Answer(" a\n" if right else "b", {}))

    rights = {0: [1, 1, 0, 0], 1: [1, 1, 1, 0], 2: [1, 1, 1, 1]}
    result = Result(2, tuple(answered(draw, right) for draw, each in rights.items() for right in each))
    assert result.accuracies == [0.5, 0.75, 1.0]
    assert result.accuracy == 0.75
    assert result.standard_error == pytest.approx(0.25 / math.sqrt(3))  # deviation 0.25, of three draws
    without = Result(2, (answered(0, True, None),))
    assert (without.accuracy, without.standard_error) == (None, None)
    assert majority([*EXAMPLES, EXAMPLES[0], Example(("t",))]) == 6 / 11
    assert majority([Example(("t",))]) is None


def test_first_shots_are_left_out_until_a_prompt_fits_and_that_is_counted():
    long = Example(("q" * 9,), "a")
    for context in range(10, 40):
        echo = Echo(context=context)
        (result,) = Experiment(TEMPLATE, EXAMPLES, [QUERIES[0], long], numbers=(4,), draws=1).run(echo)
        room = {query: min(4, (context - len(query.texts[0]) - 1) // 6) for query in (QUERIES[0], long)}
        assert [4 - each.left_out for each in result.answered] == list(room.values())
        assert result.shortened == sum(kept < 4 for kept in room.values())
        shots = "".join(
            TEMPLATE.shot(shot.texts, shot.label)
            for shot in Experiment(TEMPLATE, EXAMPLES, QUERIES, numbers=(4,)).draw(0)[0]
        )
        expected = {shots[6 * (4 - kept) :] + TEMPLATE.query(query.texts) for query, kept in room.items()}
        assert {prompt for batch in echo.asked for prompt in batch} == expected
        assert [each.query for each in result.answered] == [QUERIES[0], long], "answers stay in order"


@pytest.mark.parametrize("numbers", [(0,), (3,)])
def test_a_text_that_does_not_fit_alone_is_named(numbers):
    query = Example(("q" * 50,), "a", "texts.tsv, line 7")
    with pytest.raises(UsageError, match=r"texts.tsv, line 7 makes a prompt of 51 tokens .* context is 40"):
        list(Experiment(TEMPLATE, EXAMPLES, [query], numbers=numbers).run(Echo(context=40)))


def test_progress_rises_to_the_total():
    seen = []
    experiment = Experiment(TEMPLATE, EXAMPLES, QUERIES, numbers=(0, 3), draws=2)
    list(experiment.run(Echo(), lambda done, total, what: seen.append((done, total))))
    assert seen == [(3, 9), (6, 9), (9, 9)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"numbers": (11,)}, "11 shots cannot be drawn from 10 examples"),
        ({"numbers": (0, 10)}, "none is left to ask"),
        ({"numbers": (-1,)}, "0 or more, not -1"),
        ({"numbers": ()}, "not none"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_what_cannot_be_asked(settings, message):
    with pytest.raises(UsageError, match=message):
        Experiment(TEMPLATE, EXAMPLES, **settings)
