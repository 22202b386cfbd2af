"""Numbers of the functions that stand in place of softmax (compiler/ops/substitutes.py), for back ends without torch.

The weights of "2quad" are (x + QUAD_OFFSET)^2. The sum of a row's weights gets LEAST_SUM more, so that a row whose
weights are all 0 is no division by 0.
"""

QUAD_OFFSET = 5.0
LEAST_SUM = 2.0**-6
