"""The fault benchmark: trainings that go well, the same trainings broken in one known way, and what diagnosers say of both.

No idea of any rule. `bench_faults.py` beside this folder runs it; README.md here says what is measured.
"""

VERSION = 2  # of programs, cases and split: figures of different versions do not compare
