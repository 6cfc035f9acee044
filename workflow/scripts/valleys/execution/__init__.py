"""How jobs run: around a script, beside other runs, forked, and in a SLURM queue; not what they do."""
