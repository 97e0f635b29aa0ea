"""Installs tf_gems. What is installed is described in pyproject.toml."""

from setuptools import setup

setup()
