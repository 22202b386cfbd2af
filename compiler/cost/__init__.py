"""What a program costs before it runs."""

from mpcc.compiler.cost.model import Cost, Row, estimate
from mpcc.compiler.cost.network import NETWORKS, Network, network_of
from mpcc.compiler.cost.protocols import PRICES

__all__ = ["NETWORKS", "PRICES", "Cost", "Network", "Row", "estimate", "network_of"]
