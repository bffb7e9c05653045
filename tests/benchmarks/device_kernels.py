"""What each kernel of the GPU reaches: bytes a second beside a plain copy, and attention's FLOPs a second.

A kernel that does little arithmetic cannot be faster than memory, so the copy is its measure. Bytes counted are those
that it cannot do without, each array read or written once. The device's own clock times several launches at a time, and
every kernel takes its turn right after a copy of about as many bytes.

Read before: `backends/cupy/kernels.py`. Read next: `device.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from tinyformer import backends

from .report import Spread

B, T, D, HEADS, VOCABULARY = 8, 1024, 768, 12, 50304  # GPT-2's smallest
LAUNCHES = 20
DTYPES = ("float32", "bfloat16")


class Work(NamedTuple):
    """Something to time: what it is called, what runs, and the bytes or FLOPs it cannot do without."""

    name: str
    run: Callable[[], Any]
    bytes: int = 0
    flops: int = 0


def works(xp: Any, dtype: str) -> list[Work]:
    """The kernels at the shapes of GPT-2 124M, eight rows of 1024 tokens, forward and backward apart."""
    generator, kind = xp.generator(0, 0), getattr(xp, dtype)

    def drawn(*shape: int) -> Any:
        return xp.astype(generator.normal(shape, xp.float32), kind)

    def weight_of(inputs: int, outputs: int) -> Any:
        """Laid out as a model's."""
        return drawn(outputs, inputs).T

    x, weight, bias, hidden = drawn(B, T, D), drawn(D), drawn(D), drawn(B, T, 4 * D)
    query, key, value = (xp.permute_dims(drawn(B, T, HEADS, D // HEADS), (0, 2, 1, 3)) for _ in range(3))
    ids = xp.from_host(backends.get("numpy").arange(B * T) * 7919 % VOCABULARY)
    keep = xp.generator(0, 1, rows=range(B)).keep((B, T, D), 0.9)
    pass_, wide = x.nbytes, hidden.nbytes  # once over the array
    attention = {"causal": True, "scale": None, "dropout_rate": 0.0}
    done = 2 * 2 * B * D * T * (T + 1) // 2  # FLOPs of the two products of causal attention

    found = []
    for name, inputs, settings, forward, backward, flops in [
        ("layer_norm", (x, weight, bias, None), {"epsilon": 1e-5}, 2 * pass_, 3 * pass_, 0),
        ("rms_norm", (x, weight, None), {"epsilon": 1e-6}, 2 * pass_, 3 * pass_, 0),
        ("gelu", (hidden,), {"approximate": True}, 2 * wide, 3 * wide, 0),
        ("dropout", (x, keep), {"rate": 0.1}, 2 * pass_, 2 * pass_, 0),
        ("attention", (query, key, value, None, None, None), attention, 4 * pass_, 8 * pass_, done),
    ]:
        kernel = xp.kernels[name]
        out, saved = kernel.forward(xp, *inputs, **settings)
        gradient = xp.astype(generator.normal(out.shape, xp.float32), kind)
        found.append(Work(name, partial(kernel.forward, xp, *inputs, **settings), forward, flops))
        # A kernel may overwrite what its forward made for it alone; the time is the same, whatever the numbers.
        found.append(Work(f"{name}, back", partial(kernel.backward, xp, saved, gradient), backward, 5 * flops // 2))
    up, down, up_bias = weight_of(D, 4 * D), weight_of(4 * D, D), drawn(4 * D)
    products = 2 * B * T * D * 4 * D  # FLOPs of one product of the feed-forward network
    for name, inputs, count in [("linear", (x, up, up_bias), 1), ("feed_forward", (x, up, down, up_bias, bias), 2)]:
        kernel, settings = xp.kernels[name], {"activation": "gelu"} if name == "feed_forward" else {}
        if kernel.supports(*inputs, **settings):
            out, saved = kernel.forward(xp, *inputs, **settings)
            forward = partial(kernel.forward, xp, *inputs, **settings)
            found.append(Work(name, forward, pass_ + wide, count * products))
            again = partial(kernel.backward, xp, saved, xp.ones_like(out))
            found.append(Work(f"{name}, back", again, 2 * (pass_ + wide), 2 * count * products))
    logits = drawn(T, VOCABULARY)
    loss = {"total": float(T), "smoothing": 0.0, "overwrite": True}
    targets = ids[:T]
    entropy = partial(xp.kernels["cross_entropy"].forward, xp, logits, targets, None, **loss)
    found.append(Work("cross_entropy", entropy, 2 * logits.nbytes))
    table, rows = drawn(VOCABULARY, D), drawn(B * T, D)
    found.append(Work("take", partial(xp.take, table, ids, axis=0), 2 * rows.nbytes))
    added = rows.nbytes + table.nbytes
    found.append(Work("scatter_add", partial(xp.scatter_add, table.shape, ids, rows), added))
    return found


def seconds(xp: Any, run: Callable[[], Any]) -> float:
    """Of one launch, by the device's clock."""
    begin, end = xp.cuda.Event(), xp.cuda.Event()
    run()
    begin.record()
    for _ in range(LAUNCHES):
        run()
    end.record()
    end.synchronize()
    return xp.cuda.get_elapsed_time(begin, end) / 1e3 / LAUNCHES


def measure(rounds: int) -> dict[str, Any]:
    """By dtype and kernel: bytes and FLOPs a second, and those of the copy beside it, of each round."""
    xp, report = backends.get("cupy"), {}
    for dtype in DTYPES:
        for work in works(xp, dtype):
            source = xp.zeros(work.bytes // 8, dtype=xp.float32)  # a copy reads and writes half each
            target = xp.empty_like(source)
            copies, times = [], []
            for _ in range(rounds):
                copies.append(work.bytes / seconds(xp, partial(xp.copyto, target, source)))
                times.append(seconds(xp, work.run))
            report[f"{work.name}, {dtype}"] = {
                "bytes_per_second": [work.bytes / time for time in times],
                "flops_per_second": [work.flops / time for time in times] if work.flops else None,
                "copy_bytes_per_second": copies,
            }
    return report


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """As lines of a table."""
    lines = [("kernels", "GB/s", "of the copy rate", "TFLOP/s")]
    for name, found in report.items():
        rates, copies, flops = (found[f"{kind}_per_second"] for kind in ("bytes", "copy_bytes", "flops"))
        share = Spread.of(rate / copy for rate, copy in zip(rates, copies))
        arithmetic = f"{Spread.of(flops).median / 1e12:,.0f}" if flops else ""
        lines.append((f"  {name}", f"{Spread.of(rates).median / 1e9:,.0f}", share.show(".0%"), arithmetic))
    return lines
