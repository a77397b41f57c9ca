"""Policies as ONNX files: what their networks and planners compute, written as standard operations."""
