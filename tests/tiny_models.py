"""Tiny random models with the scale of trained ones, compiled and run on the emulator and on the stand-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import standin
import torch
import transformers
from harness import encoded_params

from mpcc.backends.emulator import emulator
from mpcc.backends.mp_spdz.weights import Region, tensor_order
from mpcc.compiler.driver.options import Options
from mpcc.compiler.driver.pipeline import Compiled, compile_model
from mpcc.compiler.fixed import decode, encode
from mpcc.compiler.frontend.capture import capture
from mpcc.compiler.frontend.partition import Partition
from mpcc.compiler.graph.interpret import run_graph

Inputs = dict[str, torch.Tensor]
VOCABULARY = 40


def tiny(
    name: str,
    *,
    layers: int = 2,
    width: int = 16,
    heads: int = 2,
    inner: int = 24,
    attention: str = "sdpa",
    seed: int = 3,
    **options: object,
) -> torch.nn.Module:
    """A model by the name of its class: scores and variances vary, biases and norms are not trivial."""
    torch.manual_seed(seed)
    if "For" in name:
        options.setdefault("num_labels", 5)
    cls = getattr(transformers, name)
    if name.startswith("DistilBert"):
        sizes = {"dim": width, "n_layers": layers, "n_heads": heads, "hidden_dim": inner}
    else:
        sizes = {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": inner,
        }
    config = cls.config_class(vocab_size=VOCABULARY, max_position_embeddings=48, **sizes, **options)
    model = cls._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * (1.2 * parameter.shape[-1] ** -0.5))
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
            if "embeddings" in key and parameter.dim() > 1:
                parameter.mul_(3.0)
    return model


def batches(length: int, rows: int = 1, count: int = 4, *, masked: bool = True) -> list[Inputs]:
    """Inputs of several lengths, padded on the right; the first is full."""
    generator = torch.Generator().manual_seed(length)
    result = []
    for i in range(count):
        ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
        mask = torch.ones_like(ids)
        if i:
            mask[-1, max(1, length - i * length // 6 - 1) :] = 0
            ids[mask == 0] = 1
        result.append({"input_ids": ids, "attention_mask": mask} if masked else {"input_ids": ids})
    return result


def compiled(
    model: torch.nn.Module, inputs: Sequence[Inputs], partition: Partition | None = None, **options: object
) -> Compiled:
    """Capture and compile, calibrated on `inputs`; safe unless told otherwise."""
    captured = capture(model, inputs[0])
    choices = {"profile": "safe", "truncation": "probabilistic", **options}
    return compile_model(captured, partition or Partition.all_private(), inputs, Options(**choices))


def shared_inputs(program: Compiled, inputs: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """What the client shares, encoded: it runs its part of the graph in clear."""
    shared = run_graph(program.regions.client, dict(inputs), program.tensors)
    return {
        n.str_attr("name"): encode(shared[n.str_attr("name")].double().numpy(), n.type.frac_bits)
        for n in program.ring
        if n.op == "input"
    }


def emulated(program: Compiled, inputs: Mapping[str, torch.Tensor], mode: str = "nearest") -> dict[str, np.ndarray]:
    """The revealed integers by name."""
    params = encoded_params(program.ring, program.tensors)
    return emulator.run(program.ring, shared_inputs(program, inputs), params, truncation=mode).outputs


def secure_outputs(program: Compiled, inputs: Mapping[str, torch.Tensor], mode: str) -> dict[str, np.ndarray]:
    """The revealed values by name, as reals."""
    scales = {name: program.ring[node].type.frac_bits for name, node in program.ring.outputs}
    return {name: decode(v, scales[name]) for name, v in emulated(program, inputs, mode).items()}


def on_standin(program: Compiled, inputs: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    """What the emitted source gives the client, run by the stand-in for MP-SPDZ."""
    ring_inputs = shared_inputs(program, inputs)
    client = np.concatenate([ring_inputs[name].reshape(-1) for name in program.source.inputs])
    layout = program.source.layout
    private, public = _stream(layout.private, program), _stream(layout.public, program)
    streams = {0: np.concatenate([public, client]), 1: np.concatenate([public, private]), 2: public}
    return standin.execute(program.source.text, inputs=streams, truncation="nearest").private[0]


def _stream(region: Region, program: Compiled) -> np.ndarray:
    parts = [encode(program.tensors[t].double().numpy(), bits).reshape(-1) for t, bits, _ in tensor_order(region)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
