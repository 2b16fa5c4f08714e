"""A fitted model as an ONNX graph, which runs where there is neither torch nor Python: ``pip install "skvae[onnx]"``."""

from skvae.export.to_onnx import to_onnx

__all__ = ["to_onnx"]
