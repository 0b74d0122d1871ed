"""Build the optional C back end; all else is in pyproject.toml.

Where there is no compiler the installation goes on without it, and the torch reference measures instead.
"""

import sys

from setuptools import Extension, setup

# The result is checked for NaN on purpose, so no -ffast-math; the two flags below change no value: they only say that
# nobody reads the floating-point exception flags or errno.
FLAGS = (
    [] if sys.platform == "win32" else ["-O3", "-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden"]
)
LINK_FLAGS = [] if sys.platform == "win32" else ["-pthread"]

setup(
    ext_modules=[
        Extension(
            "actograph.sketch._observe",
            ["src/actograph/sketch/_observe.c"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=FLAGS,
            extra_link_args=LINK_FLAGS,
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
