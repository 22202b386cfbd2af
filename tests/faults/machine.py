"""Faults of the machine: its settings, its MP-SPDZ, its disk and its limits."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from fake_home import make_home, soon

from tests.faults.fault import ENGINE, Causes, End, Fault, Stage, refused
from tests.faults.place import STAND_IN, Place

FULL = "No space left on device.*make room there, or set TMPDIR"
DISK = 1 << 20
ROLES = ("client", "provider", "helper")


# ** settings **
def with_env(**env: str | None) -> Causes:
    """The helper alone, with another environment."""

    def cause(place: Place):
        place.party("helper", *place.stored, wait=3, env=env)
        return place.ended()

    return cause


def with_home(spoil: Callable[[Path], object]) -> Causes:
    """The helper alone, with an MP-SPDZ of its own that is spoilt."""

    def cause(place: Place):
        home = make_home(place.folder / "spoilt" / "home")
        spoil(home)
        try:
            place.party("helper", *place.stored, wait=3, env={"MP_SPDZ_HOME": str(home)})
            return place.ended()
        finally:
            shutil.rmtree(home.parent)

    return cause


def home(name: str, spoil: Callable[[Path], object], says: str) -> Fault:
    return Fault(name, Stage.MACHINE, STAND_IN, with_home(spoil), refused("helper", says), damages=True)


PARTY = "replicated-ring-party.x"
HOMES = [
    Fault(
        "MP_SPDZ_HOME is not set",
        Stage.MACHINE,
        STAND_IN,
        with_env(MP_SPDZ_HOME=None),
        refused("helper", "MP_SPDZ_HOME is not set"),
        damages=True,
    ),
    home("MP-SPDZ's folder is gone", lambda at: at.rename(at.with_name("away")), "does not exist"),
    home("MP-SPDZ has no compiler", lambda at: (at / "compile.py").unlink(), "compile.py is missing"),
    home(
        "MP-SPDZ does not say its version", lambda at: (at / "CHANGELOG.md").unlink(), "version of MP-SPDZ is unknown"
    ),
    home(
        "MP-SPDZ is too old",
        lambda at: (at / "CHANGELOG.md").write_text("## 0.3.9 (2024)\n"),
        r"MP-SPDZ 0\.3\.9 is too old",
    ),
    home("the party program is not built", lambda at: (at / PARTY).unlink(), "make -C"),
    home("the party program may not be executed", lambda at: (at / PARTY).chmod(0o644), "make -C"),
    home(
        "another MP-SPDZ than the shares were made with",
        lambda at: (at / "CHANGELOG.md").write_text("## 0.4.7\n"),
        r"made with MP-SPDZ 0\.4\.2, here is 0\.4\.7",
    ),
]


# ** all parties, where one finds something strange **
def everybody(
    role: str, *, env: Mapping[str, str | None] | None = None, limits: tuple[tuple[int, int], ...] = ()
) -> Causes:
    """A session in which one role has another environment, or limits of its own."""

    def cause(place: Place):
        for each in place.roles:
            own = {"env": env, "limits": limits} if each == role else {}
            asked = ("--input", "in.json") if each == "client" else ()
            place.party(each, *place.stored, *asked, wait=10, **own)
        return place.ended()

    return cause


DONE = dict.fromkeys(ROLES, End(0))
FAILS = End(ENGINE, "closed its connection|did not connect|failed")


def no_temporary_folder(place: Place):
    """TMPDIR names a folder that does not exist: the system's own is used, and left empty."""
    return everybody("helper", env={"TMPDIR": str(place.folder / "nowhere")})(place)


def compiles(limits: tuple[tuple[int, int], ...]) -> Causes:
    """The provider alone begins to provision."""

    def cause(place: Place):
        place.party("provider", "--provision", "--state", "other", wait=3, limits=limits)
        return place.ended()

    return cause


SETTINGS = [
    Fault("TMPDIR does not exist", Stage.MACHINE, "ring", no_temporary_folder, DONE),
    Fault("HOME is not set", Stage.MACHINE, "ring", everybody("client", env={"HOME": None}), DONE),
    Fault("PATH is not set", Stage.MACHINE, "ring", everybody("helper", env={"PATH": None}), DONE),
    Fault(
        "files may not be longer than 2 kB",
        Stage.MACHINE,
        STAND_IN,
        compiles(((resource.RLIMIT_FSIZE, 2000),)),
        refused("provider", "File too large|SIGXFSZ|refused the program|did not start"),
        damages=True,
    ),
]


# ** a disk that is full **
@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own on a folder, with so much room left; the test is skipped where that is not permitted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        filler = folder / "filler"
        filler.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - 1024 * kilobytes)))
        yield folder
        assert [p.name for p in folder.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def full_disk(kilobytes: int, role: str = "provider") -> Causes:
    """The disk of a role's working folder, while weights are shared anew."""

    def cause(place: Place):
        with small_disk(place.at(role) / "tmp", kilobytes):
            for each in place.roles:
                place.party(each, "--provision", "--state", "other", wait=8)
            return place.ended()

    return cause


def full_state(kilobytes: int) -> Causes:
    """The disk of the helper's stored shares."""

    def cause(place: Place):
        folder = place.at("helper") / "full"
        folder.mkdir()
        with small_disk(folder, kilobytes):
            for each in place.roles:
                place.party(each, "--provision", "--state", "full/state" if each == "helper" else "other", wait=8)
            seen = place.ended()
            shutil.rmtree(folder / "state", ignore_errors=True)
        folder.rmdir()
        return seen

    return cause


DISKS = [
    Fault("TMPDIR is on a disk without any room", Stage.MACHINE, "ring", full_disk(0), DONE),
    *(
        Fault(
            f"the disk of the provider's working folder has {kilobytes} kB left",
            Stage.MACHINE,
            "ring",
            full_disk(kilobytes),
            {"provider": End(ENGINE, FULL), "client": FAILS, "helper": FAILS},
        )
        for kilobytes in (4, 12, 24, 48)
    ),
    *(
        Fault(
            f"the disk of the helper's shares has {kilobytes} kB left",
            Stage.MACHINE,
            "ring",
            full_state(kilobytes),
            {
                "helper": End(ENGINE, "no room is left|did not store its|the byte code cannot be stored"),
                "client": FAILS,
                "provider": FAILS,
            },
        )
        for kilobytes in (0, 8)
    ),
]


# ** what a power cut leaves **
def power_cut(place: Place):
    """mpcc of the helper and its watchdog are killed at once: the rest ends by itself, its folder at the next start."""
    place.session()
    tunnel = place.wait_for("helper", "tunnel")
    place.signal("helper", "watchdog", signal.SIGKILL)
    place.signal("helper", "mpcc", signal.SIGKILL)
    seen = place.ended()
    assert soon(lambda: not tunnel.is_running() or tunnel.status() == "zombie")
    left = list((place.at("helper") / "tmp").iterdir())
    assert left
    place.party("helper", *place.stored, wait=1)
    return {**seen, "the next helper": place.ended()["helper"]}


POWER = [
    Fault(
        "mpcc of the helper and its watchdog are killed",
        Stage.IDLE,
        "ring",
        power_cut,
        {
            "client": FAILS,
            "provider": FAILS,
            "helper": End(-signal.SIGKILL),
            "the next helper": End(ENGINE, "did not connect"),
        },
    )
]
MACHINE = [*HOMES, *SETTINGS, *DISKS, *POWER]
