"""What the manifest says of approximations is what was lowered: form, domain, error, and how often."""

from __future__ import annotations

import pytest
from tiny_models import batches, compiled, tiny

from mpcc.compiler.approximations.gelu import GELU


def used(profile, layers=2, *, masked=True, **options):
    model = tiny("BertForSequenceClassification", layers=layers)
    program = compiled(model, batches(6, masked=masked), profile=profile, **options)
    return program, {u.operation: u for u in program.applied}


@pytest.mark.slow
def test_a_loop_counts_all_its_layers():
    for layers in (1, 3):
        program, forms = used("safe", layers)
        exponentials = [
            u.count for u in program.applied if u.operation == "attention: exp"
        ]  # the last layer reads less
        assert forms["gelu"].count == sum(exponentials) == layers
        assert forms["tanh"].count == 1
        rolled = layers - 1 if layers > 2 else 0  # all but the last are equal
        assert sum(n.attr("count", 1) for n in program.ring if n.op == "repeat") == rolled


@pytest.mark.slow
def test_safe_takes_the_form_for_any_argument_and_default_the_one_over_the_range():
    program, forms = used("safe")
    error = GELU["none"].error(None, program.settings.frac_bits)
    assert (forms["gelu"].form, forms["gelu"].error) == ("polynomial", error)
    program, forms = used("default", frac_bits=13)
    bits = program.settings.inner_frac_bits
    mpc = program.regions.mpc
    arguments = [mpc[n.inputs[0]].range for n in mpc if n.op == "gelu"]
    argument = max(max(-low, high) for low, high in arguments)
    domain = GELU["none"].within(argument * program.settings.range_margin).edge
    assert forms["gelu"].form == "even polynomial" and forms["gelu"].domain == f"[{-domain:g}, {domain:g}]"
    assert forms["gelu"].error == GELU["none"].error(domain, 13, bits)


@pytest.mark.slow
def test_lean_forms_declare_larger_errors():
    precise, lean = used("safe")[1], used("default", frac_bits=13)[1]
    for operation in ("attention: exp", "attention: reciprocal", "rms_norm: rsqrt"):
        assert lean[operation].error > precise[operation].error


@pytest.mark.parametrize("approximations", [{"gelu": "quad"}, {"softmax": "2relu"}])
def test_forms_that_change_the_model_say_so(approximations):
    _, forms = used("safe", masked=False, approximations=approximations)
    changed = {u.operation for u in forms.values() if u.changes_model}
    assert changed == ({"gelu"} if "gelu" in approximations else {"attention"})
