"""Why a session does not come about, each as one line for the user: what, where, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpcc.runtime.parties.link import Reason

_SAME_PROGRAM = "give every party its part of the same program and the same mpcc, and start them all alike"
_SAME_KEYS = "give every party the same certificates, and compare their fingerprints"


class Failure(Exception):
    """What goes to the runtime; `reason` goes to the other players."""

    def __init__(self, text: str, where: str = "", todo: str = "", reason: Reason = Reason.SESSION) -> None:
        super().__init__(text)
        self.text, self.where, self.todo, self.reason = text, where, todo, reason


def different(role: str, names: Sequence[str]) -> Failure:
    """A player greets with other parts of the program, or confirms another session."""
    if "session" in names:
        return Failure(
            f"the {role} takes part in another session", f"the {role}'s link", "start all parties again", Reason.SESSION
        )
    return Failure(
        f"the {role} does not run the same program: {', '.join(names)} {'differ' if len(names) > 1 else 'differs'}",
        f"the {role}'s link",
        _SAME_PROGRAM,
        Reason.PROGRAM,
    )


def refused(role: str, reason: Reason) -> Failure:
    """A player says that it does not take part."""
    if reason is Reason.PROGRAM:
        return Failure(f"the {role} says that the parties do not run the same program", "", _SAME_PROGRAM, reason)
    return Failure(f"the {role} says that the parties are not in the same session", "", "start all parties again")


def strange(role: str, address: str, why: str) -> Failure:
    """Who answers at a player's address is somebody else, or takes us for somebody else."""
    return Failure(
        f"a party was turned away: who answers for the {role} has another certificate, or expects another one ({why})",
        address,
        _SAME_KEYS,
    )


def broken(role: str, why: str) -> Failure:
    """A player says what may not be said."""
    return Failure(f"the {role} does not speak as a tunnel does: {why}", f"the {role}'s link", _SAME_PROGRAM)


def absent(roles: Sequence[str], seconds: float, turned_away: Mapping[str, int]) -> Failure:
    """Players did not come in time."""
    who = " and ".join(roles)
    told = sum(turned_away.values())
    more = f"; {told} connections of others were turned away" if told else ""
    wrong = f", {turned_away['certificate']} for their certificate" if turned_away.get("certificate") else ""
    return Failure(
        f"the {who} did not connect within {seconds:g} s{more}{wrong}; is every other party started?",
        todo="see whether the addresses and certificates in the file of hosts are everybody's",
    )


def taken(address: str, why: str) -> Failure:
    """The public port cannot be used."""
    return Failure(
        f"the port cannot be used: {why}",
        address,
        "end the process that uses it, or choose another port in the file of hosts (every party needs the same file)",
    )
