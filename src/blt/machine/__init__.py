"""What this machine is and can do belongs here: devices, precision, threads, speed of products; no
model, and nothing of a training.
"""
