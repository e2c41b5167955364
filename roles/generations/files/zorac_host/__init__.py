"""What runs on the host itself, whoever is connected to it. Needs Python 3.11 and nothing else."""
