"""torchvision can be imported where its compiled operators are missing."""

import subprocess
import sys

SHIM = """
import torch
{before}
from tasks import torchvision_import
from torchvision import datasets, models, transforms
x = models.resnet18(num_classes=3).eval()(torch.randn(1, 3, 32, 32))
assert x.shape == (1, 3)
print(sorted(torchvision_import.declared))
"""


def test_missing_operators_are_declared_and_present_ones_are_not():
    def declared(before):
        code = SHIM.format(before=before)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    bare = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True)
    missing = "[]" if bare.returncode == 0 else "['nms', 'qnms']"
    assert declared("") == missing
    # Nothing is declared where the operators exist.
    existing = (
        "library = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "boxes = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'\n"
        "[library.define(name + boxes) for name in ('nms', 'qnms')]"
    )
    assert declared(existing if missing != "[]" else "") == "[]"
