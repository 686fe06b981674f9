"""Measurements of step time, memory and accuracy, compared with plain backpropagation."""
