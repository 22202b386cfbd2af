"""Which weights are public, and the evidence for it. Default deny: what nobody proved public is private.

Evidence, in order of strength:

1. a tensor of the named open checkpoint has the same name (up to wrapper prefixes) and the same bytes;
2. an explicit rule, a glob over tensor names, given by the provider;
3. integer buffers that the architecture implies (positions, token types), which no checkpoint holds.

`requires_grad` is no evidence: after `PeftModel.from_pretrained` nothing is trainable, and merged weights look frozen.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from mpcc.compiler.errors import PartitionError
from mpcc.compiler.findings import Evidence
from mpcc.compiler.frontend.capture import Captured

# What wrappers put around a checkpoint's names.
_WRAPPING = re.compile(r"(^|\.)(base_model\.model|base_layer|modules_to_save\.[^.]+|original_module)(?=\.|$)")
_ADAPTER = re.compile(r"(^|\.)(lora_|modules_to_save\.)")
PUBLIC, PRIVATE = "public", "provider"


@dataclass(frozen=True)
class Partition:
    """How to tell public weights from private ones; combine with `with_rules`."""

    base: Mapping[str, torch.Tensor] | None = None
    base_name: str = ""
    public: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    needs_adapter: bool = False

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
        """Explicit globs: {"public": [...], "private": [...]}, or a TOML file that holds them."""
        return Partition().with_rules(rules)

    def with_rules(self, rules: Mapping[str, Sequence[str]] | str | Path) -> Partition:
        """This partition and explicit rules; a private rule wins over the base, two rules may not contradict."""
        table = _read_rules(rules) if isinstance(rules, (str, Path)) else rules
        unknown = sorted(set(table) - {"public", "private"})
        if unknown:
            raise PartitionError(
                f"unknown key {unknown[0]!r} in the partition rules", todo='use "public" and "private"'
            )
        for key, globs in table.items():
            if isinstance(globs, str) or not all(isinstance(g, str) for g in globs):
                raise PartitionError(f"{key!r} in the partition rules is not a list of names")
        return replace(self, public=tuple(table.get("public", ())), private=tuple(table.get("private", ())))

    def label(self, model: Captured) -> list[Evidence]:
        """Evidence for every tensor of the model, in the store's order.

        Raises:
            PartitionError: rules contradict each other or match nothing, tied weights disagree.
        """
        used = [str(n.attr("tensor")) for n in model.graph if n.op == "param"]
        names = list(dict.fromkeys(used))
        rules = self._rules([*names, *model.aliases])
        matches = self.matched([*names, *model.aliases]) if self.base is not None else {}
        if self.needs_adapter and not any(_ADAPTER.search(n) for n in names):
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
        if said:
            return Evidence(name, said.pop(), "explicit rule", size)
        if _ADAPTER.search(name):
            return Evidence(name, PRIVATE, "part of the adapter", size)
        if self.base is not None:
            base_name = next((matches[n] for n in group if n in matches), None)
            if base_name is not None:
                same = _same_bytes(tensor, self.base[base_name])
                if same:
                    return Evidence(name, PUBLIC, f"byte-equal to {base_name} of {self.base_name}", size)
                return Evidence(name, PRIVATE, f"differs from {base_name} of {self.base_name}", size)
        if model.kinds.get(name) == "non_persistent_buffer" and _is_structural(tensor):
            return Evidence(name, PUBLIC, "integer buffer that the architecture implies", size)
        return Evidence(name, PRIVATE, "nobody proved it public" if self.base is None else "not in the base", size)

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
        return result

    def matched(self, names: Iterable[str]) -> dict[str, str]:
        """Model tensor -> base tensor of the same name and shape."""
        assert self.base is not None
        by_tail: dict[str, str] = {}
        for name in self.base:
            by_tail.setdefault(name, name)
        matches: dict[str, str] = {}
        for name in names:
            plain = _WRAPPING.sub("", name).lstrip(".")
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
    names = [str(n.attr("tensor")) for n in model.graph if n.op == "param"]
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


def _is_structural(tensor: torch.Tensor) -> bool:
    """Positions (an arange) or one repeated integer: nothing that fine-tuning could have put there."""
    if tensor.is_floating_point() or tensor.numel() == 0:
        return False
    flat = tensor.reshape(-1)
    counting = torch.arange(flat.numel(), dtype=flat.dtype) if flat.dtype != torch.bool else flat
    return bool((flat == flat[0]).all()) or (flat.dtype != torch.bool and torch.equal(flat, counting + flat[0]))


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
        except (SafetensorError, OSError) as error:
            raise PartitionError(f"cannot read the base checkpoint {file.name}: {error}") from None
    return tensors, path.name


def _checkpoint_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    index = path / "model.safetensors.index.json"
    if index.exists():
        listed = json.loads(index.read_text("utf-8"))["weight_map"].values()
        return [path / name for name in sorted(set(listed))]
    single = path / "model.safetensors"
    if single.exists():
        return [single]
    raise PartitionError(f"the base {path.name} holds no model.safetensors", todo="save it with save_pretrained first")


def _read_rules(path: str | Path) -> Mapping[str, Sequence[str]]:
    file = Path(path)
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise PartitionError(f"cannot read the partition rules {file.name}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PartitionError(f"{file.name} is not TOML: {error}") from None
    return table
