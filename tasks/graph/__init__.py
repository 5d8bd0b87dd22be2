"""What is read from DVC: stages, their keys, and whether they are up to date. Only here: dvc."""
