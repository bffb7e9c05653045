"""Metrics against values that were published or computed by hand; the oracle tests have them drawn at random."""

import doctest
import importlib
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyformer.errors import UsageError
from tinyformer.tasks.metrics import answers, classification, correlation, entities, texts
from tinyformer.tasks.metrics.scores import Scores

FILES = {
    "classification": lambda gold, predicted: classification.measure(gold, predicted, ("a", "b")),
    "correlation": correlation.measure,
    "entities": entities.measure,
    "answers": answers.measure,
    "texts": texts.measure,
}
ONE = {"classification": "a", "correlation": 1.0, "entities": ["O"], "answers": ["a"], "texts": "a"}


@pytest.mark.parametrize("name", [*FILES, "scores"])
def test_examples_of_the_docstrings(name):
    failed, tried = doctest.testmod(importlib.import_module(f"tinyformer.tasks.metrics.{name}"))
    assert (failed, tried > 0) == (0, True)


@pytest.mark.parametrize("name", FILES)
def test_nothing_cannot_be_measured(name):
    with pytest.raises(UsageError, match=r"there are no \w+, so there is nothing to measure; give at least one"):
        FILES[name]([], [])


@pytest.mark.parametrize("name", FILES)
def test_each_example_needs_a_prediction(name):
    with pytest.raises(UsageError, match=r"there are 2 \w+ and 1 predictions; a metric needs one for each"):
        FILES[name]([ONE[name]] * 2, [ONE[name]])


def test_what_is_perfect_has_the_best_of_each():
    assert classification.measure(["a", "b"], ["a", "b"], ("a", "b")) == {"accuracy": 1, "f1": 1}
    assert correlation.measure([1, 2, 4], [1, 2, 4]) == pytest.approx({"mse": 0, "pearson": 1, "spearman": 1})
    tags = [["B-X", "I-X", "O"]]
    assert entities.measure(tags, tags) == {"precision": 1, "recall": 1, "f1": 1, "accuracy": 1}
    assert answers.measure([["1066"]], ["1066"]) == {"exact_match": 1, "f1": 1}
    assert texts.measure(["so it goes on"], ["so it goes on"]) == {"exact_match": 1, "bleu": 100, "rouge_l": 1}


@pytest.mark.parametrize("name", FILES)
def test_values_are_plain_floats_and_nothing_warns(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = FILES[name]([ONE[name]], [ONE[name]] if name != "answers" else ["a"])
    assert {type(value) for value in found.values()} == {float}


def test_scores_of_nothing_are_zero():
    assert Scores.of(0, 0, 0) == Scores(0, 0, 0, 0)
    assert Scores.of(0, 3, 0) == Scores(0, 0, 0, 0)
    assert Scores.of(0, 0, 3) == Scores(0, 0, 0, 3)


# Labels


def test_classes_as_in_the_report_that_scikit_learn_documents():
    gold, predicted, labels = list("01222"), list("00221"), tuple("012")
    found = classification.per_class(classification.confusion_matrix(gold, predicted, labels))
    rounded = [tuple(round(x, 2) for x in (s.precision, s.recall, s.f1, s.support)) for s in found]
    assert rounded == [(0.5, 1, 0.67, 1), (0, 0, 0, 1), (1, 0.67, 0.8, 3)]
    measured = classification.measure(gold, predicted, labels)
    assert measured == pytest.approx({"accuracy": 0.6, "macro_f1": 0.49}, abs=0.005)


def test_confusion_matrix_that_scikit_learn_documents():
    counts = classification.confusion_matrix(list("202201"), list("002202"), tuple("012"))
    assert counts.tolist() == [[2, 0, 0], [0, 0, 1], [1, 0, 2]]


def test_of_two_labels_the_second_is_the_positive_one():
    gold, predicted = ["1", "0", "0", "0"], ["1", "1", "0", "0"]
    assert classification.measure(gold, predicted, ("0", "1")) == {"accuracy": 0.75, "f1": pytest.approx(2 / 3)}
    assert classification.measure(gold, predicted, ("1", "0")) == {"accuracy": 0.75, "f1": pytest.approx(0.8)}


def test_one_class_alone():
    assert classification.measure(["a", "a"], ["a", "a"], ("a",)) == {"accuracy": 1, "macro_f1": 1}
    assert classification.measure(["a", "a"], ["a", "a"], ("a", "b")) == {"accuracy": 1, "f1": 0}


def test_labels_that_do_not_occur_are_left_out_of_the_mean():
    assert classification.measure(["a", "b"], ["a", "b"], ("a", "b", "c")) == {"accuracy": 1, "macro_f1": 1}
    assert classification.measure(["a", "b"], ["a", "c"], ("a", "b", "c"))["macro_f1"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("gold", "predicted"), [(["é"], ["a"]), (["a"], ["é"])])
def test_an_unknown_label_is_named(gold, predicted):
    with pytest.raises(UsageError, match="the label 'é' is none of 'a', 'b'"):
        classification.measure(gold, predicted, ("a", "b"))


# Numbers

# Anscombe 1973: the same correlation, to three digits, of four sets that look nothing alike.
ANSCOMBE_X = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
ANSCOMBE_Y = (
    [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68],
    [9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74],
    [7.46, 6.77, 12.74, 7.11, 7.81, 8.84, 6.08, 5.39, 8.15, 6.42, 5.73],
)


@pytest.mark.parametrize("y", ANSCOMBE_Y)
def test_pearson_of_anscombes_sets(y):
    assert correlation.pearson(ANSCOMBE_X, y) == pytest.approx(0.816, abs=0.0005)


def test_spearman_of_the_example_of_intelligence_and_television():
    """Ten pairs without ties whose ranks differ by a sum of squares of 194: 1 - 6 * 194 / (10 * 99)."""
    quotient = [106, 86, 100, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 0, 27, 50, 28, 29, 20, 12, 6, 17]
    assert correlation.spearman(quotient, hours) == pytest.approx(-29 / 165)


def test_equal_numbers_share_their_ranks():
    assert correlation.ranks([3, 1, 3, 3, 0]).tolist() == [4, 2, 4, 4, 1]
    # Ranks 1.5, 1.5, 3 beside 1, 2, 3, whose deviations are -.5, -.5, 1 and -1, 0, 1: 1.5 / sqrt(1.5 * 2).
    assert correlation.spearman([0, 0, 5], [1, 2, 3]) == pytest.approx(math.sqrt(0.75))


NOT_DEFINED = {
    "one-pair": ([1.0], [2.0]),
    "constant-predictions": ([1, 2, 3], [5, 5, 5]),
    "constant-gold": ([0.1, 0.1, 0.1], [1, 2, 3]),
    "both-zeros": ([0, 0], [0, -0.0]),
    "infinite": ([1, 2, 3], [1, 2, math.inf]),
    "nan": ([1, 2, 3], [1, 2, math.nan]),
}


@pytest.mark.parametrize("case", NOT_DEFINED)
def test_correlations_that_are_not_defined_are_nan(case):
    found = correlation.measure(*NOT_DEFINED[case])
    assert math.isnan(found["pearson"])
    assert math.isnan(found["spearman"])
    assert math.isfinite(found["mse"]) == (case not in ("infinite", "nan"))


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e200, 4e307])
def test_numbers_of_any_size_correlate(scale):
    numbers = np.array([1, 2, 4, 3]) * scale
    found = correlation.measure([1, 2, 3, 4], numbers)
    assert (found["pearson"], found["spearman"]) == pytest.approx((0.8, 0.8))


# Entities


def _sentences(tags):
    return [sentence.split() for sentence in tags.split("|")]


def test_scores_of_the_example_that_conlleval_documents():
    """961 words, 459 phrases, of which 371 were found among 539."""
    scores = Scores.of(right=371, found=539, there=459)
    assert [round(100 * x, 2) for x in (scores.precision, scores.recall, scores.f1)] == [68.83, 80.83, 74.35]


def test_entities_as_in_the_example_that_seqeval_documents():
    gold = _sentences("O O O B-MISC I-MISC I-MISC O | B-PER I-PER O")
    predicted = _sentences("O O B-MISC I-MISC I-MISC I-MISC O | B-PER I-PER O")
    assert entities.measure(gold, predicted) == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "accuracy": 0.8}
    assert {kind: scores.f1 for kind, scores in entities.per_type(gold, predicted).items()} == {"MISC": 0, "PER": 1}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-X I-X I-X", [("X", 0, 3)]),
        ("B-X B-X I-X", [("X", 0, 1), ("X", 1, 3)]),
        ("O I-X I-X", [("X", 1, 3)]),
        ("I-X O I-X", [("X", 0, 1), ("X", 2, 3)]),
        ("B-X I-Y I-Y O", [("X", 0, 1), ("Y", 1, 3)]),
        ("B I O B", [("", 0, 2), ("", 3, 4)]),
        ("B-IN-OUT I-IN-OUT I-IN", [("IN-OUT", 0, 2), ("IN", 2, 3)]),
        ("B-Ж I-Ж", [("Ж", 0, 2)]),
    ],
)
def test_entities_of_tags(tags, expected):
    assert entities.entities(tags.split()) == expected


def test_an_entity_is_right_only_whole_and_with_its_type():
    gold = _sentences("B-X I-X O")
    for tags in ("B-X O O", "B-X I-X I-X", "O B-X O", "B-Y I-Y O", "B-X B-X O", "O O O"):
        assert entities.measure(gold, _sentences(tags))["f1"] == 0
    assert entities.measure(gold, _sentences("I-X I-X O"))["f1"] == 1  # conlleval does not mind how it begins


def test_precision_is_of_what_was_found_and_recall_of_what_is_there():
    found = entities.measure(_sentences("B-X B-X O O"), _sentences("B-X O O O"))
    assert found == {"precision": 1, "recall": 0.5, "f1": pytest.approx(2 / 3), "accuracy": 0.75}


def test_sentences_do_not_run_into_each_other():
    assert entities.per_type([["B-X"], ["I-X"]], [["B-X"], ["I-X"]])["X"].support == 2


def test_no_entity_anywhere():
    assert entities.measure([["O"]], [["O"]]) == {"precision": 0, "recall": 0, "f1": 0, "accuracy": 1}
    assert entities.per_type([["O"]], [["O"]]) == {}


@pytest.mark.parametrize("tags", ["", "O", "B", "B I I O B B-X I-X O", "B-X I-X B-X", "B-X-Y I-X-Y"])
def test_tags_that_are_bio(tags):
    assert entities.bio_fault(tags.split()) is None


@pytest.mark.parametrize(
    ("tags", "place", "message"),
    [
        ("I-X", 0, "the tag 'I-X' is the first of its sentence; an entity begins with 'B-X'"),
        ("B-X O I-X", 2, "the tag 'I-X' follows 'O'; an entity begins with 'B-X'"),
        ("B-X I-Y", 1, "the tag 'I-Y' follows 'B-X'; an entity begins with 'B-Y'"),
        ("B-X I", 1, "the tag 'I' follows 'B-X'; an entity begins with 'B'"),
        ("O X", 1, "'X' is no BIO tag; use O, B-TYPE"),
        ("B-", 0, "'B-' is no BIO tag"),
        ("BX", 0, "'BX' is no BIO tag"),
        ("E-X", 0, "'E-X' is no BIO tag"),
        ("o", 0, "'o' is no BIO tag"),
    ],
)
def test_what_is_wrong_with_tags(tags, place, message):
    found, said = entities.bio_fault(tags.split())
    assert found == place
    assert said.startswith(message)


@given(st.lists(st.sampled_from(["O", "B", "I", "B-X", "I-X", "B-Y", "I-Y"]), max_size=6))
def test_tags_are_bio_exactly_where_each_i_follows_its_own(tags):
    wrong = [
        place
        for place, tag in enumerate(tags)
        if tag[0] == "I" and (place == 0 or tags[place - 1] not in (tag, "B" + tag[1:]))
    ]
    fault = entities.bio_fault(tags)
    assert (fault and fault[0]) == (wrong[0] if wrong else None)


def test_sentences_that_differ_in_length_or_have_no_words():
    with pytest.raises(
        UsageError, match="a sentence has 2 tags and 1 predicted ones; a metric needs one for each word"
    ):
        entities.measure([["O", "O"]], [["O"]])
    with pytest.raises(UsageError, match="the sentences have no words"):
        entities.measure([[]], [[]])
