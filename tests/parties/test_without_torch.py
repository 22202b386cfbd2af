"""The provider's and the helper's hosts have no torch: what their roles run must not import it."""

import subprocess
import sys

import child

from tests.bundle import tiny_programs as tiny

PROGRAM = """
import sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "peft"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import mpcc.cli.app, mpcc.doctor, mpcc.runtime.engines, mpcc.report.session, mpcc.report.result, mpcc.report.audit
from mpcc.audit import audit
from mpcc.loading import load
program = load(Path(sys.argv[1]), ())
assert audit(program).digest
print(program.cost().bytes_online)
"""


def test_a_role_knows_the_estimate_without_torch(tmp_path):
    program = tiny.prefix_program()
    program.save(tmp_path / "prog.mpc")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "prog.mpc")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=child.SLOW_START)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == program.cost().bytes_online
