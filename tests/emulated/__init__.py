"""CUDA kernels on the CPU, for tests where there is no GPU: a compiler for them, and a stand-in for CuPy."""
