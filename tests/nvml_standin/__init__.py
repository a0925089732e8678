"""A stand-in for the library of NVIDIA's driver, which the real pynvml loads: see ``libnvidia-ml.c``.

``build``    makes it, and the table from which it answers, out of the GPUs of the fake in memory
``standin``  ``NvmlGpus`` in a process that finds it there: a library that was loaded once stays
"""
