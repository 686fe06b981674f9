"""Small data sets of images, in each form that the tasks on images read."""

import hashlib
import io
import pickle
import tarfile

import torch
from PIL import Image

CLASSES = ["ant", "bee", "cow"]
TRAINING, TEST = 8, 4  # images of each class


def make_images(seed=0):
    """Return uint8 images ``{(split, class, number): (3, 32, 32)}``; each class has its colour."""
    random = torch.Generator().manual_seed(seed)
    images = {}
    for split, count in (("train", TRAINING), ("test", TEST)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                image = torch.randint(60, (3, 32, 32), generator=random)
                image[label] += 150
                images[split, name, number] = image.to(torch.uint8)
    return images


def encode(image, kind="png"):
    """Return the file of an image, ``(3, 32, 32)`` uint8."""
    height, width = image.shape[1:]
    pixels = bytes(image.permute(1, 2, 0).flatten().tolist())
    buffer = io.BytesIO()
    Image.frombytes("RGB", (width, height), pixels).save(buffer, kind)
    return buffer.getvalue()


def write_folders(root, images, kind="png"):
    """Write ``train/<class>/<number>.<kind>`` and the same for ``test``."""
    for (split, name, number), image in images.items():
        path = root / split / name / f"{number:04}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(image, {"jpg": "jpeg"}.get(kind, kind)))
    return root


def write_archive(path, images, prefix=""):
    """Write an archive of the folders, in an order that is not that of the names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for (split, name, number), image in sorted(images.items(), reverse=True):
            content = encode(image)
            member = tarfile.TarInfo(f"{prefix}{split}/{name}/{number:04}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_torchvision_files(root, images, monkeypatch):
    """Write the files that torchvision reads, and tell it their checksums."""
    from tasks.torchvision_import import torchvision

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    lists = {}
    for split in ("train", "test"):
        own = {key: image for key, image in images.items() if key[0] == split}
        data = torch.stack(list(own.values())).flatten(1).numpy()
        labels = [CLASSES.index(name) for _, name, _ in own]
        lists[split] = [write(f"{split}_batch", {"data": data, "labels": labels})]
    name, md5 = write("batches.meta", {"label_names": CLASSES})
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", lists["train"])
    monkeypatch.setattr(kind, "test_list", lists["test"])
    monkeypatch.setattr(kind, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return root


def expected_sets(images):
    """Return training and test set, each ``(images, labels)``, in the order of the names."""
    sets = []
    for split in ("train", "test"):
        keys = sorted(key for key in images if key[0] == split)
        labels = torch.tensor([CLASSES.index(name) for _, name, _ in keys])
        sets.append((torch.stack([images[key] for key in keys]), labels))
    return sets
