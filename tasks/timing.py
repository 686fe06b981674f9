"""Waiting for a device before its time is measured."""

import torch


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has finished; it computes asynchronously."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
