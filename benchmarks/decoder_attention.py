"""What attention of decoders costs beside attention of all keys, and beside a mask that the client shares whole.

    python -m benchmarks.decoder_attention

Bytes and rounds of one attention on `ring` by the cost model, for scores that span tens, as in trained models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mpcc.compiler.cost import estimate
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.pipeline import compile_model
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.partition import Partition

WIDTH = 32  # of a head
LARGE = 24.0  # of queries


@dataclass(frozen=True)
class Shape:
    """Heads, heads of keys and values, queries and keys."""

    heads: int
    groups: int
    length: int


class Attention(torch.nn.Module):
    """One scaled product of queries, keys and values with a mask of some kind."""

    def __init__(self, window: int | None, causal: bool) -> None:
        super().__init__()
        self.window, self.causal = window, causal
        self.own = torch.nn.Linear(WIDTH, WIDTH)  # the provider's: nobody knows queries, keys and values

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        length = q.shape[2]
        seen = torch.ones(length, length, dtype=torch.bool)
        if self.causal:
            seen = seen.tril()
        if self.window:
            seen = seen.triu(1 - self.window)
        every = keep.bool()[:, None, None] & (mask if mask is not None else seen)
        q, k, v = (self.own(x) for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=every, enable_gqa=True)


def cost(shape: Shape, *, causal: bool, window: int | None = None, mask_of_client: bool = False) -> tuple[int, int]:
    """(bytes, rounds) of the attention alone; with `mask_of_client` the client shares which query sees which key."""
    generator = torch.Generator().manual_seed(0)
    heads = (shape.heads, shape.groups, shape.groups)
    q, k, v = (torch.randn(1, h, shape.length, WIDTH, generator=generator) for h in heads)
    inputs = {"q": q * LARGE, "k": k, "v": v, "keep": torch.ones(1, shape.length, dtype=torch.int64)}
    if mask_of_client:
        inputs["mask"] = torch.ones(1, 1, shape.length, shape.length, dtype=torch.bool).tril()
    model = capture(Attention(window, causal), inputs)
    program = compile_model(model, Partition.all_private(), [inputs], Options())
    rows = [r for r in estimate(program.ring, "ring").by("operation") if r[0].startswith("attention")]
    return sum(sent for _, sent, _ in rows), sum(rounds for _, _, rounds in rows)


def main() -> None:
    for shape in (Shape(4, 4, 32), Shape(4, 4, 128), Shape(9, 3, 64)):
        print(shape)
        for name, options in (
            ("all keys", {"causal": False}),
            ("causal, the client's mask", {"causal": True, "mask_of_client": True}),
            ("causal", {"causal": True}),
            ("causal, window of 16", {"causal": True, "window": 16}),
        ):
            sent, rounds = cost(shape, **options)  # type: ignore[arg-type]
            print(f"  {name:28} {sent / 1e3:10.1f} kB {rounds:5} rounds")


if __name__ == "__main__":
    main()
