"""Metrics of answers and of written texts against values that were published or computed by hand."""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.tasks.metrics import answers, texts

# Answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("The", ""),
        ("  A  an THE ", ""),
        ("the theme of another", "theme of another"),
        ("U.S.A.", "usa"),
        ("don't--stop", "dontstop"),
        ("a-b", "ab"),  # punctuation goes before articles
        ("the\u00a0cat\tand\na dog", "cat and dog"),
        ("«Älteste» — 東京。", "«älteste» — 東京。"),
        ("a_the_b", "atheb"),
        ("rock—the—roll", "rock— —roll"),
        ("Straße", "straße"),
    ],
)
def test_normalised_answers(text, expected):
    assert answers.normalise(text) == expected


def test_an_answer_is_as_good_as_the_gold_one_that_it_is_nearest_to():
    gold = ["Saint Bernadette Soubirous", "Bernadette"]
    assert answers.f1("Bernadette Soubirous", gold) == pytest.approx(0.8)  # 2 of 2, 2 of 3
    assert answers.f1("Saint Bernadette", gold) == pytest.approx(0.8)
    assert answers.f1("bernadette.", gold) == 1
    assert answers.exact_match("The Bernadette!", gold)
    assert not answers.exact_match("Saint Bernadette", gold)


def test_words_count_as_often_as_they_occur():
    assert answers.f1("no no no", ["no no yes"]) == pytest.approx(2 / 3)


def test_questions_without_an_answer():
    found = answers.measure([["cat"], ["cat", "dog"], [], [], []], ["cat", "big dog", "", "the", "cat"])
    assert found == pytest.approx(
        {
            "exact_match": 3 / 5,
            "f1": (1 + 2 / 3 + 1 + 1 + 0) / 5,
            "has_answer_exact_match": 1 / 2,
            "no_answer_exact_match": 2 / 3,
            "has_answer_f1": 5 / 6,
            "no_answer_f1": 2 / 3,
        }
    )
    assert answers.measure([[], []], ["", "x"]) == {"exact_match": 0.5, "f1": 0.5}


def test_gold_answers_that_nothing_is_left_of_do_not_count():
    assert answers.f1("", ["the", "cat"]) == 0
    assert answers.f1("", ["the", "!"]) == 1
    assert answers.exact_match("a", ["the"])


# Texts


def test_rouge_of_the_examples_of_the_paper():
    """Lin 2004, §3.1: of one reference, S2, S3 and S4."""
    reference = "police killed the gunman"
    for text, expected in (
        ("police kill the gunman", 3 / 4),
        ("the gunman kill police", 2 / 4),
        ("the gunman police killed", 2 / 4),
    ):
        assert texts.rouge_l([reference], [text]) == pytest.approx(expected)


def test_rouge_is_the_mean_over_texts_of_f():
    assert texts.rouge_l(["a b c d", "x"], ["a d", "y"]) == pytest.approx((2 * 2 / 6 + 0) / 2)
    assert texts.rouge_l(["It's  THE-end!"], ["it s the end"]) == 1
    assert texts.rouge_l(["東京"], ["東京"]) == 0


def _longest(a, b):
    """By trying all subsequences, the longest first."""
    inside = {piece for n in range(len(b) + 1) for piece in combinations(b, n)}
    return max(n for n in range(len(a) + 1) for piece in combinations(a, n) if piece in inside)


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_longest_common_subsequence(a, b):
    assert texts.common_subsequence(a, b) == texts.common_subsequence(b, a) == _longest(a, b)


def test_longest_common_subsequence_of_long_texts():
    words = [str(n * n % 1009) for n in range(2000)]
    assert texts.common_subsequence(words, words) == 2000
    assert texts.common_subsequence(words, words[::3]) == len(words[::3])


def test_bleu_by_hand():
    """6 words of 6 with 5 right, then 3 pairs of 5, 1 triple of 4, and no four of 3, for which half a match counts."""
    expected = 100 * (5 / 6 * 3 / 5 * 1 / 4 * 0.5 / 3) ** (1 / 4)
    assert texts.bleu(["a b c d e f"], ["a b c x e f"]) == pytest.approx(expected)


def test_bleu_clips_counts():
    """Papineni 2002, §2.1: of seven times "the" only two are right. Then 1/2, 1/4 and 1/8 of a match."""
    expected = 100 * (2 / 7 * (1 / 2) / 6 * (1 / 4) / 5 * (1 / 8) / 4) ** (1 / 4)
    assert texts.bleu(["the cat is on the mat"], ["the the the the the the the"]) == pytest.approx(expected)


def test_bleu_punishes_what_is_too_short_and_not_what_is_too_long():
    assert texts.bleu(["a b c d e f g h"], ["a b c d"]) == pytest.approx(100 * math.exp(1 - 8 / 4))
    assert texts.bleu(["a b c d"], ["a b c d e"]) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))


def test_bleu_is_of_the_corpus_and_not_a_mean():
    gold, predicted = ["a b c d", "a b"], ["a b c d", "x"]
    assert texts.bleu(gold, predicted) == pytest.approx(100 * (4 / 5) ** (1 / 4) * math.exp(1 - 6 / 5))


@pytest.mark.parametrize("predicted", ["", " ", "x y z w", "a b c"])
def test_bleu_of_no_match_or_of_too_few_words_is_zero(predicted):
    assert texts.bleu(["a b c"], [predicted]) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("Hello, World!", "Hello , World !"),
        ("3.14, 1,000 and 5.", "3.14 , 1,000 and 5 ."),
        ("U.S. don't well-known 1990-95", "U . S . don't well-known 1990 - 95"),
        ("&quot;A&quot; &lt;b&gt; &amp;lt; c", '" A " < b > < c'),
        ("one-\ntwo\nthree<skipped>", "onetwo three"),
        ("a[1]{2}", "a [ 1 ] { 2 }"),
        ("~a~b-c.5-", "~ a ~ b-c . 5 -"),
        ("&amp;quot; a-\n", "& quot ; a-"),
        ("wait...", "wait . . ."),
        ("Ω, 東京。", "Ω , 東京。"),
    ],
)
def test_words_of_13a(text, expected):
    assert " ".join(texts.tokenise_13a(text)) == expected


def test_an_exact_match_minds_every_character_but_white_space_at_the_ends():
    assert texts.exact_match(["a b"] * 5, ["\ta b\n", "a  b", "ab", "A b", "a b."]) == 1 / 5


def test_empty_texts():
    found = texts.measure(["", "a"], [" ", ""])
    assert found == pytest.approx({"exact_match": 0.5, "bleu": math.nan, "rouge_l": 0}, nan_ok=True)


@pytest.mark.parametrize(
    ("gold", "told"), [("a b c", False), ("a b, c", True), ("a b c d", True), ("", False), ("1,000 a b", False)]
)
def test_bleu_is_told_only_where_a_gold_text_has_four_words(gold, told):
    """By BLEU's own words; what was predicted does not matter."""
    for predicted in (gold, "x", "a b c d e f"):
        found = texts.measure([gold, "y"], [predicted, "y"])["bleu"]
        assert math.isnan(found) != told
        assert not told or found == texts.bleu([gold, "y"], [predicted, "y"])
