"""A small data set in the files of MNIST: the class of an image is the row that is bright."""

import struct

import torch


def write_digits(folder, training=64, test=32):
    """Write the files, and return the folder for ``--data``."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    for name, count in (("train", training), ("t10k", test)):
        labels = torch.randint(10, (count,), generator=draw)
        images = torch.randint(60, (count, 28, 28), generator=draw)
        images[torch.arange(count), 2 * labels] += 150
        header = struct.pack(">IIII", 2051, count, 28, 28)
        content = images.to(torch.uint8).numpy().tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + content)
        content = labels.to(torch.uint8).numpy().tobytes()
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + content)
    return folder
