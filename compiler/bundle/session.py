"""What is said of the programs of one session together: `session.json` beside their bundles."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from mpcc.compiler.bundle.decode import Malformed, decoded
from mpcc.compiler.bundle.manifest import COPY_AGAIN
from mpcc.compiler.errors import BundleError

SESSION = "session.json"
FORMAT, FORMAT_VERSION = "mpcc-session", 1
PREFILL, DECODE = "prefill", "decode"  # the programs of a session that generates


@dataclass(frozen=True)
class SessionFacts:
    """Of a model that generates: tokens of the longest prompt, entries of the cache for prompt and answer, tokens that
    a decoding step takes, the tokens that end an answer.
    """

    prompt: int
    cache: int
    tokens: int
    end: tuple[int, ...] = ()


def session_text(facts: SessionFacts) -> str:
    """session.json."""
    return json.dumps({"format": FORMAT, "version": FORMAT_VERSION} | asdict(facts), indent=1) + "\n"


def session_from(text: str, where: str) -> SessionFacts:
    """What session.json says.

    Raises:
        BundleError: it is no such file, or says what cannot be.
    """
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        raise _corrupt("it is not JSON", where) from None
    if not isinstance(table, dict) or table.pop("format", None) != FORMAT or table.pop("version", 0) != FORMAT_VERSION:
        raise _corrupt("it is none of this version of mpcc", where)
    try:
        facts = decoded(SessionFacts, table)
    except Malformed as problem:
        raise _corrupt(str(problem), where) from None
    if min(facts.prompt, facts.tokens) < 1 or facts.cache < facts.prompt + facts.tokens:
        raise _corrupt("its sizes do not fit each other", where)
    return facts


def _corrupt(why: str, where: str) -> BundleError:
    return BundleError(f"the session file is corrupt: {why}", where=where, todo=COPY_AGAIN)
