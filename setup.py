"""Installs tf_gems. See pyproject.toml for the package metadata."""

from setuptools import setup

setup()
