"""The page that lists the faults is the one that the table gives, and the table holds what it has to."""

from tests.faults.fault import Stage
from tests.faults.report import PAGE, page
from tests.faults.table import FAULTS


def test_the_page_lists_exactly_these_faults():
    assert PAGE.read_text("utf-8") == page(), "write it anew: python -m tests.faults.report"


def test_every_fault_is_one_of_its_own():
    titles = {(f.stage, f.title) for f in FAULTS}
    assert len(titles) == len(FAULTS) and len([f for f in FAULTS if f.stage is not Stage.ATTACK]) >= 100
    assert {f.stage for f in FAULTS} == set(Stage)
