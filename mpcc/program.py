"""Programs: compile a model, ask what it costs, run it, save it, load it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpcc.compiler.bundle.contents import Bundle, ClientPart
from mpcc.compiler.bundle.streams import shared_inputs, stream
from mpcc.compiler.bundle.write import save
from mpcc.compiler.cost import Cost, Network, Row, estimate
from mpcc.compiler.errors import BundleError, MpccError
from mpcc.compiler.graph.visibility import why
from mpcc.exchange import Progress, provision_program, run_session
from mpcc.result import Result
from mpcc.runtime.deployment import Deployment, deployment_of
from mpcc.runtime.engine import Answer, Options, Provisioned, Request
from mpcc.runtime.engines import DEFAULT, engine_named
from mpcc.runtime.mp_spdz.emitted import client_stream, provider_stream

if TYPE_CHECKING:
    import torch


Int64 = NDArray[np.int64]
KEYS = ("layer", "operation", "primitive")


@dataclass(frozen=True)
class Prepared:
    """One input, as far as the client takes it alone: the values of its graph, its request, and warnings."""

    values: Mapping[str, torch.Tensor]
    request: Request
    warnings: tuple[str, ...] = ()


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
        engine: str = DEFAULT,
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
        chosen = engine_named(engine, Options(spu_protocol, seed, truncation))
        return run_session(self, [inputs], chosen, truncate=truncate, progress=progress)[0][0]

    def provision(self, state: str | Path, *, progress: Progress | None = None) -> Provisioned:
        """Share the private weights once, all parties on this machine, and store the shares below `state`.

        Called again it replaces the weights; the byte code is made anew only if the program is another one.

        Raises:
            EngineError: the engine is not there, or a party failed; what was stored before stays.
        """
        return provision_program(self, engine_named(DEFAULT), Path(state), progress=progress)

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
        engine: str = DEFAULT,
        spu_protocol: str = "aby3",
        truncate: bool = False,
        progress: Progress | None = None,
        on_result: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        """Run on many inputs in one session of all parties on this machine, who stay up in between.

        Args:
            inputs: as `run` takes them; an input is asked for when the one before is on its way.
            state: what `provision` wrote; without, the weights are shared before the first inference.
            engine: as `run` takes it.
            spu_protocol: as `run` takes it.
            truncate: cut texts that are longer than the program was compiled for.
            progress: called with the name of each stage of the engine as it begins.
            on_result: called with each result as it comes, before it is known what it cost.

        Raises:
            InputError: the inputs do not fit.
            EngineError: the engine is not there, the state is not this program's, or a party failed.
        """
        return run_session(
            self,
            inputs,
            engine_named(engine, Options(spu_protocol)),
            state=Path(state) if state is not None else None,
            truncate=truncate,
            progress=progress,
            on_result=on_result,
        )[0]

    # ** what each owner has **
    def deployment(self) -> Deployment:
        """What every role of the program knows."""
        return deployment_of(self.bundle)

    def prepared(self, inputs: Mapping[str, object], truncate: bool = False) -> Prepared:
        """The client's own part for one input. BundleError where its folder is not here; InputError."""
        from mpcc.clear import arrays_of, client_values
        from mpcc.inputs import prepare_inputs

        client = self._client()
        tensors = prepare_inputs(inputs, self.bundle.manifest.inputs, client.tokenizer_json, truncate=truncate)
        values = client_values(self.bundle, tensors)
        arrays = arrays_of(values)
        shared, notes = shared_inputs(self.bundle.ring, arrays)
        return Prepared(values, Request(arrays, shared), notes)

    def outputs(self, prepared: Prepared, answer: Answer) -> dict[str, torch.Tensor]:
        """All outputs by name: what the client computed in clear, and what it received."""
        from mpcc.clear import real_tensor, whole_tensor

        nodes = dict(self._client().graph.outputs)
        found = {
            o.name: prepared.values[nodes[o.name]] if o.clear else real_tensor(answer[o.name])
            for o in self.bundle.manifest.outputs
        }
        return found | {o.name: whole_tensor(found[o.name]) for o in self.bundle.manifest.outputs if o.whole}

    def client_stream(self, inputs: Mapping[str, object], *, truncate: bool = False) -> Int64:
        """What the client feeds to its party after the public weights: ring elements in the program's order."""
        return client_stream(self.deployment(), self.prepared(inputs, truncate).request)

    def provider_stream(self) -> Int64:
        """The provider's private weights as ring elements, in the program's order."""
        return provider_stream(self.deployment(), self.provider_weights())

    def public_stream(self) -> Int64:
        """The public weights as ring elements: every party's stream starts with them."""
        return stream(self.bundle.manifest.public_weights, self.deployment().public)

    def provider_weights(self) -> Mapping[str, NDArray[Any]]:
        """The provider's private weights by name. BundleError where its folder is not here."""
        if self.bundle.provider is None:
            raise BundleError(
                "the bundle has no provider/ folder here", todo="only the provider has the private weights"
            )
        return self.bundle.provider

    def _client(self) -> ClientPart:
        if self.bundle.client is None:
            raise BundleError("the bundle has no client/ folder here", todo="only the client can prepare inputs")
        return self.bundle.client

    def save(self, path: str | Path) -> None:
        """Write `prog.mpc` and `prog.mpcc/`, both or neither."""
        save(self.bundle, path)

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
