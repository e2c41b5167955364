"""Predict what vLLM will log about memory, before it is started.

`plan` joins four descriptions: a `Model` (from its config.json), a `Card`, an `Engine` (a version of vLLM) and its
`Flags`; the last three together are a `Setup`. Nothing here reads a host or starts a program; only `fit` reads files,
those of a model's directory.
"""

from zorac_deploy.planner.config import from_config
from zorac_deploy.planner.engine import Card, Engine
from zorac_deploy.planner.flags import Flags
from zorac_deploy.planner.folder import fit
from zorac_deploy.planner.model import Model
from zorac_deploy.planner.plan import Plan, plan
from zorac_deploy.planner.setup import Setup

__all__ = ["Card", "Engine", "Flags", "Model", "Plan", "Setup", "fit", "from_config", "plan"]
