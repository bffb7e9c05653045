"""The benchmark itself: its arithmetic, its tables, and that both sides of a comparison compute the same.

Nothing here is timed.
"""

import importlib
import json
import mmap

import numpy as np
import pytest
from click.testing import CliRunner

from tests.benchmarks import __main__ as command
from tests.benchmarks import cases, contender, gemm, ours, parent, report, start, tokenizing

TINY = cases.Size(vocabulary=65, layers=2, heads=4, width=32, context=64, batch=3)


@pytest.mark.parametrize(
    ("mode", "by_hand"),
    [
        # By product: 4 maps of d d; scores and averages of the pairs that are seen; 2 maps of d f; logits.
        ("decoder", 2 * (64 * (4 * 32 * 32 + 2 * 32 * 128) + 64 * 65 // 2 * 2 * 32) + 64 * 32 * 65),
        ("encoder", 2 * (64 * (4 * 32 * 32 + 2 * 32 * 128) + 64 * 64 * 2 * 32) + 10 * (32 * 32 + 32 * 65)),
        # A source of 64, of which a text of 70 leaves 60 and a sentinel for each of 3 spans, and the end: 64.
        # A target of 10 tokens, 3 sentinels and the end: 14. Then the cross-attention, and its two maps of the source.
        (
            "encoder-decoder",
            2 * (64 * (4 * 32 * 32 + 2 * 32 * 128) + 64 * 64 * 2 * 32)
            + 2 * (14 * (6 * 32 * 32 + 2 * 32 * 128) + 14 * 15 // 2 * 2 * 32 + 64 * 2 * 32 * 32 + 14 * 64 * 2 * 32)
            + 14 * 32 * 65,
        ),
    ],
)
def test_flops_of_a_step_are_those_counted_by_hand(mode, by_hand):
    batch = cases.make_batch(mode, TINY)
    assert cases.model_flops(cases.model_config(mode, TINY), batch) == 3 * 3 * 2 * by_hand  # b, forward and back, x +


@pytest.mark.parametrize("mode", cases.MODES)
def test_batches_fill_their_rows(mode):
    batch = cases.make_batch(mode, TINY)
    assert batch.inputs.shape == (3, 64)
    assert batch.mask is None or (batch.mask == 1).all()
    assert batch.weights is None or set(batch.weights.sum(axis=1)) == {10.0}
    for ids in (batch.inputs, batch.targets):
        assert ids.min() >= 0
        assert ids.max() < 65


def test_a_case_comes_back_from_its_files_and_has_no_vector_as_it_begins(tmp_path):
    made, again = cases.write_case(tmp_path, "encoder", TINY), cases.read_case(tmp_path)
    assert again.config == made.config == cases.model_config("encoder", TINY)
    assert {name: array.shape for name, array in again.weights.items()} == {
        name: parameter.shape for name, parameter in cases.build(made.config).parameters().items()
    }
    for name, array in again.weights.items():
        assert array.ndim > 1 or len(np.unique(array)) > 1, name
    np.testing.assert_array_equal(again.batch.inputs, cases.make_batch("encoder", TINY).inputs)


def test_ratios_are_taken_round_by_round():
    assert report.ratio([1.0, 4.0, 3.0], [2.0, 4.0, 1.0]) == (1.0, 0.5, 3.0)


@pytest.fixture
def found():
    """A case with known figures: ours takes half of one peer's time, and another computes something else."""
    contenders = {
        "tinyformer": {"seconds": [0.1, 0.2, 0.3], "peak": 50_000_000},
        "torch": {"seconds": [0.2, 0.4, 0.6], "peak": 100_000_000},
        "JAX": {"seconds": [1.0, 2.0, 3.0], "peak": None, "wrong": "another loss"},
    }
    gemm = [200.0, 100.0, 100.0]
    case = {"case": "decoder/128", "amount": 1000, "unit": "tokens", "digits": 0, "flops": 10.0, "gemm": gemm}
    return case | {"contenders": contenders}


def test_a_table_of_a_case(found):
    lines = report.terminal(found).splitlines()
    assert [line.split("  ")[0] or line.split()[0] for line in lines] == ["decoder/128", "tinyformer", "torch", "JAX"]
    assert "200.0 (100.0-300.0) ms" in lines[1]
    assert "5,000 tokens/s" in lines[1]
    assert "50 MB" in lines[1]
    assert "50% (33%-50%)" in lines[1]  # 10 FLOPs in 0.1, 0.2 and 0.3 s, of 200, 100 and 100 a second
    assert "0.50 (0.50-0.50)" in lines[2]
    assert "another loss" in lines[3]
    assert "0.10" not in lines[3]


def test_a_table_for_the_readme(found):
    assert report.markdown([found]).splitlines() == [
        "| case | rate | time / torch | time / JAX | memory / torch | of the GEMM rate |",
        "| --- | --: | --: | --: | --: | --: |",
        "| decoder/128 | 5,000 tokens/s | 0.50 | another loss | 0.50 | 50% |",
    ]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["decoder"], ["decoder/128", "decoder/256", "decoder/384", "decoder/512"]),
        (["start", "encoder/384"], ["encoder/384", "start"]),
    ],
)
def test_cases_are_chosen_by_name_or_kind(patterns, names):
    assert command.chosen(tuple(patterns)) == names


def test_an_unknown_case_is_refused():
    result = CliRunner().invoke(command.main, ["--only", "decoder/129"])
    assert result.exit_code == 2
    assert "there is no case 'decoder/129'; there are decoder/128" in result.output


def test_memory_of_a_step_is_its_peak_and_not_what_is_left():
    before = contender.resident("VmRSS")
    if before is None or contender.peak_growth(lambda: None, 1, before) is None:
        pytest.skip("this system does not tell")

    def step():
        with mmap.mmap(-1, 200 << 20) as pages:
            for _ in range(200):
                pages.write(bytes(1 << 20))

    grown, later = (contender.peak_growth(function, 2, before) for function in (step, lambda: None))
    assert 190 << 20 < grown < 220 << 20
    assert later < 20 << 20


def test_drawn_words_have_lines_and_the_size_asked_for():
    text = tokenizing.drawn_text(20_000)
    assert len(text.encode()) == 20_000
    assert text == tokenizing.drawn_text(20_000)
    counts = sorted(map(text.split().count, set(text.split())))
    assert counts[-1] > 10 * counts[len(counts) // 2]


def test_a_contender_answers_and_one_that_fails_says_why(tmp_path, capsys):
    cases.write_case(tmp_path, "decoder", TINY)
    entries = [
        parent.Entry("tinyformer", "ours"),
        parent.Entry("products", "gemm"),
        parent.Entry("nobody", "no_such_module"),
    ]
    with parent.started(entries, tmp_path, 1) as contenders:
        assert [c.entry.name for c in contenders] == ["tinyformer", "products"]
        step = ours.prepare(tmp_path, 1, "")
        assert contenders[0].first == step()
        assert len(contenders[0].ask("run", 2)) == 2
        json.dumps(contenders[0].ask("peak", 1))
        processes = [c._process for c in contenders]
    assert "nobody is left out: ModuleNotFoundError: No module named 'tests.benchmarks.no_such_module'" in (
        capsys.readouterr().err
    )
    assert all(process.poll() is not None for process in processes)
    assert gemm.flops(3) == 3 * 2 * 2048**3


def test_rounds_go_to_and_fro():
    asked = []

    class Asked:
        def __init__(self, name, seconds):
            self.entry, self.seconds = parent.Entry(name, ""), iter(seconds)

        def ask(self, request, steps):
            asked.append(self.entry.name)
            return [next(self.seconds)]

    contenders = [Asked("a", [1.0, 2.0]), Asked("b", [3.0, 4.0]), Asked("c", [5.0, 6.0])]
    times = parent.take_turns(contenders, 2, long=True)
    assert "".join(asked) == "abccba"
    assert times == {"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, 6.0]}


def test_without_ours_there_is_nothing_to_compare(tmp_path):
    entries = [parent.Entry("tinyformer", "no_such_module"), parent.Entry("products", "gemm")]
    with pytest.raises(parent.Failed, match="No module named"), parent.started(entries, tmp_path, 1):
        pass


def test_a_run_that_makes_no_step_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match=r"made no step.*no such file"):
        start.first_step(tmp_path, "absent.txt")


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # by torch itself
@pytest.mark.parametrize("mode", cases.MODES)
@pytest.mark.parametrize(
    ("module", "form", "tolerance"),
    [("torch_peer", "eager", 1e-5), ("torch_peer", "bfloat16", 2e-2), ("jax_peer", "", 1e-5)],
)
def test_peers_take_the_same_steps(module, form, tolerance, mode, tmp_path):
    """Loss and gradient norm of three steps: an error in a model shows at once, one in an update in the next."""
    if module == "jax_peer":
        pytest.importorskip("jax")
        if mode != "decoder":
            pytest.skip("JAX's model is a decoder")
    cases.write_case(tmp_path, mode, TINY)
    step = ours.prepare(tmp_path, 1, "")
    theirs = importlib.import_module(f"tests.benchmarks.{module}").prepare(tmp_path, 1, form)
    losses = [step() for _ in range(3)]
    assert losses[0][0] > losses[2][0] * (1 + 5e-4), "nothing was learned, so no update was compared"
    np.testing.assert_allclose([theirs() for _ in range(3)], losses, rtol=tolerance)
