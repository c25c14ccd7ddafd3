"""Triton kernels for a GPU: functions over tensors that launch them, a file for each job.

They know nothing of autograd and modules, read nothing on the host and use no atomics: every run
gives the same bits. Sums are in float32. Nothing is imported here, so that the package can be named
where triton is missing.

Segments are given by ``offsets``: segment s is rows ``offsets[s]`` to ``offsets[s + 1]``, int32 or
int64. In a kernel, tiles have the axes bytes, slices, heads, features, in this order.
"""
