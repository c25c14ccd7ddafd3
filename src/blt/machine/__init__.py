"""What the machine here is and can do: devices, precision, threads; knows nothing of models."""
