"""Eager learning: each part computes its gradients in the forward pass, and frees its memory."""

from ._cuts import EagerCuts

__all__ = ["EagerCuts"]
