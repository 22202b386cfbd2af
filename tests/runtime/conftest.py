"""Makes `import standin`, `import ring_cases` and their like work: they belong to the tests, not to mpcc."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (HERE.parent, HERE.parent / "bundle", HERE):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
