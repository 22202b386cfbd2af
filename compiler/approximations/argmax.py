"""The position of the largest entry of a row, exact."""

from __future__ import annotations

from mpcc.compiler.ring.build import Builder
from mpcc.compiler.ring.ir import RingNode


def argmax(b: Builder, x: RingNode) -> RingNode:
    """Position of the largest entry over the last dimension (kept with size 1), at scale 0; of equal ones the first.

    A tournament of neighbours, all pairs of a level in one vector: log2(n) levels and n - 1 comparisons of a row of n.
    A winner carries its position among the entries it was compared with. The left one of a pair of level l always
    stands for 2^l entries, so positions need no table: the right one's grow by 2^l.
    """
    dim, level = len(x.type.shape) - 1, 0
    size = x.type.shape[dim]
    position = b.const(0.0, x.type.shape, 0)
    while size > 1:
        pairs, left_over = divmod(size, 2)
        left, right = (b.slice(x, dim, side, 2 * pairs, 2) for side in (0, 1))
        less = b.lt_zero(b.sub(left, right))
        rest = [b.slice(position, dim, size - 1, size)] if left_over else []
        position = b.concat([_position(b, less, position, level, pairs), *rest], dim)
        if pairs + left_over > 1:  # nobody asks for the value of the last winner
            last = [b.slice(x, dim, size - 1, size)] if left_over else []
            x = b.concat([b.select(less, right, left), *last], dim)
        size, level = pairs + left_over, level + 1
    return position


def _position(b: Builder, less: RingNode, position: RingNode, level: int, pairs: int) -> RingNode:
    """Of the winner of every pair; at first all positions are 0, and it is the comparison's bit."""
    if level == 0:
        return less
    dim = len(position.type.shape) - 1
    left, right = (b.slice(position, dim, side, 2 * pairs, 2) for side in (0, 1))
    return b.select(less, b.add_const(right, float(2**level)), left)
