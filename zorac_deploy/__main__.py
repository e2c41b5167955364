"""Run ``zorac-deploy`` as ``python -m zorac_deploy``."""

from zorac_deploy.cli import main

main()
