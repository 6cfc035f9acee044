# All looks, so all seeds that there may be: `snakemake -n all most_seeds` shows the most that a run can take.
if experiment.looks:

    rule:
        name:
            "most_seeds"
        input:
            [look_file(count) for count in experiment.looks.counts],
            parts_at(experiment.looks.most),
        localrule: True


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
