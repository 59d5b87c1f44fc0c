"""Inference on a GPU: fused weights, Triton kernels, CUDA graphs. Only modules that launch kernels import Triton."""
