"""What a program costs before it runs."""

from mpcc.compiler.cost.model import Cost, Row, estimate
from mpcc.compiler.cost.network import NETWORKS, Network, network_of
from mpcc.compiler.cost.protocols.replicated import PROTOCOLS, Protocol

__all__ = ["NETWORKS", "PROTOCOLS", "Cost", "Network", "Protocol", "Row", "estimate", "network_of"]
