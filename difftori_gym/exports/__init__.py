"""Policies as files that can be loaded from strangers."""

from difftori_gym.exports.export import Export, export, load_export, read_export

__all__ = ["Export", "export", "load_export", "read_export"]
