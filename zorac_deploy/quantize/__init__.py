"""Quantize a model with llmcompressor, in a separate environment.

`prepare` checks everything that can be known beforehand; `make` does the work.
"""

from zorac_deploy.quantize.job import Job, prepare
from zorac_deploy.quantize.making import Event, Made, make
from zorac_deploy.quantize.recipe import shipped

__all__ = ["Event", "Job", "Made", "make", "prepare", "shipped"]
