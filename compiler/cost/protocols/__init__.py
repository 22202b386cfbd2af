"""Price lists, by the name of the protocol: bytes that each party sends, and rounds as each counts them (sends and
receives in batches, as MP-SPDZ counts them)."""

from collections.abc import Mapping

from mpcc.compiler.cost.prices import PriceList
from mpcc.compiler.cost.protocols.dealer import DEALER_RING
from mpcc.compiler.cost.protocols.homomorphic import HEMI, TEMI
from mpcc.compiler.cost.protocols.malicious import PS_REP_RING, REP4_RING, SY_REP_RING
from mpcc.compiler.cost.protocols.replicated import RING
from mpcc.compiler.cost.protocols.semi2k import SEMI2K

PRICES: Mapping[str, PriceList] = {
    prices.protocol: prices for prices in (RING, DEALER_RING, SEMI2K, HEMI, TEMI, REP4_RING, PS_REP_RING, SY_REP_RING)
}
