"""Failpoints by name: which there are, and how to say what shall happen there. Pure; `libs.runtime.failpoints` acts."""
