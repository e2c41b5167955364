"""Will it fit? What vLLM is going to log about memory, computed before it is started.

`plan` joins four descriptions: a `Model` (from its config.json), a `Card`, an `Engine` (a version of vLLM) and its
`Flags`. Nothing here reads a host or starts anything; `fit` alone reads files, those of a model's folder.
"""

from zorac_deploy.planner.config import from_config
from zorac_deploy.planner.engine import Card, Engine
from zorac_deploy.planner.flags import Flags
from zorac_deploy.planner.folder import fit
from zorac_deploy.planner.model import Model
from zorac_deploy.planner.plan import Plan, plan

__all__ = ["Card", "Engine", "Flags", "Model", "Plan", "fit", "from_config", "plan"]
