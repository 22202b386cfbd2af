"""A StableHLO program on SPU's own runtime, all parties as threads of this process: real protocols, no network."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping

import numpy as np

from mpcc.backends.spu.program import StableHlo
from mpcc.runtime.spu import party as spu_party
from mpcc.runtime.spu.protocols import FRACTION_BITS, PROTOCOLS

_RUNS = itertools.count()


def run(program: StableHlo, values: Mapping[str, np.ndarray], protocol: str = "aby3") -> dict[str, np.ndarray]:
    """The outputs; `values` by tensor, whoever owns them."""
    spu = spu_party.engine()
    secret, public = spu.Visibility.VIS_SECRET, spu.Visibility.VIS_PUBLIC
    config = spu_party.runtime_config(spu, protocol, FRACTION_BITS)
    config.enable_pphlo_profile = False
    parties = len(PROTOCOLS[protocol].roles)
    visibilities = [secret if i.secret else public for i in program.inputs]
    source = spu.CompilationSource(spu.SourceIRType.STABLEHLO, program.text.encode(), visibilities)
    code = spu.compile(source, spu.CompilerOptions())
    io = spu.IoWrapper(parties, config)
    arrays = [np.array(values[i.tensor] if i.value is None else i.value, np.float32) for i in program.inputs]
    shares = [io.MakeShares(array, v, -1) for array, v in zip(arrays, visibilities, strict=True)]
    names = [f"out{i}" for i in range(len(program.outputs))]
    exe = spu.Executable(name="t", input_names=[f"in{i}" for i in range(len(shares))], output_names=names, code=code)
    desc = spu.link.Desc()
    desc.id = f"memory{next(_RUNS)}"
    for rank in range(parties):
        desc.add_party(f"P{rank}", f"memory{rank}")
    results: list[list[object]] = [[] for _ in range(parties)]

    def party(rank: int) -> None:
        runtime = spu.RuntimeWrapper(spu.link.create_mem(desc, rank), config)
        for i, share in enumerate(shares):
            runtime.SetVar(f"in{i}", share[rank])
        runtime.Run(exe)
        results[rank] = [runtime.GetVar(name) for name in names]

    threads = [threading.Thread(target=party, args=(rank,)) for rank in range(parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {o.name: np.asarray(io.Reconstruct([r[i] for r in results])) for i, o in enumerate(program.outputs)}
