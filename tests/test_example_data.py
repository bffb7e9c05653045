"""The entropy of examples/data.txt is exact: the grammar is unambiguous, and the sums are right."""

import importlib.util
from collections import Counter
from functools import cache
from itertools import combinations, product
from math import log2, sqrt
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def grammar():
    """The script, loaded anew, so that a test may change its rules."""
    spec = importlib.util.spec_from_file_location("make_data", EXAMPLES / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parses(grammar, text):
    """Every way in which the grammar can have written a whole story: the bits of its choices."""

    def capital(word, wanted):
        return word[0].upper() + word[1:] if wanted else word

    def items(rest, place, facts, bits):
        if not rest:
            yield place, facts, bits
            return
        item, rest = rest[0], rest[1:]
        if isinstance(item, str):
            if text.startswith(item, place):
                yield from items(rest, place + len(item), facts, bits)
            return
        name, draw, column, upper = item
        if not column:
            for where in rule(name, place, facts, bits):
                yield from items(rest, *where)
            return
        rows = grammar.table(name) if draw else [facts[name]]
        for row in rows:
            word = capital(row[column], upper)
            if text.startswith(word, place):
                yield from items(rest, place + len(word), {**facts, name: row}, bits + log2(len(rows)))

    def rule(name, place, facts, bits):
        options = grammar.alternatives(name)
        for option in options:
            yield from items(option, place, facts, bits + log2(len(options)))

    return [bits for end, _, bits in rule("story", 0, {}, 0.0) if end == len(text)]


def collisions(grammar):
    """Pairs of alternatives, or of rows, that a reader might not tell apart. When in doubt, names the pair.

    If no expansion of one alternative is the beginning of an expansion of another, and no form of a drawn fact
    is the beginning of another row's, then a reader who goes from left to right always knows which choice was made,
    and no text is written in two ways.
    """

    def words(name, column, upper):
        return {row[column][0].upper() + row[column][1:] if upper else row[column] for row in grammar.table(name)}

    @cache
    def may_agree(a, b, loose):
        """Whether one of two sequences may begin with the other; `loose` facts may differ between them."""
        if not a or not b:
            return True
        if isinstance(a[0], str) and isinstance(b[0], str):
            n = min(len(a[0]), len(b[0]))
            if a[0][:n] != b[0][:n]:
                return False
            return may_agree(tuple(filter(None, (a[0][n:], *a[1:]))), tuple(filter(None, (b[0][n:], *b[1:]))), loose)
        if a[0] == b[0] and a[0][0] not in loose:
            # Expanded differently, two copies of a rule or a draw differ by themselves: each is checked in its turn.
            return may_agree(a[1:], b[1:], loose)
        if isinstance(a[0], str):
            a, b = b, a
        name, draw, column, upper = a[0]
        if column:
            loose |= {name} if draw else set()
            return any(may_agree((word, *a[1:]), b, loose) for word in words(name, column, upper))
        return any(may_agree((*option, *a[1:]), b, loose) for option in grammar.alternatives(name))

    found = []
    for name in grammar.RULES:
        for a, b in combinations(grammar.alternatives(name), 2):
            if may_agree(tuple(a), tuple(b), frozenset()):
                found.append((name, a, b))
        for option in grammar.alternatives(name):
            for item in option:
                if isinstance(item, tuple) and item[1]:
                    fact, _, column, _ = item
                    forms = [row[column] for row in grammar.table(fact)]
                    found += [(fact, a, b) for a in forms for b in forms if a is not b and a.startswith(b)]
    return found


def test_the_file_is_what_the_script_writes(grammar):
    assert (EXAMPLES / "data.txt").read_bytes() == grammar.make_text().encode("ascii")


def test_the_grammar_is_unambiguous(grammar):
    assert collisions(grammar) == []


@pytest.mark.parametrize(
    ("tables", "rules"),
    [
        ({"color": "name; red; reddish; blue"}, {}),
        ({}, {"time": "morning | evening | even"}),
        ({}, {"search": "{Hero} went | Ravi went"}),
        ({}, {"time": "rose", "subjects": "tiny {plural} | {adjective} {time}s"}),
        ({}, {"ending": "{supper} {after} | {supper}"}),
    ],
)
def test_planted_ambiguities_are_found(grammar, tables, rules):
    grammar.TABLES.update(tables)
    grammar.RULES.update(rules)
    assert collisions(grammar)


def test_every_story_parses_in_one_way_and_its_bits_agree_with_the_exact_rate(grammar):
    stories = (EXAMPLES / "data.txt").read_text("ascii").split("\n\n")
    assert stories.pop() == ""
    assert len(stories) == grammar.STORIES
    bits = []
    for story in stories:
        ways = parses(grammar, story)
        assert len(ways) == 1, story
        bits += ways
    rate = grammar.true_entropy()
    # The surplus over the exact rate has mean 0; its mean over the stories lies within 4 standard errors of that.
    surplus = [b - rate * (len(story) + 2) for b, story in zip(bits, stories)]
    n = len(surplus)
    mean = sum(surplus) / n
    error = sqrt(sum((s - mean) ** 2 for s in surplus) / (n - 1) / n)
    assert error / (sum(bits) / n) < 0.01
    assert abs(mean) < 4 * error


def test_the_expectations_equal_those_of_all_texts_written_out(grammar):
    grammar.TABLES["who"] = "name | says; cat | meow; horse | neigh; owl | hoot"
    grammar.RULES["story"] = (
        'A {who!} {verb}. "{Who.says}!" | The {time} {verb} // {time}.\n No {who!says} {verb} {who}.'
    )
    grammar.RULES["verb"] = "ran | sat {time} | slept well"
    grammar.RULES["time"] = "today | always"
    texts = Counter()
    # Enough digits for the longest derivation; a digit that is not asked for shares its text with its siblings.
    sizes = {2: 2, 3: 3}
    for digits in product(range(6), repeat=5):
        rest = list(digits)
        text = grammar.write("story", lambda n, rest=rest: rest.pop(0) * sizes[n] // 6, {})
        texts[text] += 1
    total = sum(texts.values())
    bits = -sum(count / total * log2(count / total) for count in texts.values())
    size = sum(count / total * len(text) for text, count in texts.items())
    assert grammar.measure("story") == pytest.approx((bits, size), rel=1e-12)


def test_the_documented_rate_is_the_true_one(grammar):
    assert f"= {grammar.true_entropy():.2f} bits per byte" in grammar.__doc__


def test_the_stories_read_as_promised(grammar):
    text = grammar.make_text(300, seed=7)
    stories = text.split("\n\n")[:-1]
    assert sum(story.startswith("Once") for story in stories) > 120
    assert len(set(stories)) == 300
    assert "{" not in text
    assert max(map(len, stories)) < 1200
