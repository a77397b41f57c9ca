"""The error of a policy that has no graph."""

from __future__ import annotations


def cannot(what: str, remedy: str) -> ValueError:
    """:return: the error, to be raised: which part of the policy cannot be exported, and what to do"""
    return ValueError(f"export_onnx cannot write {what}: {remedy}.")
