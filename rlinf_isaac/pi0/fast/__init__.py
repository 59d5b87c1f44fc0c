"""Inference on a GPU: fused weights, Triton kernels, CUDA graphs. Triton is imported only by what launches it."""
