"""The jobs of ``benchmarks.gpu``, the processes they run in, and the tables of what they found."""
