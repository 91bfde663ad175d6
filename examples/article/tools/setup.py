"""The tool, a distribution of its own."""

from setuptools import setup

setup(
    name="count-sessions",
    version="1.0",
    py_modules=["count_sessions"],
    install_requires=["tabulate"],
    entry_points={"console_scripts": ["count-sessions = count_sessions:main"]},
)
