"""What identifies a program to all of its roles: the digest that people compare, and that their machines compare again.

It is made of what every role holds, as it was read and checked, and of this mpcc: not of the files' bytes, nor of what
only one role is given (the client's graph, labels, names, the evidence).
"""

from __future__ import annotations

import hashlib
import json
from importlib import metadata

from mpcc.compiler.graph.text import print_graph
from mpcc.compiler.ring.text import print_ring
from mpcc.runtime.deployment import Deployment
from mpcc.runtime.engine import Arrays
from mpcc.runtime.parties.agreement import Parts, digest_of, part

IR, WEIGHTS, PROTOCOL, OPTIONS, VERSION = "ir", "public weights", "protocol", "options", "mpcc version"
_CHOSEN = ("ring_bits", "frac_bits", "weight_frac_bits", "truncation", "output")  # in the manifest


def program_parts(program: Deployment) -> Parts:
    """SHA-256 by name of everything that all roles have to have in common, whichever engine runs it.

    `ir` is the ring program and the graph that it approximates, from which every role makes the source itself.
    """
    options = {name: getattr(program.manifest, name) for name in _CHOSEN}
    return {
        IR: part(f"{print_ring(program.ring)}\0{print_graph(program.mpc)}".encode()),
        WEIGHTS: _of_arrays(program.public),
        PROTOCOL: part(program.protocol.encode()),
        OPTIONS: part(json.dumps(options, sort_keys=True).encode()),
        VERSION: part(metadata.version("mpcc").encode()),
    }


def program_digest(program: Deployment) -> str:
    """The one digest of these parts, 64 hexadecimal digits."""
    return digest_of(program_parts(program))


def _of_arrays(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode() + b"\n" + array.tobytes())
    return digest.hexdigest()
