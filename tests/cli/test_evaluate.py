"""`tinyformer evaluate` of runs that were fine-tuned: which figures there are to tell."""

import json

import pytest
from commandline import output, run
from made_runs import made_run


@pytest.mark.parametrize(("target", "told"), [("a good day", False), ("a good, bad", True)])
def test_bleu_is_told_where_a_target_has_four_words(tmp_path, target, told):
    path = made_run(tmp_path / "run", "text2text", "encoder-decoder", context=16)
    (tmp_path / "a.tsv").write_text(f"one\t{target}\ntwo\ta\n")
    found = json.loads(output("evaluate", path, tmp_path / "a.tsv", "--json"))
    assert (found["bleu"] is not None) == told
    shares = [found["exact_match"], found["rouge_l"], *([found["bleu"] / 100] if told else [])]
    assert found["average"] == pytest.approx(sum(shares) / len(shares))
    assert output("evaluate", path, tmp_path / "a.tsv").startswith(b"exact match 0.0 %, ROUGE-L ")
    assert (b"BLEU -\n" in output("evaluate", path, tmp_path / "a.tsv")) != told


@pytest.mark.parametrize(("labels", "code"), [(["no answer"], 0), ([], 2)])
def test_questions_without_any_answer_are_measured_by_a_run_that_knows_some(tmp_path, labels, code):
    """As they are with --validation."""
    path = made_run(tmp_path / "run", "answer", context=64, labels=labels)
    question = {"question": "Who left?", "context": "Ada met Bob.", "answers": []}
    (tmp_path / "a.jsonl").write_text((json.dumps(question) + "\n") * 3)
    result = run("evaluate", path, tmp_path / "a.jsonl")
    assert result.exit_code == code
    assert ("measured on 3 examples" if not code else "a.jsonl, line 1 has no answer, and every") in result.output
