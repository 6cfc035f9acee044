"""What a person is shown of a run: the page, its tables, the graph of rules, two runs side by side."""
