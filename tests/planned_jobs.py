"""Jobs that need one another, as Snakemake plans them."""

from types import SimpleNamespace


def jobs(**needs):
    """Dependencies as Snakemake has them, from ``job="other other"``; a rule is a job's name less digits."""
    made = {name: SimpleNamespace(rule=SimpleNamespace(name=name.rstrip("0123456789"))) for name in needs}
    return {Job(name, made): [Job(n, made) for n in text.split()] for name, text in needs.items()}


class Job:
    def __init__(self, name, made):
        self.name, self.rule = name, made[name].rule

    def __eq__(self, other):
        return self.name == other.name

    def __hash__(self):
        return hash(self.name)


CYCLIC = {
    "data": "",
    "train1": "data",
    "average1": "train1",
    "refresh1": "train1",
    "refresh2": "average1",
    "descend1": "refresh2",
    "refresh3": "descend1",
    "probe1": "refresh1",
    "probe2": "refresh3 data",
    "report": "probe1 probe2",
    "all": "report other",
    "other": "data",
}
