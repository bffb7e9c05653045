"""Training steps on a GPU: ours and torch's side by side, and what each kernel reaches of the memory's rate.

    python -m tests.benchmarks.device --help

Each model is trained in three precisions. float32 is torch's own default; tf32 rounds the factors of products to ten
bits; bfloat16 halves what is stored and read, with float32 weights behind it. A contender is a process of its own, and
all of a case prepare beside each other, for torch compiles half a minute; then they take turns.

Read before: `training.py`, `torch_cuda.py`, `device_ours.py`. Read next: `device_kernels.py`.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import click

from tinyformer import backends
from tinyformer.training.data import tokens_read

from . import device_gemm, device_kernels
from .cases import Size, model_flops, write_case
from .parent import Entry, started, take_turns
from .report import Spread, note, ratio, table
from .training import disagreement

SIZES = {
    "1M": Size(256, 4, 4, 128, 256, 64),
    "10M": Size(65, 6, 6, 384, 256, 64),  # nanoGPT's for characters of Shakespeare
    "25M": Size(8192, 6, 8, 512, 512, 32),
    "124M": Size(50304, 12, 12, 768, 1024, 8),  # GPT-2, its vocabulary filled up to a multiple of 128
}
PRECISIONS = ("float32", "tf32", "bfloat16")
CASES = (*(f"{size}/{precision}" for size in SIZES for precision in PRECISIONS), "kernels")


def entries(precision: str) -> list[Entry]:
    """Who takes part: ours replayed as a graph, ours eager, and torch; compiled where it rounds, as people compile."""
    ways = ("graph", "eager")
    found = [Entry(f"tinyformer {way}", "device_ours", f"{way} {precision}") for way in ways]
    if importlib.util.find_spec("torch") is None:
        note("torch is left out: it is not installed")
    else:
        ways = {"eager": "torch", "compile": "torch.compile", "graphs": "torch.compile, graphs"}
        if precision == "float32":
            del ways["compile"], ways["graphs"]
        found += [Entry(name, "torch_cuda", f"{way} {precision}") for way, name in ways.items()]
    return [*found, Entry("GEMM", "device_gemm", precision)]


def measure(size: Size, precision: str, *, rounds: int) -> dict[str, Any]:
    """The seconds of a step, of each contender and round; a contender with another loss is only named."""
    with tempfile.TemporaryDirectory(prefix="tinyformer-") as folder:
        case = write_case(Path(folder), "decoder", size)
        with started(entries(precision), Path(folder), 1, at_once=True) as contenders:
            times = take_turns(contenders, rounds)
            sides = [side for side in contenders if side.entry.module != "device_gemm"]
            wrong = {side.entry.name: disagreement(sides[0], side) for side in sides[1:]}
    return {
        "seconds": {side.entry.name: times[side.entry.name] for side in sides},
        "wrong": {name: reason for name, reason in wrong.items() if reason},
        "tokens": tokens_read(case.batch),
        "flops": model_flops(case.config, case.batch),
        "gemm": [device_gemm.flops() / seconds for seconds in times.get("GEMM", [])],
    }


HEAD = ("", "tokens/s", "a step", "our graph's time / this", "of the GEMM rate")


def rows(name: str, case: dict[str, Any]) -> list[tuple[str, ...]]:
    """The lines of one case."""
    ours, *_ = case["seconds"].values()
    found = [(name, "", "", "", f"{Spread.of(case['gemm']).median / 1e12:,.0f} TFLOP/s" if case["gemm"] else "")]
    for contender, times in case["seconds"].items():
        spread = Spread.of(times)
        share = Spread.of(case["flops"] / t / g for t, g in zip(times, case["gemm"])) if case["gemm"] else None
        found.append(
            (
                f"  {contender}",
                f"{case['tokens'] / spread.median:,.0f}",
                f"{1e3 * spread.median:.2f} ms",
                case["wrong"].get(contender) or ("" if times is ours else ratio(ours, times).show(".2f")),
                "" if share is None else f"{share.median:.0%}",
            )
        )
    return found


@click.command(context_settings={"max_content_width": 120})
@click.option("--only", multiple=True, type=click.Choice(CASES), help="A case; repeatable.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Turns of each contender.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write every figure to a file.")
def main(only: tuple[str, ...], rounds: int, file: Path | None) -> None:
    """Measure training steps on a GPU beside torch's, and the kernels beside a copy of as many bytes.

    A step is forward, loss, backward, clipping to a norm of 1 and AdamW, from the same weights on the same batch, its
    loss read at the end. The share of the GEMM rate counts the matrix products that a step cannot do without, of causal
    attention half, against products of 8192 x 8192 in the same precision and the same minutes.
    """
    try:
        xp = backends.get("cupy")
    except backends.BackendUnavailable as error:
        raise click.ClickException(str(error).removesuffix("; or use --backend numpy")) from error
    report: dict[str, Any] = {"device": xp.description(), "cases": {}}
    note(", ".join(f"{name} {value}" for name, value in report["device"].items()))
    for name in only or CASES:
        if name == "kernels":
            report["kernels"] = device_kernels.measure(rounds)
            click.echo(table(device_kernels.rows(report["kernels"])) + "\n")
        else:
            size, precision = name.split("/")
            case = report["cases"][name] = measure(SIZES[size], precision, rounds=rounds)
            click.echo(table([HEAD, *rows(name, case)]) + "\n")
        if file is not None:
            file.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
