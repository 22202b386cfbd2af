"""Graph IR -> ring IR (`lower.lower`), one rule per operation (`families`), in a format that `Settings` choose."""

from mpcc.compiler.lowering.settings import Settings

__all__ = ["Settings"]
