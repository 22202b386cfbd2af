"""Makes `import standin` and `import ring_programs` work: both belong to the tests, not to mpcc."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
