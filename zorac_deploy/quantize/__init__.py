"""Quantize a model with llmcompressor, in an environment of its own.

`prepare` looks at everything that can be known beforehand and refuses what cannot work; `make` does it.
"""

from zorac_deploy.quantize.job import Job, prepare
from zorac_deploy.quantize.making import Event, Made, make
from zorac_deploy.quantize.recipe import shipped

__all__ = ["Event", "Job", "Made", "make", "prepare", "shipped"]
