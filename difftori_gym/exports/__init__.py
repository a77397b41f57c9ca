"""Policies as files: for strangers to load, and for machines without torch."""

from difftori_gym.exports.export import Export, export, load_export, read_export
from difftori_gym.exports.export_onnx import export_onnx

__all__ = ["Export", "export", "export_onnx", "load_export", "read_export"]
