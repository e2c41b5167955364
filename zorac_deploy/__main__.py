"""``python -m zorac_deploy`` is ``zorac-deploy``."""

from zorac_deploy.cli import main

main()
