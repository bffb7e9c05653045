"""Metrics against scikit-learn, SciPy, seqeval, sacrebleu, rouge-score, and the rules of SQuAD's script."""

import math
import re
import string
import warnings

import numpy as np
import pytest
import sacrebleu
import scipy.stats
import seqeval.metrics
import sklearn.metrics
from hypothesis import example, given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tinyformer.tasks.metrics import answers, classification, correlation, entities, texts

pytestmark = pytest.mark.oracle


def pairs(one, other=None, **sizes):
    """Lists of (gold, predicted), at least one, as two lists."""
    both = st.lists(st.tuples(one, one if other is None else other), min_size=1, **sizes)
    return both.map(lambda found: tuple(map(list, zip(*found))))


def copied(one):
    """What is drawn, and a copy of it that is mostly faithful."""
    return st.tuples(one, one, st.integers(0, 3)).map(lambda drawn: (drawn[0], drawn[0] if drawn[2] else drawn[1]))


def quietly(function, *values, **options):
    """Call another's function, which may warn of a single class, of no entity, of a constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*values, **options)


# Labels

LABELS = ("a", "b", "c", "é", "不")


@given(st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(LABELS[:n]), pairs(st.sampled_from(LABELS[:n])))))
def test_labels_as_scikit_learn(drawn):
    labels, (gold, predicted) = drawn
    counts = classification.confusion_matrix(gold, predicted, labels)
    theirs = quietly(sklearn.metrics.confusion_matrix, gold, predicted, labels=labels)
    np.testing.assert_array_equal(counts, theirs)
    theirs = sklearn.metrics.precision_recall_fscore_support(gold, predicted, labels=labels, zero_division=0)
    ours = [(s.precision, s.recall, s.f1, s.support) for s in classification.per_class(counts)]
    np.testing.assert_allclose(ours, np.transpose(theirs), rtol=1e-12)
    expected = {"accuracy": sklearn.metrics.accuracy_score(gold, predicted)}
    if len(labels) == 2:
        expected["f1"] = sklearn.metrics.f1_score(gold, predicted, pos_label=labels[1], labels=labels, zero_division=0)
    else:
        expected["macro_f1"] = sklearn.metrics.f1_score(gold, predicted, average="macro", zero_division=0)
    assert classification.measure(gold, predicted, labels) == pytest.approx(expected, rel=1e-12)


# Numbers

NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6).map(lambda x: round(x, 3)))


@given(pairs(NUMBERS))
def test_numbers_as_scipy_and_scikit_learn(drawn):
    gold, predicted = drawn
    found = correlation.measure(gold, predicted)
    assert found["mse"] == pytest.approx(sklearn.metrics.mean_squared_error(gold, predicted), rel=1e-12)
    np.testing.assert_array_equal(correlation.ranks(gold), scipy.stats.rankdata(gold))
    for name, theirs in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        expected = quietly(theirs, gold, predicted).statistic if len(gold) > 1 else math.nan
        assert found[name] == pytest.approx(expected, abs=1e-9, nan_ok=True)


# Entities

TAGS = st.sampled_from(["O", "O", "B", "I", "B-X", "I-X", "I-X", "B-Y", "I-Y", "B-X-Y", "I-X-Y", "B-Ж", "I-Ж"])
SENTENCES = st.lists(st.lists(copied(TAGS), min_size=1, max_size=8), min_size=1, max_size=5)


@given(SENTENCES)
@example([[("O", "O")]])
@example([[("B-X", "I-X")], [("I-X", "B-X")]])
def test_entities_as_seqeval(sentences):
    gold, predicted = ([[pair[side] for pair in sentence] for sentence in sentences] for side in (0, 1))
    theirs = {
        "accuracy": seqeval.metrics.accuracy_score(gold, predicted),
        "precision": seqeval.metrics.precision_score(gold, predicted, zero_division=0),
        "recall": seqeval.metrics.recall_score(gold, predicted, zero_division=0),
        "f1": seqeval.metrics.f1_score(gold, predicted, zero_division=0),
    }
    assert entities.measure(gold, predicted) == pytest.approx(theirs, rel=1e-12)
    for tags in (*gold, *predicted):
        expected = [
            (kind.replace("_", ""), a, b + 1) for kind, a, b in seqeval.metrics.sequence_labeling.get_entities(tags)
        ]
        assert entities.entities(tags) == expected
    report = quietly(seqeval.metrics.classification_report, gold, predicted, output_dict=True, zero_division=0)
    for kind, scores in entities.per_type(gold, predicted).items():
        row = report[kind or "_"]
        ours = (scores.precision, scores.recall, scores.f1, scores.support)
        assert ours == pytest.approx((row["precision"], row["recall"], row["f1-score"], row["support"]), rel=1e-12)
    assert len(report) - 3 == len(entities.per_type(gold, predicted))  # beside micro, macro and weighted


# Answers


def squad_words(text):
    """What evaluate-v2.0 leaves of a text, read off character by character: the words, as a list.

    Lower case first; then each of the 32 signs of ASCII vanishes; then a run of word characters that is an article
    becomes a space; what is left is split at white space.
    """
    kept = [character for character in text.lower() if character not in set(string.punctuation)]
    runs, word = [], []
    for character in [*kept, " "]:
        if re.fullmatch(r"\w", character):
            word.append(character)
            continue
        runs += [" " if "".join(word) in {"a", "an", "the"} else "".join(word), character]
        word = []
    return "".join(runs).split()


def squad_scores(prediction, golds):
    """Exact match and F1 of one question, the larger of each over its gold answers."""
    wanted = [words for words in map(squad_words, golds) if words] or [[]]
    given = squad_words(prediction)
    f1 = []
    for words in wanted:
        left = list(words)
        common = 0
        for word in given:
            if word in left:
                left.remove(word)
                common += 1
        if not words or not given:
            f1.append(float(words == given))
        elif common == 0:
            f1.append(0.0)
        else:
            precision, recall = common / len(given), common / len(words)
            f1.append(2 * precision * recall / (precision + recall))
    return float(given in wanted), max(f1)


PIECES = ["a", "An", "the", "The", "cat", "CAT", "dog", "mat", "1066", ".", "'s", "-", ",", " ", "  ", "\n", "«", "。"]
PIECES += ["é", "\u00a0", "İ", "_", "東京"]
PHRASES = st.lists(st.sampled_from(PIECES), max_size=6).map(" ".join) | st.lists(st.sampled_from(PIECES)).map("".join)
QUESTIONS = pairs(st.lists(PHRASES, max_size=3), PHRASES, max_size=6)


@given(QUESTIONS)
@example(([["the"], []], ["", "a"]))
@example(([[], ["cat"]], ["cat", ""]))
def test_answers_by_the_rules_of_squads_script(drawn):
    gold, predicted = drawn
    scores = np.array([squad_scores(*pair) for pair in zip(predicted, gold)])
    expected = dict(zip(("exact_match", "f1"), scores.mean(axis=0)))
    answerable = np.array([bool(answers) for answers in gold])
    if 0 < answerable.sum() < len(gold):
        for kind, chosen in (("has_answer", answerable), ("no_answer", ~answerable)):
            means = scores[chosen].mean(axis=0)
            expected |= {f"{kind}_exact_match": means[0], f"{kind}_f1": means[1]}
    assert answers.measure(gold, predicted) == pytest.approx(expected, rel=1e-12)


@given(PHRASES | st.text(max_size=30))
@example("U.S.A. rock—the—roll Straße")
def test_normalised_answers_by_the_rules_of_squads_script(text):
    assert answers.normalise(text).split() == squad_words(text)


# Texts

WORDS = st.sampled_from(
    ["the", "cat", "sat", "on", "mat", "It's", "3.14", "1,000", "-", "x-y", "9-1", "(", ".", ",", "東"]
)
NEAR = st.lists(st.lists(copied(WORDS | st.just("")), max_size=15), min_size=1, max_size=4).map(
    lambda texts: tuple([" ".join(pair[side] for pair in text) for text in texts] for side in (0, 1))
)
ANY = pairs(st.text(string.printable + "éß。–&<>", max_size=30) | st.text(max_size=20), max_size=3)


@given(NEAR | ANY)
@example((["a b c d e f"], ["a b c x e f"]))
@example((["a b c"], ["a b c"]))
def test_bleu_as_sacrebleu(drawn):
    gold, predicted = drawn
    theirs = sacrebleu.corpus_bleu(predicted, [gold], force=True).score
    assert texts.bleu(gold, predicted) == pytest.approx(theirs, rel=1e-9, abs=1e-12)


@given(st.text(string.ascii_letters + string.digits + string.punctuation + " \n\t", max_size=40) | st.text(max_size=20))
@example("a-\nb <skipped>c &amp;quot; d &lt;e&gt; &amp;amp;")
@example("..,,1.,2-3-.4")
@example("~a~a-c.5-\n")
def test_words_as_sacrebleu_cuts_them(text):
    theirs = sacrebleu.tokenizers.tokenizer_13a.Tokenizer13a()(text.rstrip())
    assert texts.tokenise_13a(text) == theirs.split()


@given(NEAR | ANY)
@example((["The Cat sat"], ["the cat"]))
def test_rouge_as_rouge_score(drawn):
    gold, predicted = drawn
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    theirs = [scorer.score(wanted, given)["rougeL"].fmeasure for wanted, given in zip(gold, predicted)]
    assert texts.rouge_l(gold, predicted) == pytest.approx(np.mean(theirs), rel=1e-12)
