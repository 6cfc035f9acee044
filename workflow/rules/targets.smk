# Experiments by name: `snakemake --cores 2 prevalence` makes one experiment's tables and figures. Each study is a
# target of its own name; a study "basin" is part of the target of that name.
for target in [*TARGETS, *(name for name in experiment.studies if name not in TARGETS)]:

    rule:
        name:
            target
        input:
            # Asked for when the target is: one whose simulations are left out says so.
            lambda w, name=target: experiment_files(name),
        localrule: True
