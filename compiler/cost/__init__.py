"""What a program costs before it runs."""

from mpcc.compiler.cost.model import NETWORKS, Cost, Row, estimate
from mpcc.compiler.cost.tables import PROTOCOLS, Protocol

__all__ = ["NETWORKS", "PROTOCOLS", "Cost", "Protocol", "Row", "estimate"]
