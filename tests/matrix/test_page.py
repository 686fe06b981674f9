"""The page on compatibility belongs to the rows and to the packages that are pinned."""

from tests.matrix.page import PAGE, pinned, render, versions_on
from tests.matrix.rows import by_name, GROUPS


def test_the_page_is_that_of_the_rows():
    page = PAGE.read_text()
    stale = "the rows have changed: run python -m tests.matrix.record"
    assert page == render(GROUPS, versions_on(page)), stale


def test_the_page_is_that_of_the_pinned_packages():
    assert versions_on(PAGE.read_text()) == pinned()


def test_names_of_rows_are_unique():
    assert len(by_name()) == sum(map(len, GROUPS.values()))


def test_packages_that_rows_need_are_pinned():
    needed = {name for row in by_name().values() for name in row.needs}
    assert needed <= {*pinned()}
