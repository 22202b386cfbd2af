"""Programs: compile a model, ask what it costs, run it, save it, load it."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpcc.compiler.bundle.contents import Bundle, ClientPart
from mpcc.compiler.bundle.streams import encoded, in_order, shared_inputs, stream
from mpcc.compiler.bundle.write import save as save_bundle
from mpcc.compiler.cost import Cost, Network, Row, estimate
from mpcc.compiler.errors import BundleError, EngineError, MpccError
from mpcc.compiler.fixed import decode
from mpcc.compiler.graph.visibility import why
from mpcc.result import Result

if TYPE_CHECKING:
    import torch

    from mpcc.runtime.engine import Measured, Provisioned

Int64 = NDArray[np.int64]
Engine = Literal["emulator", "mp-spdz", "spu"]
ENGINES = ("mp-spdz", "spu", "emulator")
KEYS = ("layer", "operation", "primitive")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Program:
    """A compiled program, fresh from the compiler or loaded from its bundle."""

    bundle: Bundle

    @property
    def protocol(self) -> str:
        return self.bundle.manifest.protocol

    @property
    def source(self) -> str:
        """The MP-SPDZ program text."""
        return self.bundle.source

    def cost(self, network: str | Path | Network | None = None, by: str | None = None) -> Cost:
        """What one inference will cost on `network`; default: the one compiled for.

        A network is "lan", "wan", "local", or a TOML file (see compiler/cost/network.py). With `by`
        ("layer" | "operation" | "primitive") the rows are summed up by it.
        """
        manifest = self.bundle.manifest
        cost = estimate(self.bundle.ring, manifest.protocol, network=network or manifest.network)
        if by is None:
            return cost
        if by not in KEYS:
            raise MpccError(f"costs cannot be summed by {by!r}", todo=f"choose one of: {', '.join(KEYS)}")
        return replace(cost, rows=_summed(cost.rows, by))

    def run(
        self,
        inputs: Mapping[str, object],
        engine: Engine = "mp-spdz",
        *,
        seed: int = 0,
        truncation: str | None = None,
        truncate: bool = False,
        spu_protocol: str = "aby3",
        progress: Progress | None = None,
    ) -> Result:
        """Run the program once, all parties on this machine.

        Args:
            inputs: tensors, arrays or nested lists by name, or {"text": ...}; see `mpcc.inputs`.
            engine: "mp-spdz" or "spu" (secure), or "emulator", which computes in clear and protects nothing.
            seed: of the emulator's probabilistic truncation.
            truncation: for the emulator, another one than the program was compiled with.
            truncate: cut texts that are longer than the program was compiled for.
            spu_protocol: of the spu engine: "aby3", "cheetah", or "semi2k-trusted-first-party".
            progress: called with the name of each stage of the engine as it begins.

        Raises:
            InputError: the inputs do not fit.
            EngineError: the engine is not there, or a party failed.
        """
        if engine not in ENGINES:
            raise MpccError(f"there is no engine {engine!r}", todo=f"engines: {', '.join(ENGINES)}")
        if engine == "spu":
            return self.run_many(
                [inputs], engine="spu", truncate=truncate, spu_protocol=spu_protocol, progress=progress
            )[0]
        manifest = self.bundle.manifest
        values, shared, notes = self._in_clear(inputs, truncate)
        start = time.perf_counter()
        if engine == "emulator":
            integers, measured = self._emulate(shared, seed, truncation or manifest.truncation), None
        else:
            integers, measured = self._run_mp_spdz(shared, progress or (lambda name: None))
        seconds = time.perf_counter() - start
        return Result(self._outputs(values, integers), engine, seconds, measured, self.cost(), notes)

    def provision(self, state: str | Path, *, progress: Progress | None = None) -> Provisioned:
        """Share the private weights once, all parties on this machine, and store the shares below `state`.

        Called again it replaces the weights; the byte code is made anew only if the program is another one.

        Raises:
            EngineError: the engine is not there, or a party failed; what was stored before stays.
        """
        from mpcc.exchange import provision_program

        return provision_program(self, Path(state), progress=progress)

    def with_weights(
        self,
        model: object,
        *,
        base: str | Path | None = None,
        calibration: Sequence[Mapping[str, object]] = (),
        allow_pickle: bool = False,
    ) -> Program:
        """This program with the private weights of another fine-tune of the same model; nothing is compiled.

        Args:
            model: as `mpcc.compile` takes it.
            base: the base of an adapter.
            calibration: inputs like the real ones, on which every value must stay in the range compiled for.
            allow_pickle: run the code in a pickled model.

        Raises:
            MpccError: the model computes something else, a public weight has changed, or a value does not fit.
        """
        from mpcc.fresh_weights import with_weights

        return with_weights(self, model, base=base, calibration=calibration, allow_pickle=allow_pickle)

    def run_many(
        self,
        inputs: Iterable[Mapping[str, object]],
        state: str | Path | None = None,
        *,
        engine: Engine = "mp-spdz",
        spu_protocol: str = "aby3",
        truncate: bool = False,
        progress: Progress | None = None,
        on_result: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        """Run on many inputs in one session of all parties on this machine, who stay up in between.

        Args:
            inputs: as `run` takes them; an input is asked for when the one before is on its way.
            state: what `provision` wrote (mp-spdz only); without, the weights are shared before the first inference.
            engine: "mp-spdz" or "spu".
            spu_protocol: as `run` takes it.
            truncate: cut texts that are longer than the program was compiled for.
            progress: called with the name of each stage of the engine as it begins.
            on_result: called with each result as it comes, before it is known what it cost.

        Raises:
            InputError: the inputs do not fit.
            EngineError: the engine is not there, the state is not this program's, or a party failed.
        """
        if engine == "spu":
            from mpcc.spu_exchange import run_spu_session

            if state is not None:
                raise MpccError("the spu engine has no stored shares: it shares the weights once a session")
            return run_spu_session(
                self, inputs, protocol=spu_protocol, truncate=truncate, progress=progress, on_result=on_result
            )[0]
        if engine != "mp-spdz":
            raise MpccError(f"the engine {engine!r} has no sessions", todo="run the inputs one by one")
        from mpcc.exchange import run_session

        return run_session(
            self,
            inputs,
            Path(state) if state is not None else None,
            truncate=truncate,
            progress=progress,
            on_result=on_result,
        )[0]

    def prepared(
        self, inputs: Mapping[str, object], truncate: bool = False
    ) -> tuple[dict[str, torch.Tensor], Int64, tuple[str, ...]]:
        """The client's own part for one input: the values of its graph, what it shares, and warnings."""
        values, shared, notes = self._in_clear(inputs, truncate)
        return values, self._ordered(shared), notes

    def _in_clear(
        self, inputs: Mapping[str, object], truncate: bool
    ) -> tuple[dict[str, torch.Tensor], dict[str, Int64], tuple[str, ...]]:
        from mpcc.clear import arrays_of, client_values
        from mpcc.inputs import prepare_inputs

        client = self._client()
        tensors = prepare_inputs(inputs, self.bundle.manifest.inputs, client.tokenizer_json, truncate=truncate)
        values = client_values(self.bundle, tensors)
        shared, notes = shared_inputs(self.bundle.ring, arrays_of(values))
        return values, shared, notes

    def result(
        self,
        values: Mapping[str, torch.Tensor],
        integers: Mapping[str, Int64],
        measured: Measured | None,
        notes: tuple[str, ...] = (),
    ) -> Result:
        """A result of the mp-spdz engine, from the client's values and what it received."""
        seconds = 0.0 if measured is None else measured.seconds
        return Result(self._outputs(values, integers), "mp-spdz", seconds, measured, self.cost(), notes)

    def _outputs(self, values: Mapping[str, torch.Tensor], integers: Mapping[str, Int64]) -> dict[str, torch.Tensor]:
        """All outputs as tensors: what the client computed in clear, and what it received."""
        from mpcc.clear import real_tensor

        outputs: dict[str, torch.Tensor] = {}
        for spec in self.bundle.manifest.outputs:
            if spec.clear:
                outputs[spec.name] = values[dict(self._client().graph.outputs)[spec.name]]
            else:
                reals = decode(integers[spec.name], spec.frac_bits).reshape(spec.shape)
                outputs[spec.name] = real_tensor(reals)
        return outputs

    def client_stream(self, inputs: Mapping[str, object], *, truncate: bool = False) -> Int64:
        """What the client feeds to its party after the public weights: ring elements in the program's order."""
        return self.prepared(inputs, truncate)[1]

    def provider_stream(self) -> Int64:
        """The provider's private weights as ring elements, in the program's order."""
        return stream(self.bundle.manifest.private_weights, self._provider())

    def public_stream(self) -> Int64:
        """The public weights as ring elements: every party's stream starts with them."""
        return stream(self.bundle.manifest.public_weights, self.bundle.public)

    def save(self, path: str | Path) -> None:
        """Write `prog.mpc` and `prog.mpcc/`, both or neither."""
        save_bundle(self.bundle, path)

    def explain(self, node: str) -> list[str]:
        """Lines that say why a node is computed where it is, or why a tensor is public or private.

        Raises:
            MpccError: no node, tensor or layer of this name.
        """
        graph, manifest = self.bundle.graph, self.bundle.manifest
        reasons = {e.tensor: e.reason for e in manifest.evidence}
        if node in graph:
            lines = why(graph, node, reasons)
            if graph[node].site == "mpc" and graph[node].visibility != "secret":
                lines.append(
                    "  it was moved into MPC, where it is free: what it reads is cheaper to share than its result"
                )
            if node in manifest.client_order:
                lines.append("  its value goes into MPC as shares")
            return lines
        for evidence in manifest.evidence:
            if evidence.tensor == node:
                word = "public" if evidence.visibility == "public" else "private (the provider's)"
                return [f"the weight {node} is {word}: {evidence.reason}"]
        inside = [n for n in graph.operations() if n.origin.layer == node or n.origin.layer.startswith(f"{node}.")]
        if inside:
            return [f"{n.name} = {n.op} is {n.visibility}, computed at {n.site}" for n in inside]
        names = [n.name for n in graph] + list(reasons)
        near = difflib.get_close_matches(node, names, n=3)
        todo = f"near: {', '.join(near)}" if near else "list them with: mpcc explain PROGRAM"
        raise MpccError(f"the program has no node, weight or layer {node!r}", todo=todo)

    def to_json(self, network: str | Path | Network | None = None) -> dict[str, object]:
        """Everything `mpcc inspect --json` prints."""
        from mpcc.inspection import inspection

        return inspection(self, network)

    # ** engines **
    def _emulate(self, shared: Mapping[str, Int64], seed: int, truncation: str) -> dict[str, Int64]:
        from mpcc.backends.emulator import run

        if truncation not in ("probabilistic", "nearest"):
            raise MpccError(f"unknown truncation {truncation!r}", todo="choose one of: probabilistic, nearest")
        manifest = self.bundle.manifest
        params = encoded(manifest.private_weights, self._provider())
        params |= encoded(manifest.public_weights, self.bundle.public)
        mode: Literal["probabilistic", "nearest"] = "nearest" if truncation == "nearest" else "probabilistic"
        return run(self.bundle.ring, shared, params, truncation=mode, seed=seed).outputs

    def _run_mp_spdz(self, shared: Mapping[str, Int64], progress: Progress) -> tuple[dict[str, Int64], Measured | None]:
        try:
            from mpcc.backends.mp_spdz.dialects import check_source
            from mpcc.runtime.engine import Job
            from mpcc.runtime.mp_spdz.build import run_job
        except ImportError as error:
            raise EngineError(f"the mp-spdz engine is not installed: {error}") from None
        specs = [o for o in self.bundle.manifest.outputs if not o.clear]
        if not specs:  # nothing secret is left: the client has computed it all
            return {}, None
        check_source(self.bundle.source, self.protocol)
        job = Job(
            source=self.bundle.source,
            protocol=self.protocol,
            public_stream=self.public_stream(),
            provider_stream=self.provider_stream(),
            client_stream=self._ordered(shared),
            outputs=tuple((o.name, int(np.prod(o.shape, dtype=np.int64))) for o in specs),
        )
        result = run_job(job, on_stage=progress)
        return dict(result.outputs), result.measured

    def _ordered(self, shared: Mapping[str, Int64]) -> Int64:
        return in_order(self.bundle.manifest.client_order, shared)

    def _client(self) -> ClientPart:
        if self.bundle.client is None:
            raise BundleError("the bundle has no client/ folder here", todo="only the client can prepare inputs")
        return self.bundle.client

    def _provider(self) -> Mapping[str, NDArray[Any]]:
        if self.bundle.provider is None:
            raise BundleError(
                "the bundle has no provider/ folder here", todo="only the provider has the private weights"
            )
        return self.bundle.provider


# ** costs **
def _summed(rows: Iterable[Row], key: str) -> tuple[Row, ...]:
    """One row per value of `key`; the other two fields are empty."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(getattr(row, key)), []).append(row)
    return tuple(_one_row(key, name, members) for name, members in groups.items())


def _one_row(key: str, name: str, members: Sequence[Row]) -> Row:
    names = {k: name if k == key else "" for k in KEYS}
    by_party = [
        tuple(map(sum, zip(*(getattr(m, f) for m in members), strict=True)))
        for f in ("bytes_by_party", "rounds_by_party")
    ]
    return Row(
        **names,
        count=sum(m.count for m in members),
        elements=sum(m.elements for m in members),
        bytes_by_party=by_party[0],
        rounds_by_party=by_party[1],
    )
