"""The stand-in executes what MP-SPDZ would, and refuses what MP-SPDZ would reject or reorder."""

import numpy as np
import pytest
from standin import HazardError, MemoryAccessError, StandinError, execute


def ints(*values):
    return np.array(values, dtype=np.int64)


def run(body, size=4, **options):
    """Run `body` on X = [1, -2, 3, -4 ...] and return what is opened to player 0."""
    values = (np.arange(size) + 1) * np.where(np.arange(size) % 2, -1, 1)
    source = f"X = sint.Array({size})\nX.input_from(0, binary=True)\nx = X[:]\n{body}"
    options.setdefault("inputs", {0: values.astype(np.int64)})
    return execute(source, **options)


def result(body, **options):
    return run(body + "\ny.reveal_to(0).binary_output()", **options).private[0][0].tolist()


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("x + x", [2, -4, 6, -8]),
        ("x - 1", [0, -3, 2, -5]),
        ("1 - x", [0, 3, -2, 5]),
        ("-x", [-1, 2, -3, 4]),
        ("x * x", [1, 4, 9, 16]),
        ("x * sint(3, size=1)", [3, -6, 9, -12]),
        ("x * cint(3)", [3, -6, 9, -12]),
        ("cint(3) * x", [3, -6, 9, -12]),
        ("regint.inc(4) + x", [1, -1, 5, -1]),
        ("regint.inc(4) - x", [-1, 3, -1, 7]),
        ("x * 2**62", [2**62, -(2**63), -(2**62), 0]),
        ("x.get_vector(1, 2)", [-2, 3]),
        ("x.get_vector(0, 2, 2)", [1, 3]),
        ("sint.concat([x, x[0]])", [1, -2, 3, -4, 1]),
        ("sint.dot_product([x, x], [x, x + 1])", [3, 6, 21, 28]),
        ("sint.dot_product(x, x)", [30]),
        ("x.less_than(0, 5)", [0, 1, 0, 1]),
        ("x.less_than(0, 1)", [0, 1, 1, 0]),  # 3 and -4 do not fit 2 bits
        ("x.round(62, 1)", [1, -1, 2, -2]),
        ("(x * 5).round(40, 2, nearest=True, signed=True)", [1, -2, 4, -5]),
        ("sint.load_mem(X.address + regint.inc(4, 3, -1))", [-4, 3, -2, 1]),
        ("sint(cint(5, size=3))", [5, 5, 5]),
    ],
)
def test_expressions(expression, expected):
    prefix = "break_point()\n"
    assert result(prefix + f"y = {expression}") == expected


def test_inc_repeats_and_wraps():
    # the example of MP-SPDZ's documentation of incint
    source = "print_ln('%s', regint.inc(10, 1, 2, 3, 2))"
    assert execute(source).printed == ["[1, 1, 1, 3, 3, 3, 1, 1, 1, 3]"]


def test_matrix_product_by_index():
    body = (
        "break_point()\n"
        "y = sint.direct_matrix_mul(regint(X.address), regint(X.address), None, 2, 2, "
        "indices=[regint.inc(2), regint.inc(2), regint.inc(2, 1, -1), regint.inc(1, 1)])"
    )
    # X = [[1, -2], [3, -4]] times column 1 of its rows in reverse order
    assert result(body) == [1 * -4 + -2 * -2, 3 * -4 + -4 * -2]


def test_matrix_product_without_indices():
    body = "break_point()\ny = sint.direct_matrix_mul(X.address, X.address, 2, 2, 2)"
    assert result(body) == (np.array([[1, -2], [3, -4]]) @ np.array([[1, -2], [3, -4]])).ravel().tolist()


def test_public_matrix_product_in_a_loop():
    body = (
        "W = cint.Array(4); W.assign_vector(cint([1, 2, 3, 4])); A = sint.Array(4); A.assign_vector(sint(0, size=4))\n"
        "break_point()\n"
        "@for_range(2)\n"
        "def _(k):\n"
        "    v = sint.load_mem(regint.inc(4, X.address + k * 2, 1, 1, 2))\n"
        "    w = cint.load_mem(regint.inc(4, W.address + k, 2, 2))\n"
        "    A.assign_vector(A[:] + v * w)\n"
        "break_point()\n"
        "y = A[:]"
    )
    assert result(body) == (np.array([[1, 2], [3, 4]]) @ np.array([[1, -2], [3, -4]])).ravel().tolist()


def test_probabilistic_truncation_is_unbiased():
    source = "X = sint.Array(40000); X.input_from(0, binary=True); X[:].round(62, 8).reveal_to(0).binary_output()"
    values = np.random.default_rng(0).integers(-(2**40), 2**40, 40000)
    out = execute("program.budget = 10**9\n" + source, inputs={0: values}, truncation="probabilistic").private[0][0]
    error = out - values / 256
    assert abs(error).max() < 1 and abs(error.mean()) < 0.01


def test_outputs_counters_and_arguments():
    outputs = run("y = x * x\nprint_ln('%s', program.args[1])\nx.reveal().binary_output()", args=("N=4",))
    assert outputs.printed == ["N=4"]
    assert outputs.public[0].tolist() == [1, -2, 3, -4]
    assert (outputs.counters["mul"].calls, outputs.counters["mul"].elements) == (1, 4)


def test_persistence_keeps_shares_between_runs():
    store = {}
    run("X.write_to_file(0)\nX.write_to_file(4)", persistence=store)
    source = "A = sint.Array(4)\nA.read_from_file(2)\nA[:].reveal_to(1).binary_output()"
    assert execute(source, persistence=store).private[1][0].tolist() == [3, -4, 1, -2]
    with pytest.raises(StandinError, match="Persistence not found"):
        execute(source)
    with pytest.raises(StandinError, match="are stored"):
        execute(source.replace("(2)", "(6)"), persistence=store)


def test_measured_idioms():
    body = (
        "from Compiler.instructions import fixinput, trunc_pr as raw_trunc_pr\n"
        "program.budget = 10**9\n"
        "r = sintbit(size=x.size); comparison.LTZ(r, x, 31)\n"
        "t = sint(size=4); raw_trunc_pr(t, x * 4, 63, 2)\n"
        "y = r * 10 + t"
    )
    assert result(body) == [1, 8, 3, 6]
    source = "c = cint(size=2); fixinput(-1, c, 0, 0); c.binary_output()"
    assert execute(source, inputs={0: ints(1, 2), 1: ints(1, 2)}).public[0].tolist() == [1, 2]
    with pytest.raises(StandinError, match="differ"):
        execute(source, inputs={0: ints(1, 2), 1: ints(1, 3)})


REJECTED = {
    "sizes that do not match": "y = x + x.get_vector(0, 2)",
    "numpy integers": "import numpy\ny = x * numpy.int64(2)",
    "floats": "y = x * 0.5",
    "a product with 0 is no register": "y = (x * 0).round(8, 1)",
    "a branch on a value": "y = 1 if x else 2",
    "equality": "y = x == 1",
    "int() of a register": "y = int(x)",
    "secret to public": "y = cint(x)",
    "a public dot product": "y = sint.dot_product([x], [cint(1, size=4)])",
    "dot products of different sizes": "y = sint.dot_product([x], [x[0]])",
    "truncation by all bits": "y = x.round(8, 8)",
    "a comparison beyond the ring": "y = x.less_than(0, 64)",
    "a constant beyond the ring": "y = x + 2**63",
    "an address vector of another size": "x.store_in_mem(regint.inc(3, X.address))",
    "an assignment beyond the array": "X.assign_vector(x, 1)",
    "a secret index": "y = X[x[0]]",
    "printing a secret": "print_ln('%s', x)",
    "an unused loop": "for_range(3)",
    "a run-time inc": "y = regint.inc(4, 0, regint(1))",
    "stopping a timer twice": "stop_timer(1)",
    "never stopping a timer": "start_timer(1)",
    "text input": "y = sint.get_input_from(0)",
    "a register without value": "y = sint(size=4) + 1",
    "a register carried out of a loop": "z = []\n@for_range(2)\ndef _(i):\n    z.append(x + i)\ny = z[0] + 1",
    "an unknown setting": "program.bugdet = 1",
    "an unknown method": "y = x.median()",
    "too much input": "sint.Array(1).input_from(0, binary=True)",
}


@pytest.mark.parametrize("body", REJECTED.values(), ids=REJECTED.keys())
def test_rejected(body):
    with pytest.raises((StandinError, TypeError, AttributeError, IndexError)):
        run(body)


def test_unknown_name():
    with pytest.raises(NameError):
        run("y = sfix(1)")


def test_memory_that_was_never_written():
    with pytest.raises(MemoryAccessError, match="before it is written"):
        run("y = sint.Array(3)[:]")


def test_memory_out_of_range():
    with pytest.raises(MemoryAccessError, match="not allocated"):
        run("break_point()\ny = sint.load_mem(X.address + regint.inc(5))")


def test_public_and_secret_memory_are_apart():
    with pytest.raises(MemoryAccessError):
        run("break_point()\ny = cint.load_mem(X.address + regint.inc(4))")


INDIRECT = "sint.load_mem(X.address + regint.inc(4))"
MATMUL = "sint.direct_matrix_mul(X.address, X.address, 2, 2, 2)"
HAZARDS = {
    "load after assign": f"X.assign_vector(x)\ny = {INDIRECT}",
    "load after store": f"(x + 1).store_in_mem(X.address + regint.inc(4))\ny = {INDIRECT}",
    "slice after store": "(x + 1).store_in_mem(X.address + regint.inc(4, 3, -1))\ny = X[:]",
    "slice after an assign from a run-time base": "X.assign_vector(x, regint(0))\ny = X[:]",
    "product after assign": f"X.assign_vector(x)\ny = {MATMUL}",
    "unrelated store after load": f"break_point()\ny = {INDIRECT}\nX.assign_vector(sint(0, size=4))",
    "unrelated store after product": f"break_point()\ny = {MATMUL}\nX.assign_vector(sint(0, size=4))",
    "two stores": "X.assign_vector(x)\n(x + 1).store_in_mem(X.address + regint.inc(4))",
}


@pytest.mark.parametrize("body", HAZARDS.values(), ids=HAZARDS.keys())
def test_hazard(body):
    with pytest.raises(HazardError, match="break_point"):
        run("break_point()\n" + body)


@pytest.mark.parametrize("body", HAZARDS.values(), ids=HAZARDS.keys())
def test_a_break_point_removes_the_hazard(body):
    run("break_point()\n" + body.replace("\n", "\nbreak_point()\n"))


ORDERED = {
    "slices and assignments": "X.assign_vector(X[:] + 1)\ny = X[:]",
    "the product's own result over its operand": f"break_point()\nX.assign_vector({MATMUL})",
    "disjoint addresses": "X.assign_vector(x.get_vector(0, 2))\ny = sint.load_mem(X.address + regint.inc(2, 2))",
    "a loop body is a block": f"X.assign_vector(x)\n@for_range(1)\ndef _(i):\n    y = {INDIRECT}",
    "timers end a block": f"X.assign_vector(x)\nstart_timer(1)\ny = {INDIRECT}\nstop_timer(1)",
}


@pytest.mark.parametrize("body", ORDERED.values(), ids=ORDERED.keys())
def test_guaranteed_order(body):
    run("break_point()\n" + body)


def test_the_compiler_tracks_only_budget_addresses():
    body = "program.budget = 2\nX.assign_vector(x)\ny = X.get_vector(1, 3)"
    run(body)
    with pytest.raises(HazardError):
        run(body.replace("(1, 3)", "(2, 2)"))
