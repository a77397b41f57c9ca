"""Policies as files that can be loaded from strangers."""

from difftori_gym.exports.policy import (
    Export,
    ExportableAlgorithm,
    ExportablePolicy,
    exportable,
    exportable_policies,
    load_export,
    parameters_from_json,
    parameters_to_json,
    read_export,
)

__all__ = [
    "Export",
    "ExportableAlgorithm",
    "ExportablePolicy",
    "exportable",
    "exportable_policies",
    "load_export",
    "parameters_from_json",
    "parameters_to_json",
    "read_export",
]
