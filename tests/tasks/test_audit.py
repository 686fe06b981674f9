"""The audit of training shows cosine similarities by depth."""

import pytest

from tasks import audit
from tests.support.data import needs_data


@needs_data
def test_cosines_by_depth_are_printed_and_drawn(tmp_path, capsys):
    argv = ["--mode", "feedback,local", "--depth", "2", "--hidden", "16", "--steps", "4"]
    argv += ["--every", "2", "--out", str(tmp_path)]
    assert audit.main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith(("feedback", "local"))]
    assert [row[:2] for row in rows] == [["feedback", "4"], ["local", "4"]]
    for row in rows:
        assert len(row) == 2 + 3
        assert float(row[-1]) == 1  # the last part gets the exact gradient
        assert all(-1 <= float(cosine) <= 1 for cosine in row[2:])
    assert (tmp_path / audit.FIGURE).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit) as error:
        audit.main(argv)
    assert error.value.code == 2
    assert "give another --out" in capsys.readouterr().err
