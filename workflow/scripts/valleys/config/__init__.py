"""What is to be made: a config file, checked, and the experiment it stands for; no torch, no measuring."""
