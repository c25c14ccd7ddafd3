"""Writing without the host belongs here: steps over fixed slots of a device, as CUDA graphs there.

Everything that a byte needs (caches, boundaries, the choice of the next byte) stays on the device;
the host launches steps and makes one small copy per byte. On a CPU the same steps are called.
"""
