"""Recorded results of the library, for changes that must not change what is computed."""
