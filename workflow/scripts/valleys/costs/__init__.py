"""What a run will take: time, memory and disk of each job, before it starts; only sizes are measured."""
