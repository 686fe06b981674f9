"""Measurements against plain backpropagation and against loops written by hand."""
