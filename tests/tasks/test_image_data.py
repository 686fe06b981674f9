"""Subsets are balanced, and training images change by seed and step alone."""

import pytest
import torch

from tasks import cifar10
from tasks.errors import TaskError
from tasks.image_data import balanced_subset, ImageData, ImageSet, random_crops_and_flips

CLASSES = ["ant", "bee", "cow"]


def numbered(counts):
    """Return shuffled samples whose images hold their own number."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(pixels.expand(-1, 3, 32, 32), labels)


@pytest.mark.parametrize(("count", "expected"), [(9, [3, 3, 3]), (11, [4, 4, 3]), (30, [10] * 3)])
def test_subsets_are_balanced_and_repeatable(count, expected):
    samples = numbered([10, 20, 30])
    chosen = balanced_subset(samples, count, CLASSES, "--train-samples")
    assert torch.bincount(chosen.labels, minlength=3).tolist() == expected
    numbers = chosen.images[:, 0, 0, 0].long()
    assert len(numbers.unique()) == count
    assert torch.equal(samples.labels[numbers], chosen.labels)
    torch.manual_seed(5)
    assert torch.equal(
        balanced_subset(samples, count, CLASSES, "--train-samples").images, chosen.images
    )
    smaller = (
        balanced_subset(samples, count - 3, CLASSES, "--train-samples").images[:, 0, 0, 0].tolist()
    )
    assert {*smaller} < {*numbers.tolist()}


def test_a_class_with_too_few_samples_is_named():
    with pytest.raises(TaskError, match=r"11 images of each class, and class 'ant' has 10"):
        balanced_subset(numbered([10, 20, 30]), 33, CLASSES, "--train-samples")


def test_crops_and_flips_are_those_of_padded_images():
    random = torch.Generator().manual_seed(3)
    images = torch.randint(1, 256, (200, 2, 5, 6), generator=random).to(torch.uint8)
    found = random_crops_and_flips(images, 2, random)
    assert found.dtype == torch.uint8
    padded = torch.zeros(200, 2, 9, 10, dtype=torch.uint8)
    padded[:, :, 2:-2, 2:-2] = images
    seen = set()
    for image, result in zip(padded, found, strict=True):
        crops = {
            (top, left, flipped): image[:, top : top + 5, left : left + 6].flip([2] * flipped)
            for top in range(5)
            for left in range(5)
            for flipped in (0, 1)
        }
        (change,) = [change for change, crop in crops.items() if torch.equal(crop, result)]
        seen.add(change)
    assert len(seen) > 45  # of 50 equally likely ones


def make_task(*options):
    args = cifar10.parser().parse_args(["--device", "cpu", "--batch", "4", *options])
    pixels = torch.randint(256, (30, 3, 32, 32), generator=torch.Generator().manual_seed(2))
    labels = torch.arange(30) % 3
    samples = ImageSet(pixels.to(torch.uint8), labels)
    test = ImageSet(samples.images[:4], labels[:4])
    return cifar10.CIFAR10Task(args, ImageData(CLASSES, samples, test))


def test_training_batches_are_a_function_of_seed_and_step():
    task, other = make_task(), make_task()
    for step in (9, 0, 7):
        torch.manual_seed(step)
        other.training_batch(2, step)
        batch, same = task.training_batch(1, step), other.training_batch(1, step)
        assert all(map(torch.equal, batch, same))
    assert not torch.equal(task.training_batch(1, 0).input, task.training_batch(2, 0).input)
    # Each epoch has another order, and each step other crops.
    assert not torch.equal(task.training_batch(1, 0).target, task.training_batch(1, 7).target)
    images = torch.arange(32.0).expand(4, 3, 32, 32).to(torch.uint8)
    first, second = (task.training_input(images, 1, step) for step in (0, 1))
    assert not torch.equal(first, second)


def test_each_epoch_has_every_sample_once():
    task = make_task("--no-augment", "--batch", "5")
    batches = [task.training_batch(1, step) for step in range(6, 12)]
    inputs = torch.cat([batch.input for batch in batches])
    assert len(inputs.flatten(1).unique(dim=0)) == 30


def test_only_training_images_change():
    samples = make_task().test_batches()
    mean, std = torch.tensor(cifar10._MEAN), torch.tensor(cifar10._STD)
    pixels = torch.randint(256, (30, 3, 32, 32), generator=torch.Generator().manual_seed(2))
    expected = ((pixels / 255).movedim(1, -1) - mean) / std
    found = torch.cat([batch.input for batch in samples]).movedim(1, -1)
    torch.testing.assert_close(found, expected[:4])
    task = make_task("--no-augment")
    batch = task.training_batch(1, 0)
    chosen = batch.input.movedim(1, -1)
    distances = (chosen.unsqueeze(1) - expected).abs().amax((2, 3, 4))
    assert distances.amin(1).max() < 1e-5
    assert torch.equal(distances.argmin(1) % 3, batch.target)
