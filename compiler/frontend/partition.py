"""Which weights are public, and the evidence for it. Default deny: what nobody proved public is private.

Evidence, in order of strength:

1. a tensor of the named open checkpoint has the same name (up to wrapper prefixes) and the same bytes;
2. an explicit rule, a glob over tensor names, given by the provider;
3. what the architecture implies and no checkpoint holds: positions, masks (see `implied.py`).

Every tensor that the model holds is judged, also constants, plain attributes and buffers.

`requires_grad` is no evidence: after `PeftModel.from_pretrained` nothing is trainable, and merged weights look frozen.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from mpcc.compiler.errors import PartitionError
from mpcc.compiler.findings import Evidence
from mpcc.compiler.frontend.capture import Captured
from mpcc.compiler.frontend.checkpoint import shown, weight_files
from mpcc.compiler.frontend.implied import structural
from mpcc.compiler.frontend.names import is_adapter, unwrapped
from mpcc.compiler.graph.ir import Graph
from mpcc.compiler.toml_file import read_toml

PUBLIC, PRIVATE = "public", "provider"
_KEYS = ("public", "private", "open_adapters")
_IMPLIABLE = ("non_persistent_buffer", "literal")
# reasons that others look for
IMPLIED = "implied by the architecture"
DIFFERS = "explicit rule, although it differs from the base"
ADAPTER_STAYS = "part of the adapter, which public rules do not open"
OPENED = "explicit rule that opens the adapter"


@dataclass(frozen=True)
class Partition:
    """How to tell public weights from private ones; combine with `with_rules`."""

    base: Mapping[str, torch.Tensor] | None = None
    base_name: str = ""
    public: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    needs_adapter: bool = False
    open_adapters: tuple[str, ...] = ()  # globs of adapter tensors that are public; no other rule opens an adapter
    all_public: bool = False  # whether it is meant that nothing, or not even the task's head, stays private

    @staticmethod
    def all_private() -> Partition:
        """Every weight is the provider's secret (the default)."""
        return Partition()

    @staticmethod
    def from_base(base: str | Path | torch.nn.Module | Mapping[str, torch.Tensor]) -> Partition:
        """Tensors that are byte-equal to the open checkpoint `base` (folder, file, module or state) are public.

        Raises:
            PartitionError: the checkpoint cannot be read.
        """
        tensors, name = _read_base(base)
        return Partition(tensors, name)

    @staticmethod
    def from_peft(base: str | Path | torch.nn.Module | Mapping[str, torch.Tensor]) -> Partition:
        """As `from_base`, for a model that must have PEFT's structure: adapter tensors stay private."""
        return replace(Partition.from_base(base), needs_adapter=True)

    @staticmethod
    def from_rules(rules: Mapping[str, Sequence[str]] | str | Path) -> Partition:
        """Explicit globs: {"public": [...], "private": [...], "open_adapters": [...]}, or a TOML file with them."""
        return Partition().with_rules(rules)

    def with_rules(self, rules: Mapping[str, Sequence[str]] | str | Path) -> Partition:
        """This partition and explicit rules; a private rule wins over the base, two rules may not contradict."""
        table = _read_rules(rules) if isinstance(rules, (str, Path)) else rules
        unknown = sorted(set(table) - set(_KEYS))
        if unknown:
            raise PartitionError(
                f"unknown key {unknown[0][:60]!r} in the partition rules", todo=f"the keys are {', '.join(_KEYS)}"
            )
        for key, globs in table.items():
            if isinstance(globs, str) or not all(isinstance(g, str) for g in globs):
                raise PartitionError(f"{key!r} in the partition rules is not a list of names")
        public, private, opened = (tuple(table.get(key, ())) for key in _KEYS)
        return replace(self, public=public, private=private, open_adapters=opened)

    def label(self, model: Captured) -> list[Evidence]:
        """Evidence for every tensor of the model, in the store's order.

        Raises:
            PartitionError: rules contradict each other or match nothing, tied weights disagree.
        """
        names = held(model)
        rules = self._rules([*names, *model.aliases])
        matches = self.matched([*names, *model.aliases]) if self.base is not None else {}
        if self.needs_adapter and not any(is_adapter(n) for n in names):
            raise PartitionError("the model has no PEFT adapter", todo="use --base alone for a plain fine-tune")
        return [self._judge(model, name, rules, matches) for name in names]

    def _judge(self, model: Captured, name: str, rules: Mapping[str, str], matches: Mapping[str, str]) -> Evidence:
        tensor = model.tensors[name]
        size = tensor.numel() * tensor.element_size()
        group = [name, *(a for a, canonical in model.aliases.items() if canonical == name)]
        said = {rules[n] for n in group if n in rules}
        if len(said) > 1:
            raise PartitionError(
                f"{' and '.join(group)} are one tied tensor, but the rules make it both public and private"
            )
        adapter = any(is_adapter(n) for n in group)
        base_name = next((matches[n] for n in group if n in matches), None)
        same = base_name is not None and self.base is not None and _same_bytes(tensor, self.base[base_name])
        known = model.implied.get(name, "")
        if not known and model.kinds.get(name) in _IMPLIABLE:
            known = structural(tensor)

        def evidence(visibility: str, reason: str) -> Evidence:
            return Evidence(name, visibility, reason, size)

        if said == {PRIVATE}:
            return evidence(PRIVATE, "explicit rule")
        if adapter:
            if any(fnmatch.fnmatch(n, glob) for n in group for glob in self.open_adapters):
                return evidence(PUBLIC, OPENED)
            return evidence(PRIVATE, ADAPTER_STAYS if said else "part of the adapter")
        if said:
            return evidence(PUBLIC, "explicit rule" if self.base is None or same or known else DIFFERS)
        if same:
            return evidence(PUBLIC, f"byte-equal to {base_name} of {self.base_name}")
        if known:
            return evidence(PUBLIC, f"{IMPLIED}: {known}")
        if base_name is not None:
            return evidence(PRIVATE, f"differs from {base_name} of {self.base_name}")
        return evidence(PRIVATE, "nobody proved it public" if self.base is None else "not in the base")

    def _rules(self, names: Sequence[str]) -> dict[str, str]:
        """Tensor name -> visibility by rule."""
        result: dict[str, str] = {}
        for globs, visibility in ((self.public, PUBLIC), (self.private, PRIVATE)):
            for glob in globs:
                hits = fnmatch.filter(names, glob)
                if not hits:
                    raise PartitionError(
                        f"the rule {glob!r} matches no tensor",
                        where="partition rules",
                        todo=f"names look like {names[0]!r}" if names else "the model has no weights",
                    )
                for name in hits:
                    if result.get(name, visibility) != visibility:
                        raise PartitionError(f"the rules make {name} both public and private", where="partition rules")
                    result[name] = visibility
        for glob in self.open_adapters:
            if not any(is_adapter(n) for n in fnmatch.filter(names, glob)):
                raise PartitionError(f"{glob!r} matches no tensor of an adapter", where="partition rules")
        return result

    def matched(self, names: Iterable[str]) -> dict[str, str]:
        """Model tensor -> base tensor of the same name and shape."""
        assert self.base is not None
        by_tail: dict[str, str] = {}
        for name in self.base:
            by_tail.setdefault(name, name)
        matches: dict[str, str] = {}
        for name in names:
            plain = unwrapped(name)
            found = _find(plain, by_tail)
            if found is not None:
                matches[name] = found
        return matches


def check_base(model: Captured, partition: Partition) -> None:
    """Refuse a base that is another architecture or another size.

    Raises:
        PartitionError: no tensor of the base has a name of the model, or most that have differ in shape.
    """
    if partition.base is None:
        return
    names = [n for n in held(model) if n not in model.implied]
    matches = partition.matched(names)
    if not matches:
        raise PartitionError(
            f"the base {partition.base_name} does not match: none of its {len(partition.base)} tensors has the name of "
            f"one of the model's {len(names)}",
            todo="name the open checkpoint that the model was fine-tuned from",
        )
    wrong = [n for n, b in matches.items() if partition.base[b].shape != model.tensors[n].shape]
    if len(wrong) * 2 > len(matches):
        first = wrong[0]
        raise PartitionError(
            f"the base {partition.base_name} does not match: {len(wrong)} of {len(matches)} tensors have another "
            f"shape, {first} is {tuple(model.tensors[first].shape)}, not {tuple(partition.base[matches[first]].shape)}",
            todo="name the open checkpoint that the model was fine-tuned from",
        )


def held(model: Captured) -> list[str]:
    """The tensors that the model holds and its graph reads, in that order; not the numbers in its code."""
    leaves = {str(n.attr("tensor")): n.op for n in model.graph if n.op in ("param", "constant")}
    return [name for name, op in leaves.items() if op == "param" or name in model.implied]


def hide(graph: Graph, labels: Mapping[str, str]) -> Graph:
    """Constants that a rule makes private become params of the provider."""
    private = {name for name, visibility in labels.items() if visibility == PRIVATE}
    hidden = [n for n in graph if n.op == "constant" and str(n.attr("tensor")) in private]
    names = {n.name for n in hidden}
    return graph.with_nodes([replace(n, op="param") if n.name in names else n for n in graph]) if hidden else graph


def labels_of(evidence: Sequence[Evidence]) -> dict[str, str]:
    """Tensor -> visibility, as visibility.infer takes it."""
    return {e.tensor: e.visibility for e in evidence}


def _find(name: str, base: Mapping[str, str]) -> str | None:
    """The base's name for `name`: equal, or one with leading components (`bert.`) more or less."""
    if name in base:
        return name
    parts = name.split(".")
    for i in range(1, len(parts)):
        tail = ".".join(parts[i:])
        if tail in base and "." in tail:
            return tail
    for prefix in dict.fromkeys(b.split(".")[0] for b in base):
        if f"{prefix}.{name}" in base:
            return f"{prefix}.{name}"
    return None


def _same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    raw = [t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return torch.equal(raw[0], raw[1])


def _read_base(base: str | Path | torch.nn.Module | Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    if isinstance(base, torch.nn.Module):
        return dict(base.state_dict()), type(base).__name__
    if isinstance(base, Mapping):
        return dict(base), "the given state"
    path = Path(base)
    if not path.exists():
        raise PartitionError(f"there is no base checkpoint at {path}")
    found = _checkpoint_files(path)
    tensors: dict[str, torch.Tensor] = {}
    for file in found:
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - not a mapping
                    tensors[name] = handle.get_tensor(name)
        except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
            raise PartitionError(f"cannot read the base checkpoint {file.name}: {shown(error)}") from None
    return tensors, path.name


def _checkpoint_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if found := weight_files(path):
        return found
    raise PartitionError(f"the base {path.name} holds no model.safetensors", todo="save it with save_pretrained first")


def _read_rules(path: str | Path) -> Mapping[str, Sequence[str]]:
    return read_toml(Path(path), "the file of partition rules", PartitionError)
