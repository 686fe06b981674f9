"""What is imported when: most users of the library have no pipeline."""

import subprocess
import sys

CODE = """
import sys
import pytorch_dni
assert "pytorch_dni.distributed" not in sys.modules
import pytorch_dni.distributed
late = ["torch.distributed.pipelining", "torch.distributed.checkpoint", "tqdm"]
assert not [name for name in late if name in sys.modules and name not in before]
for name in pytorch_dni.distributed.__all__:
    assert getattr(pytorch_dni.distributed, name).__doc__, name
"""


def test_pipelines_and_what_they_need_are_imported_late():
    code = "import sys, torch\nbefore = set(sys.modules)\n" + CODE
    subprocess.run([sys.executable, "-c", code], check=True)
